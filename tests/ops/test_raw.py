"""ops.raw: the kernels on NumPy arrays, without torch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from medtrust import ops
from medtrust.errors import DataError, NativeError
from medtrust.ops import _native, raw

pytestmark = pytest.mark.skipif(_native.extension is None, reason=f"no compiled kernels: {_native.absence}")


def images(shape: tuple[int, ...], dtype: type, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, shape).astype(dtype)


def test_torch_is_not_imported():
    """All of ops.raw runs in an interpreter that cannot import torch."""
    code = """
import sys; sys.modules["torch"] = None
import numpy as np
from medtrust.ops import raw
x = np.random.default_rng(0).integers(0, 256, (2, 1, 20, 21)).astype(np.uint8)
assert raw.ssim(x, x, data_range=255).astype(np.float32).tolist() == [1, 1]
z = raw.philox_normal((3, 5), seed=1)
assert z.shape == raw.philox_uniform((3, 5), seed=1).shape
assert (raw.reparameterise(z, 0 * z, seed=1) == 2 * z).all()
f = raw.philox_normal((30, 5), seed=2)
assert raw.nearest(f, f, 1).distances.max() == 0
assert 0 <= raw.prdc(f, f + 1, 3).recall <= 1
assert abs(raw.mmd(f, f)) < 1
assert raw.moments(f)[1].shape == (5, 5)
assert raw.radiomics(x, lo=0, hi=255).values.shape == (2, 98)
assert raw.max_ncc(x, x, 1).min() > 0.99 and raw.tile_l2(x, x, 4).max() == 0
assert raw.ms_ssim(x, x, data_range=255, weights=(1.0,)).max() <= 1
assert abs(raw.truncated_normal((9,), 1, bound=0.5)).max() <= 0.5
from medtrust.ops.schedules import schedule
assert raw.diffusion_step("ddim", z, z, schedule=schedule("ddim", 2), step=0).x.shape == z.shape
print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "done", done.stderr


@pytest.mark.parametrize("convention", ["wang", "skimage", "torchmetrics"])
@pytest.mark.parametrize("shape", [(2, 3, 23, 40), (1, 1, 13, 14, 15), (0, 1, 20, 20)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_ssim_equals_the_op(shape, dtype, convention):
    """The values are those of ops.ssim, volumes and empty batches included."""
    x, y = images(shape, dtype, 1), images(shape, dtype, 2)
    got = raw.ssim(x, y, data_range=255, convention=convention, threads=2)
    expected = ops.ssim(torch.from_numpy(x), torch.from_numpy(y), data_range=255, convention=convention)
    assert np.array_equal(got.astype(np.float32), expected.numpy())


def test_noise_equals_the_op():
    """Noise and latents have the op's bits, from any first sample."""
    assert np.array_equal(raw.philox_normal((3, 7), 5, 2, first=4), ops.philox_normal((3, 7), 5, 2, first=4))
    assert np.array_equal(raw.philox_uniform((3, 7), 5, 2, threads=3), ops.philox_uniform((3, 7), 5, 2))
    mu, logvar = images((2, 9), np.float32, 3), images((2, 9), np.float32, 4) / 100
    expected = ops.reparameterise(torch.from_numpy(mu), torch.from_numpy(logvar), 6)
    assert np.array_equal(raw.reparameterise(mu, logvar, 6), expected.numpy())


def test_strides_do_not_matter():
    """A transposed or reversed array gives the values of its copy."""
    x, y = images((1, 1, 30, 25), np.float32, 5), images((1, 1, 30, 25), np.float32, 6)
    expected = raw.ssim(x[..., ::-1, :].copy(), y.swapaxes(2, 3).copy().swapaxes(2, 3), data_range=255)
    assert raw.ssim(x[..., ::-1, :], y, data_range=255) == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": [[1.0]]}, "x is a list"),
        ({"y": np.zeros((1, 1, 20, 20))}, "y is float64; convert it"),
        ({"y": np.zeros((1, 1, 20, 20), ">f4")}, "y is >f4; convert it"),
        ({"y": np.zeros((1, 1, 20, 21), np.float32)}, r"y is float32 \[1, 1, 20, 21\]"),
        ({"x": np.zeros((20, 20), np.float32), "y": np.zeros((20, 20), np.float32)}, r"x has shape \[20, 20\]"),
        ({"size": 21}, "smaller than 21"),
        ({"data_range": 0}, "data_range is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"x": np.full((1, 1, 20, 20), np.nan, np.float32)}, "image 0 holds a NaN"),
    ],
)
def test_refusals(change, words):
    """What cannot be compared is refused with the argument's name."""
    arguments = {"x": np.zeros((1, 1, 20, 20), np.float32), "y": np.zeros((1, 1, 20, 20), np.float32), "data_range": 1}
    arguments |= change
    with pytest.raises(DataError, match=words):
        raw.ssim(**arguments)


def test_absence_is_an_error(monkeypatch):
    """Without the extension there is nothing to fall back on, and the error says how to get it."""
    monkeypatch.setattr(_native, "extension", None)
    monkeypatch.setattr(_native, "absence", "it was not built; build it")
    with pytest.raises(NativeError, match=r"ops\.raw\.philox_normal needs the compiled kernels: it was not built"):
        raw.philox_normal((2,), 1)
