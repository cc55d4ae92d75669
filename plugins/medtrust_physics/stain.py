"""Optical density of a stained section: Beer and Lambert's law lets two stains span a plane."""

from __future__ import annotations

from typing import Any

import numpy as np

from medtrust import Insufficient, MetricInput, Result
from medtrust.types import ImageRecord
from medtrust_physics.compare import compare

__all__ = ["StainRank", "stain_residual"]

_TISSUE, _LEAST_PIXELS = 0.15, 100


class StainRank:
    """Share of the optical density outside the plane of two stains, of synthetic images against real ones."""

    def compute(self, data: MetricInput) -> Result:
        """Compare the residual of the best plane through the origin."""
        i = data.intensity
        if (i.lo, i.unit) != (0.0, "level"):
            raise Insufficient(f"needs colour images in levels from 0; these are {i.lo:g}..{i.hi:g} {i.unit}")
        return compare(
            data, lambda r: stain_residual(r, i.hi), "share", "the rank of the optical density", ("residual",)
        )


def stain_residual(record: ImageRecord, white: float) -> np.ndarray[Any, Any] | None:
    """Fit a plane through the origin to the optical densities of the stained pixels.

    Args:
        record: An image [3, H, W], transmitted light in levels.
        white: Level of unstained glass.

    Returns:
        [1] third singular value over the root of the sum of squares, 0 for two stains, 0.58 for no order at all; None
        where fewer than 100 pixels are stained.

    Reference:
        Macenko et al. 2009, doi:10.1109/ISBI.2009.5193250 (optical density and its plane).
    """
    image = np.asarray(record.pixels, np.float64)
    if image.ndim != 3 or len(image) != 3:
        return None
    density = -np.log((image.reshape(3, -1).T + 1) / (white + 1))
    stained = density[(density > _TISSUE).all(1)]
    if len(stained) < _LEAST_PIXELS:
        return None
    energy = np.linalg.eigvalsh(stained.T @ stained)
    return np.array([np.sqrt(max(energy[0], 0.0) / energy.sum())])
