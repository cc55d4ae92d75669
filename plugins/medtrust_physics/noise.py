"""Shape of the noise power spectrum in flat regions, in six bands from the lowest frequency to Nyquist's."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from medtrust import MetricInput, Result
from medtrust.types import ImageRecord
from medtrust_physics.compare import compare

__all__ = ["BANDS", "EDGES", "NoiseShape", "flat_noise", "noise_shape"]

TILE, BANDS = 16, 6
# the taken-off plane and the window spoil the lowest frequencies, so the first band starts above them
EDGES = tuple(np.linspace(1.5 / TILE, 0.5, BANDS + 1).tolist())


class NoiseShape:
    """Filtered back-projection leaves noise that rises with frequency and falls again; networks leave another."""

    def compute(self, data: MetricInput) -> Result:
        """Compare the spectra of flat tiles, each scaled to a mean of 1."""
        names = tuple(f"band_{k}" for k in range(1, BANDS + 1))
        return compare(data, noise_shape, "share", "the shape of the noise spectrum", names)


def noise_shape(record: ImageRecord) -> np.ndarray[Any, Any] | None:
    """Measure the noise of an image where there is least anatomy.

    Args:
        record: An image [C, H, W] of at least 32 x 32; channels are averaged.

    Returns:
        [6] power density per band, scaled to a mean of 1; None where fewer than four tiles vary.

    Reference:
        Solomon, Christianson and Samei 2012, doi:10.1118/1.4718596 (comparison of noise texture by NPS shape).
    """
    chosen = flat_noise(np.asarray(record.pixels, np.float64).mean(0))
    if chosen is None:
        return None
    window = np.hanning(TILE + 2)[1:-1]
    power = np.abs(np.fft.fft2(chosen * window[:, None] * window)) ** 2
    power = (power / power.sum((1, 2), keepdims=True)).mean(0)
    frequency = np.fft.fftfreq(TILE)
    radius = np.hypot(frequency[:, None], frequency)
    bands = np.array([power[(radius >= lo) & (radius < hi + 1e-12)].mean() for lo, hi in itertools.pairwise(EDGES)])
    shape: np.ndarray[Any, Any] = bands / bands.mean()
    return shape


def flat_noise(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """Take the noise out of an image.

    The image is cut into tiles of 16 x 16. A plane is taken off each, and the flattest quarter of those that vary at
    all is kept: there, what is left is mostly noise.

    Args:
        image: [H, W] float64.

    Returns:
        [tiles, 16, 16]; None where the image is smaller than 32 x 32 or fewer than four tiles vary.
    """
    if image.ndim != 2 or min(image.shape) < 2 * TILE:
        return None
    rows, columns = image.shape[0] // TILE, image.shape[1] // TILE
    tiles = (
        image[: rows * TILE, : columns * TILE].reshape(rows, TILE, columns, TILE).swapaxes(1, 2).reshape(-1, TILE**2)
    )
    axis = np.linspace(-1, 1, TILE)
    y, x = (a.ravel() for a in np.meshgrid(axis, axis, indexing="ij"))
    plane, _ = np.linalg.qr(np.stack([np.ones(TILE**2), y, x], 1))
    rest = tiles - tiles @ plane @ plane.T
    spread = rest.std(1)
    # a clipped or padded tile has no noise to measure
    varied = (spread > 0) & (np.array([len(np.unique(tile)) for tile in tiles]) > TILE)
    if varied.sum() < 4:
        return None
    order = np.flatnonzero(varied)[np.argsort(spread[varied], kind="stable")]
    chosen: np.ndarray[Any, Any] = rest[order[: max(4, len(order) // 4)]].reshape(-1, TILE, TILE)
    return chosen
