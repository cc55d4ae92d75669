"""The perceptual hash: what it ignores, what it sees."""

from __future__ import annotations

import numpy as np
import scipy.fft
import torch

from medtrust.types import Intensity
from medtrust_features.phash import PerceptualHash

LEVELS = Intensity(0, 255, "level")


def blobs(n: int, side: int, seed: int) -> torch.Tensor:
    """Random images of a few soft shapes, between 40 and 200."""
    rng = np.random.default_rng(seed)
    spectrum = rng.normal(size=(n, 8, 8))
    coefficients = np.zeros((n, side, side))
    coefficients[:, :8, :8] = spectrum
    waves = scipy.fft.idctn(coefficients, axes=(1, 2), norm="ortho")
    waves = (waves - waves.min(axis=(1, 2), keepdims=True)) / np.ptp(waves, axis=(1, 2), keepdims=True)
    return torch.from_numpy(40 + 160 * waves)[:, None]


def distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a != b).sum(dim=1)


def test_bits_are_the_signs_of_the_dct_about_its_median() -> None:
    """On 32 x 32 images the bits are those of scipy's DCT."""
    images = blobs(20, 32, 1)
    bits = PerceptualHash().extract(images, LEVELS)
    low = scipy.fft.dctn(images[:, 0].numpy() / 255, axes=(1, 2), norm="ortho")[:, :8, :8].reshape(20, 64)
    expected = low > np.median(low, axis=1, keepdims=True)
    assert np.array_equal(bits.numpy().astype(bool), expected)
    assert bits.sum(dim=1).eq(32).all()


def test_brightness_contrast_noise_and_size_leave_the_hash_alone() -> None:
    """A copy after mild processing keeps almost all bits, another image about half of them."""
    images = blobs(30, 64, 2)
    space = PerceptualHash()
    original = space.extract(images, LEVELS)
    noise = torch.from_numpy(np.random.default_rng(3).normal(0, 4, size=images.shape))
    half = torch.nn.functional.avg_pool2d(images, 2)
    for processed in (images * 0.8 + 20, images + noise, half):
        assert distances(space.extract(processed, LEVELS), original).float().mean() < 4
    others = distances(original, original.roll(1, 0)).float()
    assert others.mean() > 24
    assert others.min() > 8


def test_a_flat_image_hashes_to_zeros() -> None:
    """Rounding noise decides no bit of a constant image beside the mean's."""
    bits = PerceptualHash().extract(torch.full((2, 3, 50, 41), 77.7), LEVELS)
    assert bits[:, 1:].sum() == 0
    assert bits[:, 0].eq(1).all()
