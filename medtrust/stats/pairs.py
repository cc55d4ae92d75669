"""Means over pairs of images of different patients, and their standard error by patient."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from medtrust.errors import Insufficient
from medtrust.stats.resampling import Patients, groups, jackknife_se

__all__ = ["pair_mean", "patient_pairs"]


def patient_pairs(patients: Patients, total: int, pairs: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw pairs of rows of different patients so that every patient drawn takes part equally often.

    Each round puts the patients in a random circle and pairs neighbours, so that each is in two pairs; a patient with
    several rows lends a random one each time. With more patients than `pairs`, a random subset of that size is used.

    Args:
        patients: Patient of each row; None where each row is its own.
        total: Rows there are.
        pairs: Pairs wanted, about.
        seed: Seed of the draw.

    Returns:
        First and second row of each pair, [P] int64.

    Raises:
        Insufficient: Fewer than three patients.
    """
    of_row, count = groups(patients, total)
    if count < 3:
        raise Insufficient(f"needs 3 patients to draw pairs of different ones, there are {count}")
    rng = np.random.default_rng(seed)
    rows = np.argsort(of_row.numpy(), kind="stable")
    sizes = np.bincount(of_row.numpy(), minlength=count)
    starts = np.cumsum(sizes) - sizes
    drawn = rng.permutation(count)[: max(3, pairs)]
    rounds = max(1, min(math.ceil(pairs / len(drawn)), (len(drawn) - 1) // 2))
    first: list[NDArray[np.int64]] = []
    second: list[NDArray[np.int64]] = []
    for _ in range(rounds):
        circle = rng.permutation(drawn)
        for side, chosen in ((first, circle), (second, np.roll(circle, -1))):
            side.append(rows[starts[chosen] + rng.integers(0, sizes[chosen])])
    return torch.from_numpy(np.concatenate(first)), torch.from_numpy(np.concatenate(second))


def pair_mean(values: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> tuple[float, float, int]:
    """Mean over pairs, with the standard error from leaving out one patient, and so all its pairs, at a time.

    Args:
        values: [P] value of each pair.
        first: [P] int64, patient number of the first row of each pair.
        second: [P] int64, patient number of the second.

    Returns:
        Mean, standard error, and number of patients that take part.
    """
    values = values.double()
    present, index = torch.unique(torch.cat([first, second]), return_inverse=True)
    sums = values.new_zeros(len(present)).index_add_(0, index, values.repeat(2))
    counts = torch.bincount(index, minlength=len(present))
    left_out = (values.sum() - sums) / (len(values) - counts)
    return float(values.mean()), jackknife_se(left_out), len(present)
