"""Artefacts with a known place, planted in images so that an explanation can be marked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

__all__ = ["ARTEFACTS", "Planted", "plant_artefact"]

ARTEFACTS = ("checkerboard", "text", "seam", "duplicate")
_SHARE = 4  # a patch is a quarter of the image on each side
_CONTRAST = 0.12  # of the declared range
_STEP = 0.06  # a seam and letters this faint are no stronger than what the images hold anyway, so edges do not give
_INK = 0.2  # them away


@dataclass(frozen=True, slots=True)
class Planted:
    """An image with an artefact.

    Args:
        image: [C, H, W] in [0, 1].
        mask: [H, W] bool, where pixels were changed.
    """

    image: Tensor
    mask: Tensor


def plant_artefact(image: Tensor, kind: str, rng: np.random.Generator) -> Planted:
    """Plant one artefact at a random place.

    "checkerboard" alternates pixels of a patch, as a transposed convolution does; "text" lays half-transparent letters
    over the image, brighter on dark ground and darker on bright; "seam" makes the columns left of a vertical line
    brighter and those right of it darker, as badly stitched tiles are; "duplicate" repeats a patch of
    the image beside itself.

    Args:
        image: [C, H, W] in [0, 1], at least 16 pixels a side.
        kind: One of `ARTEFACTS`.
        rng: Source of the place.

    Raises:
        ValueError: Another kind, or an image that is too small.
    """
    height, width = image.shape[-2:]
    if min(height, width) < 16:
        raise ValueError(f"an image of {height} x {width} pixels is too small to plant an artefact in")
    h, w = height // _SHARE, width // _SHARE
    changed = image.clone()
    mask = torch.zeros(height, width, dtype=torch.bool)
    y, x = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    if kind == "checkerboard":
        sign = (torch.arange(h)[:, None] + torch.arange(w)[None]) % 2 * 2.0 - 1
        changed[:, y : y + h, x : x + w] += _CONTRAST * sign
        mask[y : y + h, x : x + w] = True
    elif kind == "text":
        letters = _letters(rng, height // 3, width // 2)
        y, x = int(rng.integers(0, height - letters.shape[0] + 1)), int(rng.integers(0, width - letters.shape[1] + 1))
        box = (slice(y, y + letters.shape[0]), slice(x, x + letters.shape[1]))
        ink = _INK if float(image[:, box[0], box[1]].mean()) < 0.5 else -_INK
        changed[:, box[0], box[1]] += ink * letters
        mask[box] = True
    elif kind == "seam":
        x = int(rng.integers(width // 4, 3 * width // 4))
        reach = max(1, width // 16)
        changed[:, :, x - reach : x] += _STEP
        changed[:, :, x : x + reach] -= _STEP
        mask[:, x - reach : x + reach] = True
    elif kind == "duplicate":
        # the copy lies right below its original, so that the repetition is there to be seen
        y, x = int(rng.integers(0, height - 2 * h + 1)), int(rng.integers(0, width - w + 1))
        changed[:, y + h : y + 2 * h, x : x + w] = image[:, y : y + h, x : x + w]
        mask[y : y + 2 * h, x : x + w] = True
    else:
        raise ValueError(f"the artefact {kind!r} is unknown; use one of {', '.join(ARTEFACTS)}")
    return Planted(changed.clamp(0, 1), mask)


def _letters(rng: np.random.Generator, height: int, width: int) -> Tensor:
    """Random capital letters as a mask that fits [height, width]."""
    text = "".join(rng.choice(list("ABEHKLRT"), 2))
    canvas = Image.new("L", (64, 64))
    ImageDraw.Draw(canvas).text((2, 2), text, fill=255, font=ImageFont.load_default(24))
    drawn = canvas.crop(canvas.getbbox())
    scale = min(height / drawn.height, width / drawn.width)
    size = (max(4, round(drawn.width * scale)), max(4, round(drawn.height * scale)))
    return torch.from_numpy(np.asarray(drawn.resize(size, Image.Resampling.BILINEAR)) > 100)
