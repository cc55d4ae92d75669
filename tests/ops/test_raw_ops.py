"""ops.raw beyond SSIM and noise: every op on NumPy arrays has the op's values, and refuses what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medtrust import ops
from medtrust.errors import DataError
from medtrust.ops import _native, raw

pytestmark = pytest.mark.skipif(_native.extension is None, reason=f"no compiled kernels: {_native.absence}")
THREADS = [1, 3]


def features(n: int, d: int, seed: int, dtype: type = np.float32) -> np.ndarray:
    return (3 + np.random.default_rng(seed).standard_normal((n, d))).astype(dtype)


def images(shape: tuple[int, ...], seed: int, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, shape).astype(dtype)


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(a) for a in arrays]


def test_every_op_has_a_raw_call():
    """What ops offers on images, features and noise, raw offers too; maps, schedules and loops need none."""
    loops = {"SamplingGraph", "sampling_loop", "start_noise"}
    assert set(ops.__all__) - set(raw.__all__) == loops | {"info", "schedule", "ssim_map"}


@pytest.mark.parametrize("matrix", ["", "none"])
@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nearest(dtype, threads, matrix, monkeypatch):
    """The op's neighbours with and without a matrix unit; patients excluded; copies need the float64 sweep."""
    monkeypatch.setenv("MEDTRUST_MATRIX", matrix)
    queries, points = features(40, 19, 1, dtype), features(900, 19, 2, dtype)
    points[100:103] = queries[0]
    patients = np.arange(40) % 7, np.arange(900) % 7
    crowd = np.repeat(features(3, 19, 3, dtype), 200, 0)
    for a, b, k, groups in ((queries, points, 3, None), (queries, points, 5, patients), (crowd[::50], crowd, 30, None)):
        got = raw.nearest(a, b, k, groups, threads=threads)
        expected = ops.nearest(*tensors(a, b), k, groups and tuple(tensors(*groups)))
        np.testing.assert_allclose(got.distances, expected.distances.numpy(), rtol=3e-16)  # roots differ by an ulp
        assert np.array_equal(got.indices, expected.indices.numpy())


@pytest.mark.parametrize("matrix", ["", "none"])
@pytest.mark.parametrize("convention", ["prdc", "kynkaanniemi"])
def test_prdc(convention, matrix, monkeypatch):
    """The op's values, ties with the radius included."""
    monkeypatch.setenv("MEDTRUST_MATRIX", matrix)
    lattice = [np.random.default_rng(s).integers(0, 3, (50, 4)).astype(np.float32) for s in (1, 2)]
    for real, fake in ((features(300, 11, 1), features(280, 11, 2)), lattice):
        assert raw.prdc(real, fake, 4, convention, threads=2) == ops.prdc(*tensors(real, fake), 4, convention)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mmd(dtype):
    """The op's bits for both kernels."""
    real, fake = features(70, 21, 1, dtype), features(60, 21, 2, dtype)
    for options in (("poly3", None), ("rbf", 4.0)):
        assert raw.mmd(real, fake, *options, threads=2) == pytest.approx(
            ops.mmd(*tensors(real, fake), *options), rel=1e-12
        )


def test_moments():
    """Far from zero, in batches, merged, and at once, the mean and covariance are the op's."""
    rows = features(5000, 13, 1) + 1000
    stream = ops.Moments(13).update(torch.from_numpy(rows))
    parts = [raw.Moments(13), raw.Moments(13)]
    for i, batch in enumerate(np.array_split(rows, 9)):
        parts[i % 2].update(batch)
    merged = parts[0].merge(parts[1])
    assert merged.n == 5000
    for mean, cov in (raw.moments(rows), (merged.mean, merged.cov)):
        np.testing.assert_allclose(mean, stream.mean, rtol=1e-14)
        np.testing.assert_allclose(cov, stream.cov, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_copies(dtype):
    """The op's bits for shifted correlation and tile distances."""
    x, y = images((3, 2, 21, 18), 1, dtype), images((3, 2, 21, 18), 2, dtype)
    assert np.array_equal(raw.max_ncc(x, y, 2, threads=2), ops.max_ncc(*tensors(x, y), 2).numpy())
    assert np.array_equal(raw.tile_l2(x, y, 8, threads=2), ops.tile_l2(*tensors(x, y), 8).numpy())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_radiomics(dtype):
    """The op's bits and names, with channels, a mask and both aggregations."""
    x, mask = images((3, 2, 30, 25), 1, dtype), np.random.default_rng(2).random((3, 30, 25)) < 0.7
    for options in ({}, {"width": 20.0, "aggregation": "slice-merged", "families": ("glcm", "ngtdm")}):
        for region in (None, mask):
            got = raw.radiomics(x, region, lo=0, hi=200, threads=2, **options)
            region = region if region is None else torch.from_numpy(region)
            expected = ops.radiomics(torch.from_numpy(x), region, lo=0, hi=200, dtype=torch.float64, **options)
            assert np.array_equal(got.values, expected.values.numpy())
            assert got.names == expected.names


@pytest.mark.parametrize("convention", ["wang", "skimage", "torchmetrics", "pytorch-msssim", "monai", "piq"])
@pytest.mark.parametrize("shape", [(2, 3, 48, 64), (1, 2, 47, 53), (1, 1, 23, 25, 26)])
def test_ms_ssim(shape, convention):
    """The op's values in every convention, odd edges and volumes included."""
    x, y = images(shape, 1), images(shape, 2)
    y = (0.7 * x + 0.3 * y).astype(np.float32)
    options = {"data_range": 255, "weights": (0.4, 0.6), "convention": convention}
    got = raw.ms_ssim(x, y, threads=2, **options)
    np.testing.assert_allclose(got, ops.ms_ssim(*tensors(x, y), **options).numpy(), rtol=0, atol=5e-7)


@pytest.mark.parametrize("kind", ["ddpm", "ddim", "dpmpp2m", "dpmpp2m_sde", "euler", "heun", "flow_euler", "flow_heun"])
def test_samplers(kind):
    """A whole sampling loop has the op's bits, with guidance, clamp and 8-bit output."""
    schedule = ops.schedule(kind, 4)
    x = raw.philox_normal((3, 1, 6, 7), 1)
    outputs = [images(x.shape, s) / 255 - 0.5 for s in range(2 * len(schedule))]
    a, b, memory_a, memory_b = x, torch.from_numpy(x), None, None
    for row in range(len(schedule)):
        eps = outputs[2 * row : 2 * row + 2]
        last = row == len(schedule) - 1
        options = {"schedule": schedule, "step": row, "scale": 3.0, "clamp": (-1, 1), "seed": 5, "first": 2}
        options["quantise"] = (-1, 1) if last else None
        a, memory_a = raw.diffusion_step(kind, a, eps[0], eps_uncond=eps[1], memory=memory_a, threads=2, **options)
        model = tensors(*eps)
        b, memory_b = ops.diffusion_step(kind, b, model[0], eps_uncond=model[1], memory=memory_b, **options)
        assert np.array_equal(a, b.numpy())
        assert (memory_a is None) == (memory_b is None)
    half = outputs[0].astype(np.float16)
    got = raw.diffusion_step("ddim", x, half, schedule=ops.schedule("ddim", 3), step=0).x
    expected = ops.diffusion_step("ddim", *tensors(x, half), schedule=ops.schedule("ddim", 3), step=0).x
    assert np.array_equal(got, expected.numpy())


def test_truncated_normal():
    """The op's values within one rounding of float32."""
    got = raw.truncated_normal((4, 500), 5, 2, 0.7, first=1, threads=2)
    np.testing.assert_allclose(got, ops.truncated_normal((4, 500), 5, 2, 0.7, first=1), rtol=2e-7, atol=1e-9)
    assert abs(got).max() <= np.float32(0.7)


X, F = np.zeros((2, 1, 20, 20), np.float32), np.ones((9, 4), np.float32)
NAN_X, NAN_F = X.copy(), F.copy()
NAN_X[1, 0, 3, 3] = NAN_F[7, 1] = np.nan
DDIM = ops.schedule("ddim", 3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: raw.max_ncc(X, X[:, :, :9], 1), r"x is float32 \[2, 1, 20, 20\], y is float32 \[2, 1, 9, 20\]"),
        (lambda: raw.max_ncc(X, X, 20), "radius 20"),
        (lambda: raw.max_ncc(NAN_X, X, 1), "image 1 holds a NaN"),
        (lambda: raw.tile_l2(X.astype(float), X.astype(float), 4), "x is float64"),
        (lambda: raw.tile_l2(X, X, 0), "tile is 0"),
        (lambda: raw.tile_l2(X, NAN_X, 3), "image 1 holds a NaN"),
        (lambda: raw.ms_ssim(X, X, data_range=1), "at scale 2 are smaller than 11"),
        (lambda: raw.ms_ssim(X, X, data_range=1, weights=()), "weights is empty"),
        (lambda: raw.radiomics(X.astype(float), lo=0, hi=1), "images is float64"),
        (lambda: raw.radiomics(X[0, 0], lo=0, hi=1), r"images is float32 \[20, 20\]"),
        (lambda: raw.radiomics(X, lo=1, hi=1), "range 1 to 1"),
        (lambda: raw.radiomics(X, X[:, 0] > 0, lo=0, hi=1), "image 0 has an empty mask"),
        (lambda: raw.radiomics(X, X > 0, lo=0, hi=1), r"mask must be bool or integers \[2, 20, 20\]"),
        (lambda: raw.radiomics(NAN_X, lo=0, hi=1), "image 1 holds a NaN"),
        (lambda: raw.radiomics(X, lo=0, hi=1, families=("glcmx",)), "'glcmx' is not one of"),
        (lambda: raw.nearest(F, F[:, :3], 1), "reference is float32"),
        (lambda: raw.nearest(F[0], F, 1), r"queries has shape \[4\]"),
        (lambda: raw.nearest(NAN_F, F, 1), "row 7 of queries"),
        (lambda: raw.nearest(F, F, 10), "k=10 is not within 1..9"),
        (lambda: raw.nearest(F, F, 1, (np.zeros(9, int), np.zeros(9, int))), "query 0 has 0 reference rows"),
        (lambda: raw.nearest(F, F, 1, (np.zeros(9), np.zeros(9))), "exclude for the queries"),
        (lambda: raw.prdc(F, F, 2), "every ball is empty"),
        (lambda: raw.prdc(F, F, 9), "k=9"),
        (lambda: raw.prdc(F, F, 2, "other"), "convention 'other'"),
        (lambda: raw.mmd(F, F[:1]), "9 and 1 rows"),
        (lambda: raw.mmd(F, F, "rbf"), "bandwidth"),
        (lambda: raw.mmd(F, NAN_F), "row 7 of fake"),
        (lambda: raw.moments(NAN_F), "row 7 of rows"),
        (lambda: raw.moments(F[:1]), "1 rows were seen, at least 2"),
        (lambda: raw.Moments(3).update(F), "rows have 4 features"),
        (lambda: raw.diffusion_step("ddpm", X, X, schedule=DDIM, step=0), "kind is 'ddpm'"),
        (lambda: raw.diffusion_step("ddim", X, X, schedule=DDIM, step=3), "rows 0..2"),
        (lambda: raw.diffusion_step("ddim", X, X[:1], schedule=DDIM, step=0), r"eps is float32 \[1, 1, 20, 20\]"),
        (lambda: raw.diffusion_step("ddim", X, X, schedule=DDIM, step=0, scale=2), "scale is 2 without eps_uncond"),
        (lambda: raw.diffusion_step("ddim", X, NAN_X, schedule=DDIM, step=0, quantise=(-1, 1)), "a NaN reached"),
        (lambda: raw.truncated_normal((2,), 1, bound=0.0), "bound is 0.0"),
    ],
)  # fmt: skip
def test_refusals(call, words):
    """What does not fit is refused with the argument's name, and its shape where the shape is what is wrong."""
    with pytest.raises(DataError, match=words):
        call()
