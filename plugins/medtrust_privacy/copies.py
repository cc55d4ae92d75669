"""Make edited copies of an audit's own real images, embedded as its features are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from medtrust.stats import LIGHT_EDITS, edit_image, pixel_embedding
from medtrust.types import Intensity, SetData

__all__ = ["BANK", "edited_copies", "one_image_per_patient"]

BANK = 200  # images that are copied, edited and planted


def edited_copies(
    sources: Sequence[tuple[SetData, int]], intensity: Intensity, rng: np.random.Generator
) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Copy images, each with one light edit.

    Args:
        sources: Set and index of each image to copy; it is decoded here.
        intensity: Declared range of the pixel values.
        rng: Source of the edits' random directions.

    Returns:
        Pixel embedding [n, d] float32 of the copies, and the edit of each.
    """
    edits = tuple(LIGHT_EDITS[at % len(LIGHT_EDITS)] for at in range(len(sources)))
    rows = []
    for (data, index), edit in zip(sources, edits, strict=True):
        edited = torch.from_numpy(edit_image(data.images[index].pixels, edit, rng))
        rows.append(pixel_embedding(edited[None], intensity))
    return torch.cat(rows), edits


def one_image_per_patient(codes: np.ndarray, limit: int, rng: np.random.Generator) -> np.ndarray:
    """Choose at most `limit` rows at random, no two of one patient; `codes` [n] names the patient of each row."""
    order = rng.permutation(len(codes))
    _, first = np.unique(codes[order], return_index=True)
    chosen: np.ndarray = rng.permutation(order[first])[:limit]
    return chosen
