"""Clipped density and coverage: shares that fall in a straight line as good samples are replaced by bad ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.stats import betabinom

import medtrust.ops.neighbours  # noqa: F401  registers torch.ops.medtrust.nearest and .balls
from medtrust.errors import Insufficient
from medtrust.stats.intervals import korn_graubard
from medtrust.stats.resampling import Inference, Patients, groups, half_sampling
from medtrust.types import Interval

__all__ = ["CLIPPED_NAMES", "Clipped", "clipped", "clipped_interval"]

CLIPPED_NAMES = ("density", "coverage")


@dataclass(frozen=True, slots=True)
class Clipped:
    """The two shares, each 0 … 1.

    Args:
        density: Share of the synthetic images that are as well surrounded by real ones as real ones are.
        coverage: Share of ideal samples that would surround the real images as the synthetic ones do.
    """

    density: float
    coverage: float


def clipped(
    real: torch.Tensor,
    synthetic: torch.Tensor,
    patients_real: Patients = None,
    *,
    k: int = 5,
) -> Clipped:
    """Clipped density and coverage.

    Density: a real image's ball reaches to its k-th neighbour, but no further than the median of all such radii, so
    that outliers have no large balls; each synthetic image counts the balls it lies in over k, at most 1; the mean is
    divided by that of the real images themselves. Coverage: each real image counts the synthetic ones in its ball over
    k, at most 1; the mean is mapped to the share of ideal samples that gives it in expectation, by a beta-binomial law
    that holds whatever the distribution.

    Args:
        real: Features [n, d].
        synthetic: Features [m, d].
        patients_real: Patient of each real row; neighbours of the same patient do not count. None, as the authors
            define it, leaves out the row itself alone.
        k: Which neighbour sets the radius.

    Raises:
        Insufficient: A real row has fewer than k neighbours of other patients, there are fewer than k synthetic rows, a
            value is not finite, or the median radius is 0 because most real images are duplicates.
        ValueError: The widths differ.

    Reference:
        Salvy et al. 2026, arXiv:2507.01761, and its authors' implementation.
    """
    real, synthetic = real.double(), synthetic.double()
    if real.shape[1] != synthetic.shape[1]:
        raise ValueError(
            f"features of width {real.shape[1]} cannot be compared with features of width {synthetic.shape[1]}"
        )
    if not bool(real.isfinite().all() and synthetic.isfinite().all()):
        raise Insufficient(
            "the features hold values that are not finite: look for broken images or a failing extractor"
        )
    of_real, _ = groups(patients_real, len(real))
    return _shares(real, synthetic, of_real, k)


def clipped_interval(
    real: torch.Tensor,
    synthetic: torch.Tensor,
    patients_real: Patients = None,
    patients_synthetic: Patients = None,
    *,
    k: int = 5,
    level: float = 0.95,
    seed: int = 0,
    splits: int = 16,
) -> Mapping[str, Inference]:
    """Both shares, each with an interval for its expectation at these sample sizes.

    Args:
        real: Features [n, d].
        synthetic: Features [m, d].
        patients_real: Patient of each row; None where each row is its own.
        patients_synthetic: Likewise of the synthetic rows.
        k: Which neighbour sets the radius.
        level: Confidence level.
        seed: Seed of the splits.
        splits: Number of random splits into halves by patient; the degrees of freedom.

    Returns:
        One inference per name of `CLIPPED_NAMES`, Clopper-Pearson at the effective sample size that the error implies.

    Raises:
        Insufficient: As `clipped`, of the sets or of half of them.
    """
    whole = clipped(real, synthetic, patients_real, k=k)
    real, synthetic = real.double(), synthetic.double()
    of_real, units_real = groups(patients_real, len(real))
    _, units_synthetic = groups(patients_synthetic, len(synthetic))
    fewest = min(units_real, units_synthetic)
    if fewest < 2 * (k + 1):
        raise Insufficient(f"needs {2 * (k + 1)} patients in each set to resample them in halves, a set has {fewest}")

    def on_rows(i: torch.Tensor, j: torch.Tensor) -> tuple[float, float]:
        # Half the data hold the same share of the data in a ball at half of k.
        found = _shares(real[i], synthetic[j], of_real[i], (k + 1) // 2)
        return found.density, found.coverage

    _, errors = half_sampling(
        on_rows, patients_real, patients_synthetic, (len(real), len(synthetic)), splits=splits, seed=seed
    )
    results = {}
    for name, se, units in zip(CLIPPED_NAMES, errors.tolist(), (units_synthetic, units_real), strict=True):
        value = getattr(whole, name)
        lo, hi = korn_graubard(value, se, units, level, splits)
        interval = Interval(lo, hi, level, "delete-half Korn-Graubard", units)
        results[name] = Inference(value=value, plug_in=value, se=se, interval=interval, dof=splits)
    return results


def _shares(real: torch.Tensor, synthetic: torch.Tensor, of_real: torch.Tensor, k: int) -> Clipped:
    largest = int(torch.bincount(of_real).max()) if len(real) else 0
    if len(real) - largest < k:
        raise Insufficient(
            f"needs {k} neighbours of other patients for every real image; the largest patient of {len(real)} images "
            f"leaves {len(real) - largest}"
        )
    if len(synthetic) < k:
        raise Insufficient(f"needs {k} synthetic images, there are {len(synthetic)}")
    squared, neighbours = torch.ops.medtrust.nearest(real, real, k, of_real, of_real)
    radii = squared[:, k - 1].contiguous()
    cap = _median_of_squares(radii)
    if not cap > 0:
        raise Insufficient(
            f"the {k} nearest neighbours of most real images are identical to them, so most balls are empty: the "
            "features are constant or most images are duplicates"
        )
    short = radii.clamp_max(cap)
    around_synthetic, _, _ = torch.ops.medtrust.balls(synthetic, real, radii.new_zeros(len(synthetic)), short, True)
    inside = squared[:, :k] <= short[:, None]
    around_real = torch.bincount(neighbours[:, :k][inside], minlength=len(real))
    reached = float((around_synthetic.double() / k).clamp_max(1).mean())
    ideal = float((around_real.double() / k).clamp_max(1).mean())

    to_synthetic = torch.ops.medtrust.nearest(real, synthetic, k, None, None)[0]
    filled = float((to_synthetic < radii[:, None]).double().mean())
    expected = _expected_filling(k, len(real), len(synthetic))
    coverage = int(np.searchsorted(expected, filled)) / len(expected)
    return Clipped(min(1.0, reached / ideal), coverage)


def _median_of_squares(squared: torch.Tensor) -> float:
    """Square of the median distance: one of the squares themselves where their number is odd, to the bit."""
    ordered = squared.sort().values
    low, high = float(ordered[(len(ordered) - 1) // 2]), float(ordered[len(ordered) // 2])
    return low if low == high else ((low**0.5 + high**0.5) / 2) ** 2


@lru_cache(maxsize=64)
def _expected_filling(k: int, n: int, m: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Expected filling of a ball, [m + 1], when 0 … m of the synthetic images are as good as real ones.

    A ball that reaches to the k-th of n - 1 others holds a Beta(k, n - k) share of the population. As the authors do,
    fewer than k good images count as none.
    """
    good = np.arange(k, m + 1)[:, None]
    missing = np.arange(k)
    short = ((k - missing) * betabinom.pmf(missing, good, k, n - k)).sum(1) / k
    return np.concatenate([np.zeros(k), 1 - short])
