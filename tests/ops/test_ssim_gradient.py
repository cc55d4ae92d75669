"""The native gradient of SSIM against the float64 twin's and against finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medtrust import ops
from medtrust.errors import NativeError
from medtrust.ops import _native, reference, structural  # noqa: F401 - registers the ops
from medtrust.ops._conventions import CONVENTIONS, window_of

pytestmark = pytest.mark.skipif(_native.extension is None, reason=f"no compiled kernels: {_native.absence}")


def pair(shape: tuple[int, ...], seed: int, centre: float = 100, spread: float = 30) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = centre + spread * torch.randn(shape, generator=generator)
    return x, x + spread * torch.randn(shape, generator=generator)


def rules(convention: str, size: int | None, data_range: float) -> tuple[list[float], float, float, bool]:
    taps = list(window_of("ssim", convention, None, size, 1.5).taps)
    covariance = len(taps) ** 2 / (len(taps) ** 2 - 1) if CONVENTIONS[convention].sample_covariance else 1.0
    return taps, data_range, covariance, CONVENTIONS[convention].reflect


def by_twin(x: Tensor, y: Tensor, upstream: Tensor, taps, data_range, covariance, reflect) -> tuple[Tensor, Tensor]:
    """Autograd through the float64 definition."""
    leaves = [t.double().requires_grad_() for t in (x, y)]
    constants = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    planes = reference.ssim_planes(*leaves, taps, *constants, covariance, reflect)
    return torch.autograd.grad(planes, leaves, upstream)


def assert_same(got: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    """Equal to the rounding of the images' own type, of the largest component."""
    for mine, theirs in zip(got, expected, strict=True):
        limit = 1e-12 if mine.dtype == torch.float64 else 2e-7
        assert float((mine.double() - theirs).abs().max()) <= limit * float(theirs.abs().max())


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(2, 3, 23, 40), (1, 1, 12, 11), (1, 2, 64, 133)])
def test_equals_the_twins(shape, dtype, convention):
    """Every convention, both maps' gradients at once, odd sizes, each plane with an upstream gradient of its own."""
    x, y = (t.to(dtype) for t in pair(shape, 1))
    upstream = torch.randn((2, *shape[:2]), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    arguments = rules(convention, None, 255.0)
    got = torch.ops.medtrust.ssim_gradient(x, y, upstream, *arguments, True, True)
    assert_same(got, by_twin(x, y, upstream, *arguments))


@pytest.mark.parametrize("convention", ["wang", "skimage", "torchmetrics"])
@pytest.mark.parametrize("size", [3, 5, 21, 63])
def test_windows(convention, size):
    """Small and large windows; mirrors as deep as the image allows; rows narrower than a vector."""
    for shape in ((1, 1, size, size + 2), (1, 1, size // 2 + 1, size // 2 + 1), (1, 1, 70, 65)):
        reflect = CONVENTIONS[convention].reflect
        if not reflect and min(shape[2:]) < size:
            continue
        x, y = pair(shape, size)
        upstream = torch.ones((2, 1, 1), dtype=torch.float64)
        arguments = rules(convention, size, 255.0)
        got = torch.ops.medtrust.ssim_gradient(x.double(), y.double(), upstream, *arguments, True, True)
        assert_same(got, by_twin(x, y, upstream, *arguments))


@pytest.mark.parametrize(("centre", "spread", "data_range"), [(1064, 5, 80), (60000, 20, 400), (-900, 600, 80)])
def test_narrow_ranges_far_from_zero(centre, spread, data_range):
    """CT and 16-bit ranges lose nothing."""
    x, y = pair((1, 1, 50, 61), 3, centre, spread)
    upstream = torch.ones((2, 1, 1), dtype=torch.float64)
    arguments = rules("wang", None, float(data_range))
    assert_same(
        torch.ops.medtrust.ssim_gradient(x, y, upstream, *arguments, True, True), by_twin(x, y, upstream, *arguments)
    )


@pytest.mark.parametrize("convention", ["wang", "skimage", "torchmetrics"])
def test_finite_differences(convention):
    """The gradient that autograd uses is the slope of the values."""
    x, y = (t.double().requires_grad_() for t in pair((1, 2, 13, 16), 4))
    arguments = rules(convention, None, 255.0)
    assert torch.autograd.gradcheck(
        lambda a, b: torch.ops.medtrust.ssim(a, b, *arguments), (x, y), eps=1e-4, atol=1e-8, rtol=1e-5
    )


@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
def test_one_side_alone(wanted):
    """A gradient that nobody asks for is not computed; the other is the same."""
    x, y = pair((2, 1, 30, 31), 5)
    arguments = rules("wang", None, 255.0)
    upstream = torch.ones((2, 2, 1), dtype=torch.float64)
    both = torch.ops.medtrust.ssim_gradient(x, y, upstream, *arguments, True, True)
    one = torch.ops.medtrust.ssim_gradient(x, y, upstream, *arguments, *wanted)
    for want, mine, full in zip(wanted, one, both, strict=True):
        assert torch.equal(mine, full) if want else mine.numel() == 0
    leaf = y.clone().requires_grad_()
    ops.ssim(x, leaf, data_range=255).sum().backward()
    assert x.grad is None
    assert float(leaf.grad.abs().max()) > 0


@pytest.mark.parametrize("choice", ["scalar", "avx2", "avx512"])
def test_every_instruction_set(choice, monkeypatch):
    """Each instruction set gives the twin's gradient."""
    monkeypatch.setenv("MEDTRUST_CPU", choice)
    try:
        assert ops.info()["isa"] == choice
    except NativeError as error:
        pytest.skip(f"cannot be forced here: {error}")
    upstream = torch.ones((2, 1, 2), dtype=torch.float64)
    for shape in ((1, 2, 33, 45), (1, 2, 11, 11), (1, 2, 11, 17)):
        x, y = pair(shape, 6)
        for convention in ("wang", "torchmetrics"):
            arguments = rules(convention, None, 255.0)
            assert_same(
                torch.ops.medtrust.ssim_gradient(x, y, upstream, *arguments, True, True),
                by_twin(x, y, upstream, *arguments),
            )


def test_threads_and_batches_change_no_bit():
    """One, two and five threads, planes together and alone give the same bits."""
    x, y = pair((5, 1, 140, 131), 7)
    upstream = torch.randn((2, 5, 1), generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    arguments = rules("torchmetrics", None, 255.0)

    def gradients(rows: slice) -> tuple[Tensor, Tensor]:
        return torch.ops.medtrust.ssim_gradient(
            x[rows].contiguous(), y[rows].contiguous(), upstream[:, rows].contiguous(), *arguments, True, True
        )

    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(gradients(slice(0, 5)))
            singles = [gradients(slice(i, i + 1)) for i in range(5)]
            found.append(tuple(torch.cat(side) for side in zip(*singles, strict=True)))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert torch.equal(found[0][0], other[0])
        assert torch.equal(found[0][1], other[1])


def test_gradient_op_is_sound():
    """torch's own checks of schema and fake tensor pass."""
    x, y = pair((2, 1, 15, 17), 9)
    upstream = torch.ones((2, 2, 1), dtype=torch.float64)
    for wanted in ((True, True), (True, False)):
        arguments = (x, y, upstream, *rules("wang", None, 255.0), *wanted)
        torch.library.opcheck(torch.ops.medtrust.ssim_gradient, arguments)


def test_ms_ssim_and_layouts():
    """The gradient of MS-SSIM, through its 2x2 means, of strided images equals the twin's."""
    x, y = pair((2, 1, 60, 46), 10)
    x, y = x.transpose(2, 3), y.transpose(2, 3)
    found = []
    for dtype in (torch.float32, torch.float64):
        leaves = [t.to(dtype).requires_grad_() for t in (x, y)]
        value = ops.ms_ssim(*leaves, data_range=255, weights=(0.4, 0.6), convention="torchmetrics")
        found.append(torch.autograd.grad(value.sum(), leaves))
    for mine, exact in zip(*found, strict=True):
        assert float((mine - exact).abs().max()) <= 1e-6 * float(exact.abs().max())
