"""Noise of the air around a magnitude MR image: Rayleigh, because a magnitude is taken of two Gaussian channels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from medtrust import Insufficient, MetricInput, Result
from medtrust.types import ImageRecord
from medtrust_physics.compare import compare

__all__ = ["RAYLEIGH", "RayleighBackground", "background_ratio", "corners_of", "darkest_corner"]

RAYLEIGH = math.sqrt(math.pi / 2) / math.sqrt(2 - math.pi / 2)
"""Mean of Rayleigh noise in its standard deviations: 1.913. Folded Gaussian noise has 1.324."""
_DISTINCT = 8


class RayleighBackground:
    """Mean over standard deviation of the darkest corner, of synthetic images against real ones."""

    def compute(self, data: MetricInput) -> Result:
        """Compare the ratio; facts give both means, to be held against 1.913."""
        if data.intensity.lo < 0:
            raise Insufficient("a magnitude image has no negative values; the declared range has")
        return compare(data, background_ratio, "ratio", "the background's mean over its standard deviation", ("ratio",))


def background_ratio(record: ImageRecord) -> np.ndarray[Any, Any] | None:
    """Measure the darkest of the four corners, each an eighth of the sides.

    Args:
        record: An image [1, H, W] of at least 32 x 32.

    Returns:
        [1] mean over standard deviation; None where the corners were blanked or hold too few levels to say.

    Reference:
        Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618.
    """
    image = np.asarray(record.pixels, np.float64)
    if image.ndim != 3 or len(image) != 1 or min(image.shape[1:]) < 32:
        return None
    darkest = darkest_corner(image[0])
    if darkest is None:
        return None
    return np.array([darkest.mean() / darkest.std(ddof=1)])


def darkest_corner(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """Cut out the darkest of the four corners of [H, W], each an eighth of the sides.

    Returns:
        None where it was blanked, or holds too few levels to say anything of noise.
    """
    darkest = min(corners_of(image), key=lambda corner: float(corner.mean()))
    if len(np.unique(darkest)) < min(_DISTINCT, darkest.size) or darkest.std() == 0:
        return None
    return darkest


def corners_of(image: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """The four corners of [H, W], each an eighth of the sides."""
    h, w = image.shape[0] // 8, image.shape[1] // 8
    return [image[rows, columns] for rows in (slice(h), slice(-h, None)) for columns in (slice(w), slice(-w, None))]
