"""Edits that a copied image may carry: what the self-tests of the privacy detectors plant."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["EDITS", "LIGHT_EDITS", "edit_image"]

LIGHT_EDITS = ("jpeg", "intensity", "noise", "crop")
EDITS = ("exact", *LIGHT_EDITS, "mirror", "rotate")

Pixels = npt.NDArray[np.float64]


def edit_image(pixels: npt.NDArray[Any], edit: str, rng: np.random.Generator) -> Pixels:
    """Edit one image the way a copy may differ from its original.

    Strengths are relative to the image's own range: "jpeg" is quality 75 at 8 bits, "intensity" changes contrast and
    brightness by 5 % each, "noise" adds Gaussian noise of 2 %, "crop" keeps a random 90 % of each side and scales it
    back, "mirror" swaps left and right, "rotate" turns by up to 10°, "exact" changes nothing.

    Args:
        pixels: [C, H, W], any real dtype.
        edit: One of `EDITS`.
        rng: Source of the random directions.

    Returns:
        [C, H, W] float64 in the unit of the input, clipped to the input's own range.

    Raises:
        ValueError: The edit has another name.
    """
    image = np.asarray(pixels, dtype=np.float64)
    lo, hi = float(image.min()), float(image.max())
    span = hi - lo
    if edit not in EDITS:
        raise ValueError(f"edit {edit!r} is unknown; use one of {', '.join(EDITS)}")
    if edit == "exact" or span == 0:
        return image
    if edit == "mirror":
        return image[:, :, ::-1].copy()
    if edit == "jpeg":
        edited = _jpeg((image - lo) / span) * span + lo
    elif edit == "intensity":
        gain, shift = 1 + 0.05 * rng.choice([-1, 1]), 0.05 * span * rng.choice([-1, 1])
        edited = (image - lo) * gain + lo + shift
    elif edit == "noise":
        edited = image + rng.normal(0, 0.02 * span, image.shape)
    elif edit == "crop":
        edited = _crop(image, rng)
    else:
        angle = rng.uniform(5, 10) * rng.choice([-1, 1])
        edited = np.stack([np.asarray(_plane(c).rotate(angle, Image.Resampling.BILINEAR, fillcolor=lo)) for c in image])
    return np.asarray(edited, dtype=np.float64).clip(lo, hi)


def _plane(channel: Pixels) -> Image.Image:
    return Image.fromarray(channel.astype(np.float32))


def _jpeg(unit: Pixels) -> Pixels:
    """Compress each image, colour where there are three channels, else channel by channel; in and out in [0, 1]."""
    levels = np.round(unit * 255).astype(np.uint8)
    planes = [levels.transpose(1, 2, 0)] if len(levels) == 3 else list(levels)
    decoded = []
    for plane in planes:
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(plane)).save(buffer, "JPEG", quality=75)
        decoded.append(np.asarray(Image.open(buffer), dtype=np.float64) / 255)
    return decoded[0].transpose(2, 0, 1) if len(levels) == 3 else np.stack(decoded)


def _crop(image: Pixels, rng: np.random.Generator) -> Pixels:
    height, width = image.shape[1:]
    y, x = rng.uniform(0, 0.1 * height), rng.uniform(0, 0.1 * width)
    box = (x, y, x + 0.9 * width, y + 0.9 * height)
    planes = [_plane(c).resize((width, height), Image.Resampling.BILINEAR, box=box) for c in image]
    return np.stack([np.asarray(plane, dtype=np.float64) for plane in planes])
