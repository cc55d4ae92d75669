"""The edits that planted copies carry."""

import numpy as np
import pytest

from medtrust.stats.planting import EDITS, LIGHT_EDITS, edit_image


def smooth_image(shape, seed=0, lo=-1000.0, hi=2000.0):
    """A random image with structure at several scales."""
    rng = np.random.default_rng(seed)
    channels, height, width = shape
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    planes = [
        sum(rng.normal() * np.cos(rng.uniform(2, 12) * x + rng.uniform(2, 12) * y + k) for k in range(6))
        for _ in range(channels)
    ]
    image = np.stack(planes)
    return lo + (hi - lo) * (image - image.min()) / (image.max() - image.min())


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 41, 27), (2, 64, 50)])
@pytest.mark.parametrize("edit", EDITS)
def test_edits_keep_shape_and_range_and_stay_recognisable(edit, shape):
    """An edited image has the shape and range of its original; light edits change it, but not beyond recognition."""
    image = smooth_image(shape)
    before = image.copy()
    edited = edit_image(image, edit, np.random.default_rng(1))
    assert edited.shape == image.shape
    assert edited.dtype == np.float64
    assert edited.min() >= image.min()
    assert edited.max() <= image.max()
    assert np.array_equal(image, before)
    assert np.array_equal(edited, edit_image(image, edit, np.random.default_rng(1)))
    if edit in LIGHT_EDITS:
        assert not np.array_equal(edited, image)
        assert np.corrcoef(edited.ravel(), image.ravel())[0, 1] > 0.8


def test_edits_do_what_they_say():
    """Mirror and exact are exact, noise and intensity have the stated strength, JPEG errs by a few levels."""
    image = smooth_image((1, 120, 100), seed=2)
    span = image.max() - image.min()
    rng = np.random.default_rng(3)
    assert np.array_equal(edit_image(image, "exact", rng), image)
    assert np.array_equal(edit_image(image, "mirror", rng), image[:, :, ::-1])
    assert (edit_image(image, "noise", rng) - image).std() == pytest.approx(0.02 * span, rel=0.1)
    shift = (edit_image(image, "intensity", rng) - image) / span
    assert 0.02 < np.abs(shift).mean() < 0.1
    assert 0 < np.abs(edit_image(image, "jpeg", rng) - image).mean() < 0.03 * span


def test_non_contiguous_and_constant_images():
    """A view edits like its copy, and a constant image stays as it is."""
    image = smooth_image((3, 30, 44), seed=4).transpose(0, 2, 1)
    for edit in EDITS:
        direct = edit_image(image, edit, np.random.default_rng(5))
        assert np.array_equal(direct, edit_image(image.copy(), edit, np.random.default_rng(5)))
        constant = np.full((1, 8, 9), 7, dtype=np.uint8)
        assert np.array_equal(edit_image(constant, edit, np.random.default_rng(6)), constant)


def test_unknown_edit_is_refused():
    """A misspelt edit names the known ones."""
    with pytest.raises(ValueError, match="jpeg"):
        edit_image(np.zeros((1, 4, 4)), "jpg", np.random.default_rng(0))
