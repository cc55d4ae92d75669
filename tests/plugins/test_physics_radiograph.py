"""Radiographs of CT volumes: the length of a path through water, scikit-image's projections, gradients, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.transform import radon

from medtrust.errors import DataError
from medtrust_physics.radiograph import radiograph


def test_a_block_of_water_attenuates_by_its_length():
    """Through 20 and 8 mm of water: 0.0193 per mm, from the side and from the top; air takes nothing."""
    volume = torch.full((3, 33, 31), -1000.0)
    volume[1, 10:20, 13:17] = 0.0  # 10 pixels of 2 mm down a column, 4 along a row
    seen = radiograph(volume, torch.tensor([0.0, 90.0]), pixel_mm=2.0)
    assert seen.shape == (2, 3, 33)
    assert torch.equal(seen[:, [0, 2]], torch.zeros(2, 2, 33))
    assert float(seen[0].max()) == pytest.approx(0.0193 * 20, rel=1e-5)
    assert float(seen[1].max()) == pytest.approx(0.0193 * 8, rel=1e-5)
    assert seen.sum((1, 2))[0] == pytest.approx(float(seen.sum((1, 2))[1]), rel=1e-5)  # each view sees all of it


@pytest.mark.parametrize("size", [24, 25])
def test_each_row_is_scikit_images_projection_of_a_slice(size):
    rng, axis = np.random.default_rng(size), np.arange(size) - size // 2
    inside = axis[:, None] ** 2 + axis**2 < (size // 2 - 2) ** 2
    volume = np.where(inside, rng.uniform(-1000, 1500, (2, size, size)), -1000.0)
    angles = np.array([0.0, 37.0, 120.0])
    ours = radiograph(torch.from_numpy(volume), torch.from_numpy(angles), pixel_mm=0.7).numpy()
    for row, pixels in enumerate(volume):
        theirs = radon(0.0193 * 0.7 * (1 + pixels / 1000), angles, circle=True).T
        assert np.abs(ours[:, row] - theirs).max() < 1e-5 * theirs.max()


def test_gradients_reach_the_volume():
    """Along the axes each pixel counts once in every view, except that nothing lies below air."""
    volume = torch.full((2, 9, 9), -500.0)
    volume[0, 4, 4] = -1500.0
    volume.requires_grad_()
    radiograph(volume, 2, pixel_mm=1.0).sum().backward()
    assert float(volume.grad[0, 4, 4]) == 0
    assert float(volume.grad[1, 4, 4]) == pytest.approx(2 * 0.0193 / 1000, rel=1e-4)


def test_what_is_no_volume_is_refused():
    with pytest.raises(DataError, match=r"\[D, H, W\] in HU"):
        radiograph(torch.zeros(4, 4), 2, pixel_mm=1.0)
    with pytest.raises(DataError, match="must be above 0"):
        radiograph(torch.zeros(1, 4, 4), 2, pixel_mm=0.0)
