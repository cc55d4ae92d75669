"""Ends of intervals: Student's t, score intervals for squared distances, and proportions."""

from __future__ import annotations

import math

from scipy import stats as distributions

__all__ = ["clopper_pearson", "korn_graubard", "min_detectable", "score_ends", "t_quantile"]


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
