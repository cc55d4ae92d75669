"""Numbers in [0, 1] for features, and small pictures for people; neither changes the pixels of a record."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from medtrust.errors import DataError
from medtrust.types import Intensity

__all__ = ["difference", "normalise", "render"]

_PICTURE_SIZE = 192
_FULL_SCALE = 0.25


def normalise(pixels: npt.NDArray[Any], intensity: Intensity) -> npt.NDArray[np.float32]:
    """Map the declared range to [0, 1]; what lies outside it becomes 0 or 1 in the copy that is returned.

    Args:
        pixels: [..., C, H, W] in the unit of `intensity`, any dtype.
        intensity: The declared range; the display window plays no part.

    Returns:
        float32 of the same shape, in [0, 1].
    """
    return _scaled(pixels, intensity.lo, intensity.hi).astype(np.float32)


def render(pixels: npt.NDArray[Any], intensity: Intensity, size: int = _PICTURE_SIZE) -> bytes:
    """Draw an image by its display window if it has one, by its declared range if not.

    Args:
        pixels: [C, H, W] in the unit of `intensity`. Three channels are colour; of other counts, each channel is drawn
            in grey, side by side.
        intensity: Range and window.
        size: Longest side of the picture in pixels.

    Returns:
        PNG bytes without metadata, the same for the same input.
    """
    lo, hi = intensity.window or (intensity.lo, intensity.hi)
    return _png(_scaled(pixels, lo, hi), size)


def difference(a: npt.NDArray[Any], b: npt.NDArray[Any], intensity: Intensity, size: int = _PICTURE_SIZE) -> bytes:
    """Draw |a - b|: black where they agree, white where they differ by a quarter of the display range or more.

    Args:
        a: [C, H, W] in the unit of `intensity`.
        b: Same shape.
        intensity: Range and window.
        size: Longest side of the picture in pixels.

    Returns:
        PNG bytes without metadata, the same for the same input.

    Raises:
        DataError: The shapes differ.
    """
    if a.shape != b.shape:
        raise DataError(f"images of shapes {list(a.shape)} and {list(b.shape)} have no difference to draw.")
    lo, hi = intensity.window or (intensity.lo, intensity.hi)
    gap = np.abs(a.astype(np.float64) - b.astype(np.float64))
    return _png(_scaled(gap, 0.0, (hi - lo) * _FULL_SCALE), size)


def _scaled(pixels: npt.NDArray[Any], lo: float, hi: float) -> npt.NDArray[np.float64]:
    width = hi - lo if hi > lo else 1.0  # a window of width zero is a step at `lo`
    return np.clip((pixels.astype(np.float64) - lo) / width, 0.0, 1.0)


def _png(unit: npt.NDArray[np.float64], size: int) -> bytes:
    if unit.ndim != 3 or not unit.size:
        raise DataError(f"only a [C, H, W] image with pixels can be drawn, not {list(unit.shape)}.")
    levels = np.rint(unit * 255.0).astype(np.uint8)
    if len(levels) == 3:
        picture = Image.fromarray(np.ascontiguousarray(levels.transpose(1, 2, 0)))
    else:
        picture = Image.fromarray(np.ascontiguousarray(np.concatenate(list(levels), axis=1)))
    longest = max(picture.size)
    target = (max(1, round(picture.width * size / longest)), max(1, round(picture.height * size / longest)))
    # Enlarging repeats pixels, so that a small image shows what it holds and nothing an interpolation made up.
    method = Image.Resampling.NEAREST if size >= longest else Image.Resampling.BOX
    out = io.BytesIO()
    picture.resize(target, method).save(out, "PNG", compress_level=6)
    return out.getvalue()
