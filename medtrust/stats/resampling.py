"""Resampling in which the patient, not the image, is the unit: subsets, half-samples, jackknife."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from medtrust.errors import Insufficient
from medtrust.types import Interval

__all__ = [
    "HalfSample",
    "Inference",
    "groups",
    "half_samples",
    "half_sampling",
    "half_sampling_of",
    "jackknife_se",
    "split_patients",
    "subsample",
]

Patients = Sequence[str] | Sequence[int] | None
HalfSample = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Inference:
    """What the data say of a population value.

    Args:
        value: Best estimate of the population value.
        plug_in: The statistic of all the data as other packages compute it, without correction for its bias.
        se: Standard error of `value`.
        interval: Interval for the population value; it always contains `value`.
        dof: Degrees of freedom behind `se`; few where a few patients carry most of it.
        dominance: Share of the variance that the most influential 1 % of the patients carry; None where not asked.
    """

    value: float
    plug_in: float
    se: float
    interval: Interval
    dof: float
    dominance: float | None = field(default=None, kw_only=True)


def groups(patients: Patients, n: int) -> tuple[torch.Tensor, int]:
    """Number the patients in order of first appearance.

    Args:
        patients: Patient of each row, or None where every row is its own patient.
        n: Number of rows.

    Returns:
        Patient number of each row, [n] int64, and how many patients there are.

    Raises:
        ValueError: `patients` does not name one patient per row.
    """
    if patients is None:
        return torch.arange(n), n
    if len(patients) != n:
        raise ValueError(f"{len(patients)} patients are named for {n} rows: name one per row")
    numbers: dict[str | int, int] = {}
    index = [numbers.setdefault(p, len(numbers)) for p in patients]
    return torch.tensor(index, dtype=torch.int64), len(numbers)


def subsample(patients: Patients, n: int, total: int, seed: int) -> torch.Tensor:
    """Draw rows patient by patient, in random order of patients, until there are `n` of them.

    Whole patients are taken; only the last one drawn is cut to size.

    Args:
        patients: Patient of each row, or None.
        n: Rows wanted, at most `total`.
        total: Rows there are.
        seed: Seed of the order.

    Returns:
        Sorted row numbers, [n] int64.
    """
    if not 0 <= n <= total:
        raise ValueError(f"cannot draw {n} of {total} rows")
    of_row, count = groups(patients, total)
    rank = torch.from_numpy(np.random.default_rng(seed).permutation(count))
    order = torch.argsort(rank[of_row], stable=True)
    return order[:n].sort().values


def split_patients(patients: Patients, total: int, seed: int) -> HalfSample:
    """Split rows into two halves that share no patient.

    Args:
        patients: Patient of each row, or None.
        total: Rows there are.
        seed: Seed of the split.

    Returns:
        Sorted row numbers of either half.

    Raises:
        Insufficient: Fewer than two patients.
    """
    return next(half_samples(patients, total, 1, seed))


def half_samples(patients: Patients, total: int, splits: int, seed: int) -> Iterator[HalfSample]:
    """Yield random complementary halves of the patients, as pairs of sorted row numbers.

    Args:
        patients: Patient of each row, or None.
        total: Rows there are.
        splits: How many splits.
        seed: Seed of the splits.

    Raises:
        Insufficient: Fewer than two patients.
    """
    of_row, count = groups(patients, total)
    if count < 2:
        raise Insufficient(f"needs 2 patients to split in halves, there is {count}")
    rng = np.random.default_rng(seed)
    for _ in range(splits):
        first = torch.zeros(count, dtype=torch.bool)
        first[torch.from_numpy(rng.permutation(count)[: count // 2])] = True
        chosen = first[of_row]
        yield chosen.nonzero().flatten(), (~chosen).nonzero().flatten()


def half_sampling(
    statistic: Callable[[torch.Tensor, torch.Tensor], Sequence[float]],
    patients_a: Patients,
    patients_b: Patients,
    sizes: tuple[int, int],
    *,
    splits: int,
    seed: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Evaluate two-sample statistics on complementary halves of the patients of both sets.

    Half the difference between a half and its complement varies as the whole does, to first order: its root mean
    square is the standard error on all the data, whatever the bias of the statistic. The mean over both halves is
    the statistic at half the size.

    Args:
        statistic: Maps row numbers of set a and of set b to one or more numbers.
        patients_a: Patient of each row of set a, or None.
        patients_b: Likewise of set b.
        sizes: Rows in either set.
        splits: Number of splits; the degrees of freedom of the standard errors.
        seed: Seed of the splits.

    Returns:
        Mean over halves [S] and standard error [S], for S statistics.

    Raises:
        Insufficient: A set has fewer than two patients.

    Reference:
        Shao and Wu 1989, doi:10.1214/aos/1176347263 (delete-d jackknife).
    """
    return half_sampling_of(statistic, (patients_a, patients_b), sizes, splits=splits, seed=seed)


def half_sampling_of(
    statistic: Callable[..., Sequence[float]],
    patients: Sequence[Patients],
    sizes: Sequence[int],
    *,
    splits: int,
    seed: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Evaluate statistics of any number of independent sets on complementary halves of the patients of each.

    Args:
        statistic: Maps row numbers of each set to one or more numbers.
        patients: Per set, the patient of each row, or None.
        sizes: Per set, its rows.
        splits: As in `half_sampling`.
        seed: As in `half_sampling`.

    Returns:
        As `half_sampling`.

    Raises:
        Insufficient: A set has fewer than two patients.
    """
    seeds = np.random.SeedSequence(seed).generate_state(len(sizes))
    halves = [
        half_samples(of_set, size, splits, int(own))
        for of_set, size, own in zip(patients, sizes, seeds, strict=True)
    ]  # fmt: skip
    rows = [
        (list(statistic(*(each[0] for each in split))), list(statistic(*(each[1] for each in split))))
        for split in zip(*halves, strict=True)
    ]
    values = torch.tensor(rows, dtype=torch.float64)  # [splits, 2, S]
    variance = ((values[:, 0] - values[:, 1]) / 2).square().mean(0)
    middle = values.mean(1)
    noise = middle.var(0) / splits if splits > 1 else torch.zeros_like(variance)  # of a finite number of splits
    return middle.mean(0), (variance + noise).sqrt()


def jackknife_se(left_out: torch.Tensor) -> float:
    """Turn estimates that each leave out one patient into a standard error.

    Args:
        left_out: [N] float64, estimate without patient i.

    Returns:
        √((N-1)/N · Σ (θ₋ᵢ - θ̄)²).

    Reference:
        Efron and Stein 1981, doi:10.1214/aos/1176345462.
    """
    n = len(left_out)
    return math.sqrt((n - 1) / n * float((left_out - left_out.mean()).square().sum()))
