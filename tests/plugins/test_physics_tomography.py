"""The operators of CT: adjoint to rounding, like scikit-image's, differentiable; and chi-squared of the counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.transform import iradon, radon, resize

from medtrust.errors import DataError
from medtrust_physics.tomography import ParallelBeam, reduced_chi_squared


def phantom(size=64):
    from skimage.data import shepp_logan_phantom

    return resize(shepp_logan_phantom(), (size, size), anti_aliasing=True)


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float64, 1e-14), (torch.float32, 1e-6)], ids=["float64", "float32"]
)
@pytest.mark.parametrize("size", [2, 33, 64])
def test_projection_and_back_projection_are_adjoint(size, dtype, bound):
    """<A x, y> = <x, A' y> for random x and y, odd sizes and views that are not contiguous."""
    rng = torch.Generator().manual_seed(size)
    beam = ParallelBeam(size, 47, dtype)
    x = torch.randn((3, size, 2 * size), generator=rng).to(dtype)[:, :, ::2]
    y = torch.randn((3, 47, size), generator=rng).to(dtype)
    left, right = (beam.project(x) * y).sum().double(), (x * beam.back_project(y)).sum().double()
    assert abs(left - right) <= bound * float(beam.project(x).double().norm() * y.double().norm())


def test_projections_are_those_of_scikit_image():
    """Ray by ray, at every angle, to rounding."""
    axis = np.arange(64) - 32
    image = np.exp(-((axis[:, None] - 6) ** 2 + (axis + 4) ** 2) / 60)
    angles = np.arange(0, 180, 7.5)
    ours = ParallelBeam(64, torch.from_numpy(angles)).project(torch.from_numpy(image)[None])[0].numpy()
    theirs = radon(image, angles, circle=True).T
    assert np.abs(ours - theirs).max() < 1e-6 * theirs.max()


def test_reconstructions_are_those_of_scikit_image():
    """From one sinogram, inside the circle, to rounding."""
    angles = np.linspace(0, 180, 90, endpoint=False)
    sinogram = radon(phantom(), angles, circle=True)
    theirs = iradon(sinogram, angles, circle=True)
    ours = ParallelBeam(64, torch.from_numpy(angles)).reconstruct(torch.from_numpy(sinogram.T.copy())[None])[0].numpy()
    axis = np.arange(64) - 32
    inside = axis[:, None] ** 2 + axis**2 < 31**2
    assert np.abs(ours - theirs)[inside].max() < 1e-6


def test_gradients_go_through():
    beam = ParallelBeam(5, 4)
    x = torch.rand((2, 5, 5), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(beam.project, x)
    y = torch.rand((2, 4, 5), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(beam.reconstruct, y)


def scan(image, beam, seed):
    expected = 20000 * torch.exp(-beam.project(image[None])[0])
    return torch.poisson(expected, generator=torch.Generator().manual_seed(seed))


def test_chi_squared_tells_the_right_image_from_a_wrong_one():
    """The right image stays in its null; one with a lesion too much leaves it, and the map shows where."""
    beam = ParallelBeam(32, 40)
    image = torch.from_numpy(phantom(32)) * 0.05
    wrong = image.clone()
    wrong[18:22, 8:12] += 0.02
    right, broken = [], []
    for seed in range(40):
        counts = scan(image, beam, seed)
        right.append(reduced_chi_squared(image, counts, beam, photons=20000))
        broken.append(reduced_chi_squared(wrong, counts, beam, photons=20000))
    inside = sum(r.null[0] <= r.value <= r.null[1] for r in right)
    assert inside >= 33  # 38 expected of 40; 33 or fewer has a chance below 1 %
    assert all(b.p < 1e-4 and b.value > b.null[1] for b in broken)
    maps = torch.stack([r.z_map for r in right])
    assert abs(float(maps[:, 4:28, 4:28].std()) - 1) < 0.1
    row, column = np.unravel_index(int(broken[0].z_map.argmax()), (32, 32))
    assert 16 <= row <= 23
    assert 6 <= column <= 13


def test_what_does_not_fit_is_refused():
    beam = ParallelBeam(8, 6)
    with pytest.raises(DataError, match="8 pixels a side"):
        beam.project(torch.zeros(1, 9, 9))
    with pytest.raises(DataError, match="below 10"):
        reduced_chi_squared(torch.ones(8, 8), torch.ones(6, 8), beam, photons=100)
    with pytest.raises(DataError, match="counts are"):
        reduced_chi_squared(torch.zeros(8, 8), torch.ones(7, 8), beam, photons=100)
