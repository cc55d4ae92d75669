"""Make edited copies of an audit's own real images, embedded as its features are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from medtrust.stats import LIGHT_EDITS, edit_image
from medtrust_privacy.common import Trio

__all__ = ["BANK", "edited_copies", "edits_for", "one_image_per_patient"]

BANK = 200  # images that are copied, edited and planted


def edits_for(search: Sequence[str]) -> tuple[str, ...]:
    """The edits that planted copies carry: the light ones, and what the search was widened to."""
    return (*LIGHT_EDITS, *(("rotate",) if "rotations" in search else ()))


def edited_copies(
    sets: Trio, sources: Sequence[tuple[str, int]], rng: np.random.Generator
) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Copy images, each with one edit.

    Args:
        sets: The sets, and how to embed images.
        sources: Set ("train" or "holdout") and row in `sets` of each image to copy; it is decoded here.
        rng: Source of the edits' random directions.

    Returns:
        Embedding [n, d] float32 of the copies, and the edit of each.
    """
    known = edits_for(sets.search)
    edits = tuple(known[at % len(known)] for at in range(len(sources)))
    rows = []
    for (name, row), edit in zip(sources, edits, strict=True):
        data = getattr(sets.data, name)
        edited = torch.from_numpy(edit_image(data.images[sets.image(name, row)].pixels, edit, rng))
        rows.append(sets.embed(edited[None]))
    return torch.cat(rows), edits


def one_image_per_patient(codes: np.ndarray, limit: int, rng: np.random.Generator) -> np.ndarray:
    """Choose at most `limit` rows at random, no two of one patient; `codes` [n] names the patient of each row."""
    order = rng.permutation(len(codes))
    _, first = np.unique(codes[order], return_index=True)
    chosen: np.ndarray = rng.permutation(order[first])[:limit]
    return chosen
