"""Resampling in which the patient, not the image, is the unit: subsets, half-samples, jackknife, proportions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import stats as distributions

from medtrust.errors import Insufficient
from medtrust.types import Interval

__all__ = [
    "HalfSample",
    "Inference",
    "clopper_pearson",
    "groups",
    "half_samples",
    "half_sampling",
    "half_sampling_of",
    "jackknife_se",
    "korn_graubard",
    "min_detectable",
    "score_ends",
    "split_patients",
    "subsample",
    "t_quantile",
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


def t_quantile(level: float, dof: float) -> float:
    """Two-sided quantile of Student's t: the half-width of an interval in standard errors."""
    return float(distributions.t.ppf((1 + level) / 2, dof))


def score_ends(value: float, se: float, bias: float, quantile: float) -> tuple[float, float]:
    """Ends of a score interval for a squared distance.

    Of a squared distance θ the variance is 4λθ plus that of θ = 0: it grows with θ in proportion to θ + b, the
    expectation of the plug-in with its bias b. A sample that underestimates θ therefore underestimates its standard
    error too, and value ± t·se misses truths above it far too often. Here the error belongs to the θ that is asked
    about: the ends solve (θ - value)² = t²·se²·(θ + b)/(value + b), a quadratic equation, as Wilson's interval does for
    a proportion. Far from 0 both intervals agree.

    Args:
        value: Estimate without bias.
        se: Its standard error, estimated from the same data.
        bias: Plug-in less `value`.
        quantile: Half-width in standard errors, as from `t_quantile`.

    Returns:
        Lower and upper end, around `value`; the plain ones where the plug-in is not above 0.

    Reference:
        Wilson 1927, doi:10.1080/01621459.1927.10502953 (inverting the test, for proportions).
    """
    plug_in = value + bias
    if not plug_in > 0 or bias < 0:
        return value - quantile * se, value + quantile * se
    shift = (quantile * se) ** 2 / (2 * plug_in)
    reach = math.hypot(quantile * se, shift)
    return value + shift - reach, value + shift + reach


def min_detectable(se: float, level: float, dof: float, power: float = 0.8, growth: float = 0.0) -> float:
    """Smallest effect whose interval of confidence `level` excludes zero with probability `power`.

    Solves δ = (t + z)·√(se² + growth·δ): distances and shares vary more where there is something to find, so the error
    at no effect alone would promise too much.

    Args:
        se: Standard error where there is no effect.
        level: Confidence level.
        dof: Degrees of freedom of `se`.
        power: Wanted power.
        growth: Variance of the estimate added per unit of effect.
    """
    k = t_quantile(level, dof) + float(distributions.norm.ppf(power))
    return (k * k * growth + math.sqrt((k * k * growth) ** 2 + 4 * k * k * se * se)) / 2


def clopper_pearson(k: float, n: float, level: float) -> tuple[float, float]:
    """Exact interval of a binomial proportion.

    Args:
        k: Hits, 0 ≤ k ≤ n; a fraction where an effective sample size is used.
        n: Trials, above 0.
        level: Confidence level.

    Returns:
        Lower and upper bound, in [0, 1].

    Reference:
        Clopper and Pearson 1934, doi:10.1093/biomet/26.4.404.
    """
    if not 0 <= k <= n or n <= 0:
        raise ValueError(f"{k} hits of {n} trials is no proportion")
    tail = (1 - level) / 2
    lo = 0.0 if k == 0 else float(distributions.beta.ppf(tail, k, n - k + 1))
    hi = 1.0 if k == n else float(distributions.beta.ppf(1 - tail, k + 1, n - k))
    return lo, hi


def korn_graubard(share: float, se: float, units: int, level: float, dof: int) -> tuple[float, float]:
    """Clopper-Pearson interval at the effective sample size, for a proportion over dependent observations.

    Args:
        share: Estimated proportion.
        se: Its standard error, from whatever resampling respects the dependence.
        units: Independent units behind it: the effective sample size where `se` is 0, and its upper limit.
        level: Confidence level.
        dof: Degrees of freedom of `se`; few of them shrink the effective sample size.

    Returns:
        Lower and upper bound, in [0, 1].

    Reference:
        Korn and Graubard 1998, Survey Methodology 24(2), 193-201.
    """
    effective = float(units)
    if se > 0:
        shrink = (t_quantile(level, units) / t_quantile(level, dof)) ** 2
        smooth = (share * units + 1) / (units + 2)  # shares of 0 and 1 have a binomial variance too
        effective = min(effective, max(1.0, shrink * smooth * (1 - smooth) / se**2))
    return clopper_pearson(share * effective, effective, level)
