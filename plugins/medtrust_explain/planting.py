"""Differences planted in real images, so that a detector can show that it sees them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from medtrust.types import ImageRecord, Intensity

__all__ = ["coarser", "framed", "jpeg"]

Array = npt.NDArray[Any]


def framed(record: ImageRecord, intensity: Intensity) -> Array:
    """Two rows and columns of the lowest value at each edge."""
    pixels = record.pixels.copy()
    low = np.asarray(intensity.lo).astype(pixels.dtype)
    pixels[..., :2, :] = pixels[..., -2:, :] = low
    pixels[..., :, :2] = pixels[..., :, -2:] = low
    return pixels


def coarser(record: ImageRecord, intensity: Intensity) -> Array:
    """A quarter of the levels."""
    pixels = record.pixels
    if pixels.dtype.kind not in "iu":
        step = (intensity.hi - intensity.lo) / 64
        return (np.round((pixels - intensity.lo) / step) * step + intensity.lo).astype(pixels.dtype)
    step = 4 * max(1, int(np.gcd.reduce(np.diff(np.unique(pixels.astype(np.int64))), initial=0)))
    return (pixels.astype(np.int64) // step * step).astype(pixels.dtype)


def jpeg(record: ImageRecord, intensity: Intensity, quality: int = 30) -> Array:
    """Compressed as a JPEG of 8 bits and decoded again, channel by channel."""
    width = (intensity.hi - intensity.lo) or 1.0
    planes = []
    for plane in record.pixels:
        levels = np.rint((plane.astype(np.float64) - intensity.lo) / width * 255).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(levels).save(buffer, "JPEG", quality=quality)
        planes.append(np.asarray(Image.open(buffer), np.float64) / 255 * width + intensity.lo)
    decoded = np.stack(planes)
    return (
        np.rint(decoded).astype(record.pixels.dtype)
        if record.pixels.dtype.kind in "iu"
        else decoded.astype(record.pixels.dtype)
    )
