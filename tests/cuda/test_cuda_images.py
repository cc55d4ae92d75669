"""SSIM, MS-SSIM and radiomics on a device against the float64 twins."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medtrust import ops
from medtrust.ops import structural

pytestmark = pytest.mark.cuda


def images(shape: tuple[int, ...], dtype: torch.dtype, centre: float, spread: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    x = centre + spread * torch.randn(shape, generator=generator, dtype=torch.float64)
    y = x + spread * torch.randn(shape, generator=generator, dtype=torch.float64)
    if dtype != torch.float32:
        x, y = (t.round().clamp(0, 255 if dtype == torch.uint8 else 65535).to(torch.int32) for t in (x, y))
    return x.to(dtype).cuda(), y.to(dtype).cuda()


@pytest.mark.parametrize("convention", ["wang", "torchmetrics"])
@pytest.mark.parametrize(
    ("dtype", "centre", "spread", "data_range"),
    [
        (torch.uint8, 120, 40, 255),
        (torch.uint16, 60000, 20, 400),
        (torch.float32, 1064, 5, 80),
        (torch.float32, 1064, 500, 80),
    ],
)
@pytest.mark.parametrize("shape", [(1, 1, 11, 11), (2, 3, 43, 141), (1, 1, 512, 1023), (0, 1, 20, 20)])
def test_ssim(on_side_stream, shape, dtype, centre, spread, data_range, convention):
    """Sizes off the tile, one window, no image and every dtype equal the twin."""
    x, y = images(shape, dtype, centre, spread)
    got = on_side_stream(lambda: ops.ssim(x, y, data_range=data_range, convention=convention))
    twin = ops.ssim(x.double(), y.double(), data_range=data_range, convention=convention)
    torch.testing.assert_close(got, twin, atol=2e-6, rtol=0)


def test_ssim_of_strided_images_and_splits(on_side_stream):
    """Channels-last images equal their copies, and a batch has the bits of its parts."""
    x, y = images((5, 3, 64, 150), torch.float32, 100, 30)
    whole = ops.ssim(x, y, data_range=255)
    last = [t.contiguous(memory_format=torch.channels_last) for t in (x, y)]
    assert torch.equal(on_side_stream(lambda: ops.ssim(*last, data_range=255)), whole)
    parts = [ops.ssim(a, b, data_range=255) for a, b in zip(x.split(2), y.split(2), strict=True)]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("side", [176, 191, 256])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_ms_ssim(on_side_stream, side, dtype):
    """Five scales equal the twin, odd sides too; the 2x2 mean is torch's."""
    x, y = images((2, 1, side, side + 1), dtype, 120, 30)
    got = on_side_stream(lambda: ops.ms_ssim(x, y, data_range=255))
    torch.testing.assert_close(got, ops.ms_ssim(x.double(), y.double(), data_range=255), atol=2e-6, rtol=0)
    halved = on_side_stream(lambda: structural._halved(x, structural.CONVENTIONS["wang"]))
    torch.testing.assert_close(halved, torch.nn.functional.avg_pool2d(x.float(), 2), rtol=1e-6, atol=0)


def test_ssim_gradient():
    """The gradient on the device equals the one on the CPU."""
    x, y = images((1, 1, 40, 40), torch.float32, 100, 30)
    grads = []
    for a, b in ((x, y), (x.cpu(), y.cpu())):
        leaf = a.clone().requires_grad_()
        ops.ssim(leaf, b, data_range=255).sum().backward()
        grads.append(leaf.grad.cpu())
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-9)


def test_radiomics_keep_the_device():
    """Images on a device give the values of the CPU, on the device."""
    x, _ = images((2, 1, 33, 20), torch.uint8, 120, 40)
    got = ops.radiomics(x, lo=0, hi=255)
    assert got.values.device == x.device
    assert torch.equal(got.values.cpu(), ops.radiomics(x.cpu(), lo=0, hi=255).values)
