"""SSIM maps: their mean is the score, and they show where two images differ."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from medtrust import ops
from medtrust.errors import DataError


@pytest.mark.parametrize("convention", ["wang", "skimage", "torchmetrics", "pytorch-msssim", "monai"])
@pytest.mark.parametrize("shape", [(2, 3, 37, 41), (1, 1, 15, 17, 19)])
def test_the_mean_of_the_map_is_the_score(convention, shape):
    """In every convention, in the plane and in space, on views that are not contiguous."""
    rng = torch.Generator().manual_seed(len(shape))
    x = torch.rand(*shape[:-2], shape[-1], shape[-2], generator=rng).transpose(-1, -2)
    y = (x + 0.1 * torch.rand(shape, generator=rng)).contiguous()
    maps = ops.ssim_map(x, y, data_range=1.0, convention=convention)
    score = ops.ssim(x, y, data_range=1.0, convention=convention)
    torch.testing.assert_close(maps.flatten(1).mean(1), score, rtol=0, atol=2e-6)
    if convention == "torchmetrics":
        assert maps.shape == x.shape


def test_the_map_is_that_of_scikit_image():
    """Pixel by pixel, away from the border that scikit-image fills in."""
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, (40, 33), dtype=np.uint8)
    y = np.clip(x + rng.normal(0, 20, x.shape), 0, 255).astype(np.uint8)
    _, peer = structural_similarity(x, y, data_range=255, full=True)
    images = (torch.from_numpy(image)[None, None] for image in (x, y))
    ours = ops.ssim_map(*images, data_range=255, convention="skimage")
    np.testing.assert_allclose(ours[0, 0], peer[3:-3, 3:-3], atol=1e-6)


def test_the_map_shows_where():
    """A patch that was changed is darkest in the map, and an image like itself is 1 everywhere."""
    x = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    y = x.clone()
    y[..., 40:50, 10:20] = y[..., 40:50, 10:20].flip(-1)
    row, col = divmod(int(ops.ssim_map(x, y, data_range=1.0)[0, 0].argmin()), 54)
    assert 40 <= row + 5 < 50
    assert 10 <= col + 5 < 20
    assert torch.equal(ops.ssim_map(x, x, data_range=1.0), torch.ones(1, 1, 54, 54))


def test_bad_input_is_refused():
    """Too small, of two shapes, or not a number: a sentence that names the op."""
    x = torch.rand(1, 1, 16, 16)
    with pytest.raises(DataError, match="ssim_map"):
        ops.ssim_map(x[..., :5, :5], x[..., :5, :5], data_range=1.0)
    with pytest.raises(DataError, match="ssim_map"):
        ops.ssim_map(x, x[..., :12], data_range=1.0)
    with pytest.raises(DataError, match="ssim_map"):
        ops.ssim_map(x.fill_(float("nan")), x, data_range=1.0)
