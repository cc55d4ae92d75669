"""From pixels in a physical unit to float64 planes in units of the declared range."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from medtrust.errors import DataError
from medtrust.types import Intensity

__all__ = ["RED", "GREEN", "BLUE", "as_array", "chroma", "luminance", "scaled"]

Array = np.ndarray[Any, Any]

RED, GREEN, BLUE = 0.299, 0.587, 0.114  # ITU-R BT.601 luma


def as_array(images: torch.Tensor, space: str) -> Array:
    """Check a batch and view it as numpy.

    Args:
        images: [N, C, H, W], any real dtype, C is 1 (grey) or 3 (red, green, blue).
        space: Feature space, for the error.

    Raises:
        DataError: Another shape, or no pixel.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
        raise DataError(
            f"{space} reads images [N, C, H, W] with 1 or 3 channels and at least one pixel, got {list(images.shape)}; "
            "choose one channel, or another feature space"
        )
    return images.detach().cpu().numpy()


def scaled(pixels: Array, intensity: Intensity) -> Array:
    """Map the declared range to 0 … 1 in float64; values outside it are kept.

    Raises:
        DataError: The declared range is empty.
    """
    if not intensity.hi > intensity.lo:
        raise DataError(f"the declared range {intensity.lo} to {intensity.hi} is empty: declare the true one")
    out = pixels.astype(np.float64)
    out -= intensity.lo
    out /= intensity.hi - intensity.lo
    return out


def luminance(unit: Array) -> Array:
    """Return the grey plane of [N, C, H, W] as [N, H, W]: the channel itself, or the BT.601 luma of three."""
    if unit.shape[1] == 1:
        return unit[:, 0]
    return RED * unit[:, 0] + GREEN * unit[:, 1] + BLUE * unit[:, 2]


def chroma(unit: Array, luma: Array) -> tuple[Array, Array]:
    """Return the BT.601 blue and red colour differences of [N, 3, H, W], each [N, H, W] in -0.5 … 0.5."""
    return (unit[:, 2] - luma) * (0.5 / (1 - BLUE)), (unit[:, 0] - luma) * (0.5 / (1 - RED))
