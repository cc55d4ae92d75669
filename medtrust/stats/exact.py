"""Exact tests and corrections for multiple testing: small counts, no asymptotics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import false_discovery_control, hypergeom

__all__ = [
    "benjamini_hochberg",
    "conformal_p",
    "extreme_count_tail",
    "fewest_flagged",
    "holm",
    "hypergeometric_tail",
    "smallest_rejecting_count",
]

Floats = npt.NDArray[np.float64]


def hypergeometric_tail(k: npt.ArrayLike, n_marked: int, n_other: int, draws: npt.ArrayLike) -> Floats:
    """Compute the chance of at least `k` marked units among `draws` taken without replacement.

    Args:
        k: Observed numbers of marked units, any shape.
        n_marked: Marked units in a population of at least one, such as training patients.
        n_other: Unmarked units in the population, such as holdout patients.
        draws: How many units were taken, broadcast against `k`.

    Returns:
        P(X >= k), float64, in the broadcast shape.
    """
    tail = hypergeom.sf(np.asarray(k) - 1, n_marked + n_other, n_marked, draws)
    return np.asarray(tail, dtype=np.float64)


def smallest_rejecting_count(n_marked: int, n_other: int, alpha: float) -> int | None:
    """Find how many units must be drawn, all of them marked, before chance is ruled out at level `alpha`.

    For a large population this is ⌈ln α / ln π⌉ with π the marked share.

    Args:
        n_marked: Marked units in the population.
        n_other: Unmarked units in the population.
        alpha: Level of the test.

    Returns:
        The count, or None where even drawing every marked unit first would not be significant.
    """
    chance = 1.0
    for drawn in range(n_marked):
        chance *= (n_marked - drawn) / (n_marked + n_other - drawn)
        if chance <= alpha:
            return drawn + 1
    return None


def extreme_count_tail(k: int, n_samples: int, n_reference: int) -> float:
    """Compute the chance that the `k` smallest of two exchangeable groups all come from the first.

    Args:
        k: How many samples lie below every reference value.
        n_samples: Size of the first group.
        n_reference: Size of the second group, at least one.

    Returns:
        ∏_{j<k} (m - j) / (m + n - j), in [0, 1].
    """
    return float(hypergeometric_tail(k, n_samples, n_reference, k)) if k else 1.0


def conformal_p(scores: npt.ArrayLike, reference: npt.ArrayLike) -> Floats:
    """Compute each score's conformal p-value against a reference sample; small scores are suspicious.

    Args:
        scores: [m] scores to judge.
        reference: [n] scores of units that are exchangeable with an unsuspicious one.

    Returns:
        [m] float64, (1 + #{reference <= score}) / (n + 1).

    Reference: Bates et al., Testing for outliers with conformal p-values, arXiv 2104.08279.
    """
    ordered = np.sort(np.asarray(reference, dtype=np.float64))
    below = np.searchsorted(ordered, np.asarray(scores, dtype=np.float64), side="right")
    return np.asarray((1.0 + below) / (ordered.size + 1.0), dtype=np.float64)


def fewest_flagged(n_samples: int, n_reference: int, q: float) -> int:
    """Compute the fewest samples that Benjamini-Hochberg at level `q` can flag from conformal p-values.

    Args:
        n_samples: Samples under test.
        n_reference: Reference values behind each conformal p-value.
        q: False discovery rate.

    Returns:
        ⌈m / (q (n + 1))⌉: fewer planted copies than this cannot be listed, however exact they are.
    """
    return max(1, int(np.ceil(n_samples / (q * (n_reference + 1)) - 1e-12)))


def benjamini_hochberg(p: Sequence[float] | Floats) -> Floats:
    """Adjust p-values so that rejecting those at most q bounds the false discovery rate by q.

    Args:
        p: [n] p-values.

    Returns:
        [n] adjusted p-values, float64, never below the raw ones; empty for empty input.

    Reference: Benjamini and Hochberg 1995, doi 10.1111/j.2517-6161.1995.tb02031.x.
    """
    values = np.asarray(p, dtype=np.float64)
    return np.asarray(false_discovery_control(values) if values.size else values, dtype=np.float64)


def holm(p: Sequence[float] | Floats) -> Floats:
    """Adjust p-values so that rejecting those at most α bounds the chance of any false rejection by α.

    Args:
        p: [n] p-values.

    Returns:
        [n] adjusted p-values, float64, at most one; empty for empty input.

    Reference: Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6 (1979).
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(values.size, 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted
