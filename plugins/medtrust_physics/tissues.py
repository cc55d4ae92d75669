"""Where the tissues of a CT lie in Hounsfield units."""

from __future__ import annotations

from typing import Any

import numpy as np

from medtrust import Insufficient, MetricInput, Result
from medtrust.types import ImageRecord
from medtrust_physics.compare import compare

__all__ = ["TISSUES", "TissueHu", "tissue_levels"]

TISSUES = {
    "air": (-1100.0, -950.0),
    "lung": (-950.0, -600.0),
    "fat": (-150.0, -50.0),
    "soft": (-20.0, 120.0),
    "bone": (200.0, 1500.0),
}
"""Windows wide enough for every kVp; what is compared is where the pixels lie inside of them."""
_LEAST_PIXELS = 50


class TissueHu:
    """Mean Hounsfield units of each tissue, of synthetic scans against real ones."""

    def compute(self, data: MetricInput) -> Result:
        """Compare the means of the pixels in each tissue's window."""
        if data.intensity.unit != "HU":
            raise Insufficient(f"needs images in HU; these are in {data.intensity.unit}")
        return compare(data, tissue_levels, "HU", "the Hounsfield units of the tissues", tuple(TISSUES))


def tissue_levels(record: ImageRecord) -> np.ndarray[Any, Any] | None:
    """Average the pixels of each tissue's window.

    Args:
        record: A CT image in HU.

    Returns:
        [5] mean in HU per tissue of `TISSUES`; NaN where fewer than 50 pixels lie in the window.
    """
    values = np.asarray(record.pixels, np.float64).ravel()
    means = []
    for lo, hi in TISSUES.values():
        inside = values[(values >= lo) & (values < hi)]
        means.append(inside.mean() if inside.size >= _LEAST_PIXELS else np.nan)
    return np.array(means) if np.isfinite(means).any() else None
