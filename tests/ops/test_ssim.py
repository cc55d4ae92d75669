"""ops.ssim and ops.ms_ssim against their float64 twin, the published implementations and each other."""

from __future__ import annotations

import importlib
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from medtrust import ops
from medtrust.errors import DataError
from medtrust.ops import _native, reference
from medtrust.ops._conventions import CONVENTIONS, window_of

SIZES = [(11, 11), (12, 17), (37, 61), (64, 64), (75, 259), (130, 513)]


def pair(
    shape: tuple[int, ...], dtype: torch.dtype, seed: int, centre: float = 120, spread: float = 40
) -> tuple[Tensor, Tensor]:
    """A noisy pair of images with structure, in the given dtype."""
    generator = torch.Generator().manual_seed(seed)
    x = centre + spread * torch.randn(shape, generator=generator, dtype=torch.float64).cumsum(-1) / shape[-1] ** 0.5
    y = x + 0.4 * spread * torch.randn(shape, generator=generator, dtype=torch.float64)
    if dtype == torch.uint8:
        return x.round().clamp(0, 255).to(dtype), y.round().clamp(0, 255).to(dtype)
    if dtype == torch.uint16:
        return tuple((t * 200).round().clamp(0, 65535).to(torch.int32).to(dtype) for t in (x, y))  # type: ignore[return-value]
    return x.to(dtype), y.to(dtype)


def twin(x: Tensor, y: Tensor, data_range: float, convention: str, **options) -> Tensor:
    """The same metric by the float64 twin."""
    return ops.ssim(x.to(torch.float64), y.to(torch.float64), data_range=data_range, convention=convention, **options)


@pytest.mark.parametrize("convention", sorted(CONVENTIONS))
@pytest.mark.parametrize(("dtype", "data_range"), [(torch.uint8, 255), (torch.uint16, 51000), (torch.float32, 255)])
@pytest.mark.parametrize("size", SIZES)
def test_native_equals_twin(convention, dtype, data_range, size):
    """Every dtype, size and convention gives the float64 value to 1e-6."""
    x, y = pair((2, 2, *size), dtype, seed=size[0] * size[1])
    torch.testing.assert_close(
        ops.ssim(x, y, data_range=data_range, convention=convention),
        twin(x, y, data_range, convention),
        atol=1e-6,
        rtol=0,
    )


@pytest.mark.parametrize(
    ("window", "size", "sigma"),
    [("gaussian", 5, 0.8), ("gaussian", 21, 3.0), ("uniform", 3, 1.5), ("uniform", 9, 1.5), ("uniform", 1, 1.5)],
)
def test_other_windows(window, size, sigma):
    """Windows of other sizes and kinds equal the twin too."""
    x, y = pair((1, 3, 40, 53), torch.float32, seed=size)
    options = {"window": window, "size": size, "sigma": sigma}
    got = ops.ssim(x, y, data_range=255, **options)
    torch.testing.assert_close(got, twin(x, y, 255, "wang", **options), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [1, 3, 7, 9, 11, 13])
@pytest.mark.parametrize("shape", [(13, 13), (17, 530), (70, 29)])
def test_uniform_windows_of_bytes(size, shape):
    """Uniform windows over 8-bit images, black and white included, give the float64 value to float32's precision."""
    generator = torch.Generator().manual_seed(size)
    x = torch.randint(0, 256, (2, 2, *shape), generator=generator)
    y = (x + torch.randint(-30, 31, x.shape, generator=generator)).clamp(0, 255)
    x[0, 0], y[0, 0] = 255, 255
    x[0, 1], y[0, 1] = 255, 0
    y[1, 1] = 255 - x[1, 1]
    x, y = x.to(torch.uint8), y.to(torch.uint8)
    options = {"window": "uniform", "size": size}
    planes = [ops.ssim(x[:, c : c + 1], y[:, c : c + 1], data_range=255, **options) for c in range(2)]
    expected = [twin(x[:, c : c + 1], y[:, c : c + 1], 255, "wang", **options) for c in range(2)]
    torch.testing.assert_close(torch.stack(planes), torch.stack(expected), atol=3e-7, rtol=0)


@pytest.mark.parametrize("unit", [1e-20, 1e-3, 1e12])
def test_unit_of_the_intensities(unit):
    """The value depends on the images in units of the data range, however small or large these are."""
    x, y = (t / 255 for t in pair((1, 1, 40, 50), torch.float32, seed=21))
    expected = ops.ssim(x, y, data_range=1)
    torch.testing.assert_close(ops.ssim(x * unit, y * unit, data_range=unit), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("convention", ["wang", "torchmetrics", "skimage"])
def test_volumes(convention):
    """Volumes are filtered along depth as well."""
    x, y = pair((2, 1, 13, 19, 24), torch.float32, seed=5)
    got = ops.ssim(x, y, data_range=255, convention=convention)
    torch.testing.assert_close(got, twin(x, y, 255, convention), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("centre", "spread", "dtype", "data_range"),
    [
        (1064, 5, torch.float32, 80),  # CT soft tissue
        (60000, 20, torch.float32, 400),  # 16-bit detector counts
        (60000, 20, torch.uint16, 400),
        (-1e6, 3, torch.float32, 50),
    ],
)
def test_narrow_range_far_from_zero(centre, spread, dtype, data_range):
    """A narrow range far from zero keeps float64 accuracy, where float32 E[x^2] - E[x]^2 does not."""
    generator = torch.Generator().manual_seed(int(abs(centre)))
    x = centre + spread * torch.randn((2, 1, 96, 130), generator=generator, dtype=torch.float64)
    y = x + spread * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    x, y = (t.round().to(torch.int32).to(dtype) if dtype == torch.uint16 else t.to(dtype) for t in (x, y))
    got, expected = ops.ssim(x, y, data_range=data_range), twin(x, y, data_range, "wang")
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)
    if dtype == torch.float32:
        naive = naive_float32(x, y, data_range)
        assert float((naive - expected).abs().max()) > 1e-4, "the trap that this test is about must exist"


def naive_float32(x: Tensor, y: Tensor, data_range: float) -> Tensor:
    """The textbook formula in float32, as most packages compute it."""
    taps = torch.tensor(window_of("ssim", "wang", None, None, 1.5).taps)
    kernel = torch.outer(taps, taps)[None, None]
    a, b, aa, bb, ab = (torch.nn.functional.conv2d(m, kernel) for m in (x, y, x * x, y * y, x * y))
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    full = (2 * a * b + c1) * (2 * (ab - a * b) + c2) / ((a * a + b * b + c1) * (aa - a * a + bb - b * b + c2))
    return full.mean((1, 2, 3))


def test_range_within_a_tile_beyond_the_declared_one():
    """An image whose own range is far above data_range (bone and air in a soft-tissue window) stays accurate."""
    x, y = pair((1, 1, 100, 140), torch.float32, seed=3, centre=40, spread=4)
    x[..., 50:, :] -= 1000
    y[..., 50:, :] -= 1000
    x[..., 20:30, 20:40] += 2500
    torch.testing.assert_close(ops.ssim(x, y, data_range=80), twin(x, y, 80, "wang"), atol=1e-6, rtol=0)


def test_identical_and_constant_images():
    """An image equals itself, and two constants differ by luminance alone."""
    x, _ = pair((2, 1, 30, 30), torch.float32, seed=1)
    for same in (x, x.to(torch.uint8)):
        for window in ("gaussian", "uniform"):
            assert ops.ssim(same, same, data_range=255, window=window).tolist() == [1.0, 1.0]
    a, b = torch.full((1, 1, 20, 20), 100.0), torch.full((1, 1, 20, 20), 50.0)
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 50 + c1) / (100**2 + 50**2 + c1)
    assert float(ops.ssim(a, b, data_range=255)) == pytest.approx(expected, abs=1e-6)


def test_same_bits_at_any_thread_count_and_batch_split():
    """Neither the number of threads nor the batch an image comes in changes a bit."""
    x, y = pair((5, 2, 140, 300), torch.float32, seed=8)
    before = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(ops.ssim(x, y, data_range=255))
    finally:
        torch.set_num_threads(before)
    results.append(torch.cat([ops.ssim(x[i : i + 1], y[i : i + 1], data_range=255) for i in range(5)]))
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_layouts():
    """Non-contiguous, channels-last and expanded inputs give the values of their contiguous copies."""
    x, y = pair((2, 3, 40, 52), torch.float32, seed=2)
    expected = ops.ssim(x, y, data_range=255)
    last = [t.contiguous(memory_format=torch.channels_last) for t in (x, y)]
    assert torch.equal(ops.ssim(*last, data_range=255), expected)
    wide = torch.zeros(2, 3, 40, 104)
    wide[..., ::2] = x
    assert torch.equal(ops.ssim(wide[..., ::2], y, data_range=255), expected)
    one = x[:1].expand(2, -1, -1, -1)
    assert torch.equal(ops.ssim(one, y, data_range=255)[1:], ops.ssim(x[:1], y[1:], data_range=255))


def test_empty_batch_and_one_pixel():
    """No image gives no value; an image smaller than the window is refused, unless the window is one pixel."""
    assert ops.ssim(torch.zeros(0, 1, 20, 20), torch.zeros(0, 1, 20, 20), data_range=1).shape == (0,)
    dot = torch.full((1, 1, 1, 1), 0.5)
    assert float(ops.ssim(dot, dot, data_range=1, size=1)) == 1
    with pytest.raises(DataError, match="smaller than 11"):
        ops.ssim(dot, dot, data_range=1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": torch.zeros(2, 1, 20, 21)}, "differ in shape"),
        ({"y": torch.zeros(2, 1, 20, 20, dtype=torch.uint8)}, "differ in dtype"),
        ({"x": torch.zeros(20, 20)}, "shape"),
        ({"x": torch.zeros(2, 1, 20, 20, dtype=torch.int64)}, "convert it"),
        ({"x": np.zeros((2, 1, 20, 20), np.float32)}, "pass a torch tensor"),
        ({"x": torch.zeros(2, 1, 20, 20, device="meta")}, "device"),
        ({"x": torch.zeros(2, 1, 20, 20).to_sparse()}, "to_dense"),
        ({"data_range": 0}, "data_range"),
        ({"data_range": float("nan")}, "data_range"),
        ({"convention": "matlab"}, "convention"),
        ({"window": "hann"}, "window"),
        ({"size": 10}, "odd"),
        ({"sigma": -1}, "sigma"),
        ({"convention": "skimage", "size": 1}, "sample covariance"),
    ],
)
def test_refusals(change, words):
    """What cannot be compared is refused with a sentence that says what to do."""
    arguments = {"x": torch.zeros(2, 1, 20, 20), "y": torch.zeros(2, 1, 20, 20), "data_range": 1.0} | change
    with pytest.raises(DataError, match=words):
        ops.ssim(arguments.pop("x"), arguments.pop("y"), **arguments)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_pixels_are_named(bad):
    """A NaN or an infinity anywhere is an error that names the image."""
    x, y = pair((3, 1, 30, 41), torch.float32, seed=4)
    x[1, 0, 29, 40] = bad
    with pytest.raises(DataError, match="image 1 holds"):
        ops.ssim(x, y, data_range=255)


def camera() -> tuple[np.ndarray, np.ndarray]:
    """The photograph of the parity table and its noisy copy."""
    data = pytest.importorskip("skimage.data", reason="scikit-image brings the photograph of the parity table")
    image = data.camera()
    noisy = np.rint(image + np.random.default_rng(0).normal(0, 15, image.shape)).clip(0, 255).astype(np.uint8)
    return image, noisy


def tensors(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return tuple(torch.from_numpy(image)[None, None].to(dtype) for image in camera())  # type: ignore[return-value]


def test_skimage_parity():
    """scikit-image's own values are met in both of its windows."""
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    a, b = camera()
    x, y = tensors(torch.uint8)
    expected = metrics.structural_similarity(a, b, data_range=255)
    assert expected == pytest.approx(0.4627076, abs=1e-7)
    assert float(ops.ssim(x, y, data_range=255, convention="skimage")) == pytest.approx(expected, abs=1e-6)
    expected = metrics.structural_similarity(a, b, data_range=255, gaussian_weights=True)
    got = ops.ssim(x, y, data_range=255, convention="skimage", window="gaussian")
    assert float(got) == pytest.approx(expected, abs=1e-6)
    wang = metrics.structural_similarity(a, b, data_range=255, gaussian_weights=True, use_sample_covariance=False)
    assert wang == pytest.approx(0.4557368, abs=1e-7)
    assert float(ops.ssim(x, y, data_range=255)) == pytest.approx(wang, abs=1e-6)


# Peers run in float64, which takes their own float32 cancellation out. pytorch-msssim and MONAI build their windows in
# float32 (the weights miss 1 by 1e-8, times the squared mean), hence their wider tolerance.
PEERS = {
    "pytorch-msssim": ("pytorch_msssim", 1e-5),
    "torchmetrics": ("torchmetrics.functional.image", 1e-6),
    "piq": ("piq", 1e-6),
    "monai": ("monai.metrics.regression", 1e-5),
}


def peer(name: str):
    try:
        return importlib.import_module(PEERS[name][0])
    except ImportError as error:
        pytest.skip(f"{name} is not installed ({error})")


def peer_ssim(name: str, x: Tensor, y: Tensor) -> float:
    module = peer(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "pytorch-msssim":
            return float(module.ssim(x, y, data_range=255))
        if name == "piq":
            return float(module.ssim(x, y, data_range=255.0, downsample=False))
        if name == "monai":
            return float(module.SSIMMetric(2, data_range=255.0)(x, y).mean())
        return float(module.structural_similarity_index_measure(x, y, data_range=255.0))


def peer_ms_ssim(name: str, x: Tensor, y: Tensor) -> float:
    module = peer(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "pytorch-msssim":
            return float(module.ms_ssim(x, y, data_range=255))
        if name == "piq":
            return float(module.multi_scale_ssim(x, y, data_range=255.0))
        if name == "monai":
            return float(module.MultiScaleSSIMMetric(2, data_range=255.0)(x, y).mean())
        return float(module.multiscale_structural_similarity_index_measure(x, y, data_range=255.0))


@pytest.mark.parametrize(
    ("name", "published"),
    [("pytorch-msssim", 0.4557440), ("torchmetrics", 0.4538189), ("piq", 0.4557120), ("monai", 0.4557410)],
)
def test_peer_parity(name, published):
    """Each convention meets the package it is named after, and the value published for float32."""
    x, y = tensors()
    got = float(ops.ssim(x.to(torch.uint8), y.to(torch.uint8), data_range=255, convention=name))
    assert got == pytest.approx(peer_ssim(name, x, y), abs=PEERS[name][1])
    assert got == pytest.approx(published, abs=3e-5)


def peer_of_volumes(name: str, x: Tensor, y: Tensor) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name in ("skimage", "wang"):
            metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
            options = {} if name == "skimage" else {"gaussian_weights": True, "use_sample_covariance": False}
            return float(metrics.structural_similarity(x[0, 0].numpy(), y[0, 0].numpy(), data_range=255, **options))
        if name == "pytorch-msssim":
            return float(peer(name).ssim(x, y, data_range=255))
        if name == "monai":
            return float(peer(name).SSIMMetric(3, data_range=255.0)(x, y).mean())
        return float(peer(name).structural_similarity_index_measure(x, y, data_range=255.0))


@pytest.mark.parametrize("name", ["wang", "skimage", "torchmetrics", "pytorch-msssim", "monai"])
def test_peer_parity_of_volumes(name):
    """In 3-D too each convention meets the package it is named after (wang: scikit-image's Gaussian)."""
    generator = torch.Generator().manual_seed(31)
    coarse = torch.rand((1, 1, 4, 5, 5), generator=generator, dtype=torch.float64)
    x = (255 * torch.nn.functional.interpolate(coarse, (19, 24, 23), mode="trilinear")).round()
    y = (x + 20 * torch.randn(x.shape, generator=generator, dtype=torch.float64)).round().clamp(0, 255)
    expected = peer_of_volumes(name, x, y)
    for dtype in (torch.uint8, torch.float32):
        got = float(ops.ssim(x.to(dtype), y.to(dtype), data_range=255, convention=name))
        assert got == pytest.approx(expected, abs=PEERS.get(name, ("", 1e-6))[1])


@pytest.mark.parametrize(
    ("name", "published"),
    [("pytorch-msssim", 0.8541367), ("torchmetrics", 0.8539990), ("piq", 0.8541273), ("monai", 0.8541353)],
)
@pytest.mark.parametrize("crop", [(512, 512), (331, 402)])
def test_peer_ms_ssim_parity(name, published, crop):
    """MS-SSIM meets each package too, at odd sizes where their pooling differs, and over three channels."""
    x, y = (t[..., : crop[0], : crop[1]] for t in tensors())
    got = float(ops.ms_ssim(x.to(torch.uint8), y.to(torch.uint8), data_range=255, convention=name))
    assert got == pytest.approx(peer_ms_ssim(name, x, y), abs=PEERS[name][1])
    if crop == (512, 512):
        assert got == pytest.approx(published, abs=1e-5)
    colour = [torch.cat([t, t.flip(-1), t**2 / 255], 1) for t in (x, y)]
    got = float(ops.ms_ssim(*(t.to(torch.float32) for t in colour), data_range=255, convention=name))
    assert got == pytest.approx(peer_ms_ssim(name, *colour), abs=PEERS[name][1])


@pytest.mark.parametrize("convention", sorted(CONVENTIONS))
@pytest.mark.parametrize(("dtype", "data_range"), [(torch.uint8, 255), (torch.uint16, 51000), (torch.float32, 255)])
@pytest.mark.parametrize("size", [(44, 60), (45, 61), (47, 88)])
def test_ms_ssim_equals_twin(convention, dtype, data_range, size):
    """Every dtype, convention and odd edge gives the float64 value over three scales."""
    x, y = pair((2, 2, *size), dtype, seed=size[0])
    options = {"data_range": data_range, "convention": convention, "weights": (0.3, 0.3, 0.4)}
    options["window"] = "gaussian"
    expected = ops.ms_ssim(x.to(torch.float64), y.to(torch.float64), **options)
    torch.testing.assert_close(ops.ms_ssim(x, y, **options), expected, atol=2e-6, rtol=0)


def test_ms_ssim_of_volumes():
    """Volumes are halved along depth as well, with and without a gradient."""
    x, y = pair((1, 1, 24, 25, 31), torch.float32, seed=12)
    options = {"data_range": 255, "weights": (0.5, 0.5)}
    expected = ops.ms_ssim(x.to(torch.float64), y.to(torch.float64), **options)
    torch.testing.assert_close(ops.ms_ssim(x, y, **options), expected, atol=1e-6, rtol=0)
    got = ops.ms_ssim(x, y.requires_grad_(), **options)
    torch.testing.assert_close(got.detach(), expected, atol=1e-6, rtol=0)
    got.backward()
    assert float(y.grad.abs().max()) > 0


def test_ms_ssim_refuses_small_images():
    """An image that vanishes at a coarse scale is refused, naming the scale."""
    with pytest.raises(DataError, match="scale 5"):
        ops.ms_ssim(torch.zeros(1, 1, 160, 160), torch.zeros(1, 1, 160, 160), data_range=1)
    with pytest.raises(DataError, match="weights is empty"):
        ops.ms_ssim(torch.zeros(1, 1, 160, 160), torch.zeros(1, 1, 160, 160), data_range=1, weights=())


def test_registered_op_is_sound():
    """torch's own checks of schema, fake tensor and autograd pass."""
    taps = list(window_of("ssim", "wang", None, None, 1.5).taps)
    for dtype in (torch.float32, torch.uint8):
        x, y = pair((2, 1, 20, 33), dtype, seed=6)
        if dtype == torch.float32:
            x, y = x.requires_grad_(), y.requires_grad_()
        torch.library.opcheck(torch.ops.medtrust.ssim, (x, y, taps, 255.0, 1.0, False))


def test_gradient():
    """The gradient of the float32 op is that of the float64 definition, which finite differences confirm."""
    x, y = pair((1, 2, 16, 18), torch.float64, seed=7)
    x.requires_grad_()
    y.requires_grad_()
    taps = list(window_of("ssim", "wang", None, None, 1.5).taps)

    def planes(a: Tensor, b: Tensor) -> Tensor:
        return torch.ops.medtrust.ssim(a, b, taps, 255.0, 1.0, False)

    assert torch.autograd.gradcheck(planes, (x, y), eps=1e-4, atol=1e-7, rtol=1e-4)
    small = [t.detach().to(torch.float32).requires_grad_() for t in (x, y)]
    planes(*small)[0].sum().backward()
    expected = torch.autograd.grad(planes(x, y)[0].sum(), (x, y))
    for leaf, exact in zip(small, expected, strict=True):
        torch.testing.assert_close(leaf.grad.double(), exact, atol=1e-8, rtol=1e-4)


def test_ascent_on_ms_ssim_restores_an_image():
    """Following the gradient of MS-SSIM raises it, and asking for one changes no value."""
    x, y = pair((1, 1, 48, 48), torch.float32, seed=9)
    without = ops.ms_ssim(x, y, data_range=255, weights=(0.5, 0.5))
    y.requires_grad_()
    first = ops.ms_ssim(x, y, data_range=255, weights=(0.5, 0.5))
    torch.testing.assert_close(first.detach(), without, atol=1e-6, rtol=0)
    (step,) = torch.autograd.grad(first.sum(), y)
    better = ops.ms_ssim(x, y.detach() + 5 * step / step.abs().max(), data_range=255, weights=(0.5, 0.5))
    assert float(better) > float(first.detach()) + 1e-4


def test_twin_serves_without_the_extension(monkeypatch):
    """Without the extension the values stay, and one warning says what is slower and why."""
    x, y = pair((2, 1, 30, 40), torch.float32, seed=10)
    expected = ops.ssim(x, y, data_range=255)
    monkeypatch.setattr(_native, "extension", None)
    monkeypatch.setattr(_native, "absence", "it was not built")
    monkeypatch.setattr(_native, "_warned", set())
    with pytest.warns(RuntimeWarning, match="ops.ssim runs on its float64 torch twin.*not built") as caught:
        got = [ops.ssim(x, y, data_range=255) for _ in range(2)]
    assert len(caught) == 1
    torch.testing.assert_close(got[0], expected, atol=1e-6, rtol=0)


def test_twin_equals_the_written_formula():
    """The twin equals the formula of the paper, written out for one window."""
    x, y = pair((1, 1, 11, 11), torch.float64, seed=11)
    taps = window_of("ssim", "wang", None, None, 1.5).taps
    w = np.outer(taps, taps)
    a, b = x[0, 0].numpy(), y[0, 0].numpy()
    ma, mb = (w * a).sum(), (w * b).sum()
    va, vb, cov = (w * (a - ma) ** 2).sum(), (w * (b - mb) ** 2).sum(), (w * (a - ma) * (b - mb)).sum()
    c1, c2 = 6.5025, 58.5225
    expected = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    got = reference.ssim_planes(x, y, taps, c1, c2, 1.0, False)
    assert float(got[0]) == pytest.approx(expected, rel=1e-12)
