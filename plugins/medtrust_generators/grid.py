"""The picture of a checkpoint: its first samples in a square."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtrust.images import render
from medtrust.writing import write_atomically

if TYPE_CHECKING:
    from medtrust_generators.neural import NeuralGenerator

__all__ = ["GRID", "PICTURE", "draw_grid"]

GRID = 64
PICTURE = "samples.png"
_SIDE = 8
_SIZE = 768


def draw_grid(folder: Path, generator: NeuralGenerator, seed: int, conditions: Sequence[Any]) -> Path:
    """Draw the first 64 samples, eight in a row, by their display window if they have one, to `samples.png`.

    Args:
        folder: The checkpoint.
        generator: Draws them.
        seed: Of the series.
        conditions: What they shall show, over and over, where the generator must be told.
    """
    asked = [conditions[i % len(conditions)] for i in range(GRID)] if generator.conditions.required else None
    pixels = generator.sample(GRID, seed=seed, condition=asked).pixels
    _, channels, height, width = pixels.shape
    tiles = pixels.reshape(_SIDE, _SIDE, channels, height, width).transpose(2, 0, 3, 1, 4)
    sheet = tiles.reshape(channels, _SIDE * height, _SIDE * width)
    sheet = sheet if channels in (1, 3) else sheet[:1]
    path = folder / PICTURE
    write_atomically(path, render(np.ascontiguousarray(sheet), generator.spec.intensity, _SIZE))
    return path
