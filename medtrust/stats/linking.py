"""Find images that occur under several patients, so that each person counts once before anything is tested."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medtrust import ops
from medtrust.seeding import derive_seed
from medtrust.types import FeatureMatrix

__all__ = ["Kept", "keep_one_of_linked"]

Ints = npt.NDArray[np.int64]
NEAR = 0.05  # distance of unit-length pixel rows: a correlation above .99875, as between two encodings of one image
MOST_SEARCHED = 20_000  # images; beyond, only equal pixels are linked, since all pairs would take too long


@dataclass(frozen=True, slots=True)
class Kept:
    """What is left when each linked group of patients keeps one of them.

    Args:
        train: Rows of train that stay.
        holdout: Rows of holdout that stay.
        left_out: How many patients were left out.
        across: How many groups held patients of both sets.
    """

    train: Ints
    holdout: Ints
    left_out: int
    across: int


def keep_one_of_linked(train: FeatureMatrix, holdout: FeatureMatrix, seed: int, near: bool) -> Kept:
    """Link patients who share an image, and keep one patient of each linked group, drawn at random.

    The draw looks at no label, so a kept patient is a training patient as often as any other is, whether the data were
    split by true person or not: the copy tests keep their size.

    Args:
        train: Train with pixel digests.
        holdout: Holdout likewise.
        seed: Seed of the draw.
        near: The rows are unit-length pixel rows, in which images that differ by an encoding are linked as well.
    """
    names = [("train", p) for p in train.patients] + [("holdout", p) for p in holdout.patients]
    numbers: dict[tuple[str, str], int] = {}
    codes = np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)
    parent = list(range(len(numbers)))

    def root(code: int) -> int:
        while parent[code] != code:
            parent[code] = parent[parent[code]]
            code = parent[code]
        return code

    first: dict[str, int] = {}
    for code, digest in zip(codes.tolist(), [*train.digests, *holdout.digests], strict=True):
        if digest:
            parent[root(code)] = root(first.setdefault(digest, code))
    if near and len(codes) <= MOST_SEARCHED and len(numbers) > 2:
        import torch

        rows = torch.cat([train.values, holdout.values])
        groups = torch.from_numpy(codes)
        found = ops.nearest(rows, rows, 1, (groups, groups))
        structured = rows.norm(dim=1) > 0.5  # flat images have the zero row: they are no evidence of one person
        pairs = ((found.distances[:, 0] <= NEAR) & structured).nonzero().flatten().tolist()
        for at in pairs:
            parent[root(int(codes[at]))] = root(int(codes[found.indices[at, 0]]))
    groups_of = np.array([root(code) for code in range(len(numbers))])
    order = np.random.default_rng(derive_seed(seed, "linked")).permutation(len(numbers))
    kept = np.zeros(len(numbers), dtype=bool)
    kept[order[np.unique(groups_of[order], return_index=True)[1]]] = True
    sides = np.zeros(len(numbers), dtype=bool)
    sides[[code for (side, _), code in numbers.items() if side == "train"]] = True
    both = set(groups_of[sides].tolist()) & set(groups_of[~sides].tolist())
    stay = kept[codes]
    split = len(train)
    return Kept(np.flatnonzero(stay[:split]), np.flatnonzero(stay[split:]), int((~kept).sum()), len(both))
