"""Images of a set as one tensor for a network: the declared range as [0, 1], at most `side` pixels a side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from medtrust import Insufficient
from medtrust.images import normalise
from medtrust.types import Intensity, SetData

__all__ = ["prepared", "shape_of"]


def prepared(data: SetData, rows: Sequence[int], intensity: Intensity, side: int) -> torch.Tensor:
    """Decode images for a network; their stored pixels stay as they are.

    Args:
        data: The set.
        rows: Which images, in order.
        intensity: Declared range, which becomes [0, 1]: no image is stretched to its own extremes.
        side: Longest side; larger images are averaged down to it.

    Returns:
        [N, C, H, W] float32.

    Raises:
        Insufficient: The images differ in shape, or are not [C, H, W].
    """
    parts: list[torch.Tensor] = []
    shape: tuple[int, ...] | None = None
    for row in rows:
        record = data.images[row]
        here = tuple(record.pixels.shape)
        shape = shape or here
        if here != shape or len(here) != 3:
            raise Insufficient(
                f"{record.name} of {data.name} is {' x '.join(map(str, here))}, the images before it are "
                f"{' x '.join(map(str, shape))}: bring all images to one [C, H, W] shape first"
            )
        image = torch.from_numpy(np.ascontiguousarray(normalise(record.pixels, intensity)))[None]
        parts.append(_reduced(image, side))
    return torch.cat(parts) if parts else torch.empty(0, 1, 1, 1)


def shape_of(data: SetData) -> tuple[int, ...]:
    """Shape [C, H, W] of the first image."""
    return tuple(data.images[0].pixels.shape)


def _reduced(image: torch.Tensor, side: int) -> torch.Tensor:
    height, width = image.shape[-2:]
    longest = max(height, width)
    if longest <= side:
        return image
    size = (max(1, round(height * side / longest)), max(1, round(width * side / longest)))
    return functional.interpolate(image, size=size, mode="area")
