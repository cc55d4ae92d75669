"""The pixel embedding: invariances, edge cases, independence of the batch."""

import numpy as np
import pytest
import torch
from PIL import Image

from medtrust.errors import DataError
from medtrust.stats.embedding import pixel_embedding, pixel_views
from medtrust.types import Intensity

LEVELS = Intensity(0.0, 255.0, "level")


def random_images(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.mark.parametrize("shape", [(5, 3, 32, 32), (3, 1, 45, 31), (2, 2, 7, 70), (1, 1, 2, 3)])
def test_rows_are_centred_and_of_unit_length(shape):
    """Every row has mean zero and norm one, at most 32 x 32 per channel."""
    rows = pixel_embedding(random_images(*shape), LEVELS)
    assert rows.shape == (shape[0], shape[1] * min(shape[2], 32) * min(shape[3], 32))
    assert rows.dtype == torch.float32
    assert torch.allclose(rows.mean(1), torch.zeros(shape[0]), atol=1e-6)
    assert torch.allclose(rows.norm(dim=1), torch.ones(shape[0]), atol=1e-5)


def test_brightness_and_contrast_do_not_matter():
    """An affine change of intensity leaves the row unchanged."""
    images = random_images(4, 3, 40, 33).double()
    assert torch.allclose(pixel_embedding(images, LEVELS), pixel_embedding(0.7 * images + 11, LEVELS), atol=1e-6)


def test_area_average_of_a_divisible_size_is_the_block_mean():
    """Downsampling 64 x 96 equals the mean over blocks of 2 x 3."""
    images = random_images(2, 1, 64, 96)
    blocks = images.double().reshape(2, 1, 32, 2, 32, 3).mean((3, 5))
    assert torch.allclose(pixel_embedding(images, LEVELS), pixel_embedding(blocks, LEVELS), atol=1e-6)


def test_row_depends_on_its_image_alone():
    """A row is the same bytes in any batch and for a non-contiguous view."""
    images = random_images(9, 3, 37, 41)
    rows = pixel_embedding(images, LEVELS)
    assert torch.equal(rows[4:5], pixel_embedding(images[4:5], LEVELS))
    view = images.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)
    assert not view.is_contiguous()
    assert torch.equal(rows, pixel_embedding(view, LEVELS))


def test_constant_empty_and_non_finite_images():
    """A constant image gives zeros, an empty batch no rows, a NaN pixel a row of NaN."""
    constant = torch.full((1, 3, 50, 50), 0.1, dtype=torch.float32)
    assert pixel_embedding(constant, Intensity(0.0, 1.0, "a.u.")).abs().max() == 0
    assert pixel_embedding(random_images(0, 1, 8, 8), LEVELS).shape == (0, 64)
    broken = random_images(2, 1, 8, 8).float()
    broken[1, 0, 3, 3] = float("nan")
    rows = pixel_embedding(broken, LEVELS)
    assert torch.isfinite(rows[0]).all()
    assert torch.isnan(rows[1]).all()


def test_one_grey_level_of_sixteen_bits_is_not_constant():
    """A single pixel one level above the rest survives, whatever the bit depth."""
    images = torch.zeros(1, 1, 32, 32, dtype=torch.int32)
    images[0, 0, 5, 6] = 1
    rows = pixel_embedding(images, Intensity(0.0, 65535.0, "level"))
    assert rows.norm() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("images", [torch.zeros(3, 8, 8), torch.zeros(2, 0, 8, 8)])
def test_wrong_shapes_are_refused(images):
    """Anything but [N, C, H, W] with pixels is refused with a sentence."""
    with pytest.raises(DataError, match="pixel embedding"):
        pixel_embedding(images, LEVELS)


def test_empty_range_is_refused():
    """A declared range without extent is refused."""
    with pytest.raises(DataError, match="range"):
        pixel_embedding(random_images(1, 1, 8, 8), Intensity(1.0, 1.0, "HU"))


def test_views_are_the_mirrored_and_the_cropped_image():
    """The first view is the mirror image; a 90 % crop of an image is nearer to a crop view than to the image."""
    coarse = random_images(1, 1, 5, 5).float()
    image = torch.nn.functional.interpolate(coarse, (40, 33), mode="bicubic").clamp(0, 255)
    row = pixel_embedding(image, LEVELS)
    views = list(pixel_views(row, (1, 32, 32)))
    assert len(views) == 6
    assert torch.allclose(views[0].float(), pixel_embedding(image.flip(3), LEVELS), atol=1e-5)
    assert all(view.norm() == pytest.approx(1) and abs(view.mean()) < 1e-9 for view in views)
    for y, x in ((0, 0), (0, 3.3), (4, 0), (4, 3.3), (2, 1.65)):
        plane = Image.fromarray(image[0, 0].numpy())
        crop = plane.resize((33, 40), Image.Resampling.BILINEAR, box=(x, y, x + 29.7, y + 36))
        copy = pixel_embedding(torch.from_numpy(np.asarray(crop).copy())[None, None], LEVELS)
        assert min((copy - view).norm() for view in views) < 0.35 * (copy - row).norm()


def test_views_keep_zero_rows_and_odd_shapes():
    """A constant image has constant views; no rows give no rows."""
    assert all(view.abs().max() == 0 for view in pixel_views(torch.zeros(2, 3 * 7 * 5), (3, 7, 5)))
    assert all(view.shape == (0, 35) for view in pixel_views(torch.zeros(0, 35), (1, 7, 5)))
