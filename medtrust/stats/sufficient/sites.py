"""Do sites differ? A test on the means of their folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import brentq
from scipy.stats import f as f_distribution
from scipy.stats import ncf

from medtrust.errors import Insufficient

__all__ = ["SiteDifference", "site_difference"]

FoldMeans = Sequence[Sequence[tuple[float, torch.Tensor]]]


@dataclass(frozen=True, slots=True)
class SiteDifference:
    """How far sites lie from their pool.

    Args:
        value: Mean squared distance of a patient's site from the pool, beyond what chance gives; unbiased.
        interval: Ends of its interval, from the noncentral F distribution.
        statistic: Pseudo-F: scatter between sites over that between folds within sites.
        p: p-value of no difference.
        dimensions: Effective number of independent directions.
        detectable: Smallest `value` that the test shows with the power asked for.
    """

    value: float
    interval: tuple[float, float]
    statistic: float
    p: float
    dimensions: float
    detectable: float


def site_difference(sites: FoldMeans, *, level: float = 0.95, power: float = 0.8) -> SiteDifference:
    """Compare the scatter of sites with that of folds within them.

    Folds share no patient, so their scatter within a site is sampling error whatever hangs together within a patient.
    Between and within are sums of squares of about `dimensions` directions each, which gives the ratio an F
    distribution with (S-1)ν and (G-S)ν degrees of freedom; ν is estimated without bias from the folds' scatter.

    Args:
        sites: Per site and fold, its patients and the mean of its features [d].
        level: Confidence level; `detectable` is found at 1 - level.
        power: Power of `detectable`.

    Raises:
        Insufficient: Fewer than two sites, or no four folds more than sites.

    Reference:
        Box 1954, doi:10.1214/aoms/1177728786 (approximation by F); Anderson 2001,
        doi:10.1111/j.1442-9993.2001.01070.pp.x (pseudo-F of distances).
    """
    folds, count = sum(map(len, sites)), len(sites)
    dof = folds - count
    if count < 2 or dof < 4:
        raise Insufficient(
            f"{folds} folds of {count} sites cannot show whether sites differ: it takes 2 sites, and 4 folds more than "
            "sites"
        )
    weights = [torch.tensor([float(units) for units, _ in site], dtype=torch.float64) for site in sites]
    means = [torch.stack([mean for _, mean in site]).double() for site in sites]
    centres = torch.stack([(w[:, None] * m).sum(0) / w.sum() for w, m in zip(weights, means, strict=True)])
    sizes = torch.stack([w.sum() for w in weights])
    total = float(sizes.sum())
    middle = (sizes[:, None] * centres).sum(0) / total
    between = float((sizes * (centres - middle).square().sum(1)).sum())
    residuals = torch.cat([w.sqrt()[:, None] * (m - c) for w, m, c in zip(weights, means, centres, strict=True)])
    within = float(residuals.square().sum()) / dof
    if within <= 0:
        raise Insufficient("all folds of a site have the same mean: the features are constant")
    square = float((residuals @ residuals.T).square().sum()) / dof**2  # tr S²
    # E tr S² = a(1 + 1/n) + b/n and E (tr S)² = b + 2a/n for a = tr Σ², b = (tr Σ)² and S of n degrees of freedom
    a = (square - within**2 / dof) / (1 + 1 / dof - 2 / dof**2)
    b = within**2 - 2 * a / dof
    directions = float(max(1.0, b / a)) if a > 0 else float(residuals.shape[1])
    directions = min(directions, float(residuals.shape[1]))
    one, two = (count - 1) * directions, dof * directions
    statistic = between / (count - 1) / within
    value, unit = (between - (count - 1) * within) / total, within / (directions * total)
    tail = (1 - level) / 2
    ends = [unit * _noncentrality(statistic, one, two, chance) for chance in (tail, 1 - tail)]
    return SiteDifference(
        value=value,
        interval=(min(ends[0], value), max(ends[1], value)),
        statistic=statistic,
        p=float(f_distribution.sf(statistic, one, two)),
        dimensions=directions,
        detectable=unit * _noncentrality(float(f_distribution.isf(1 - level, one, two)), one, two, power),
    )


def _noncentrality(limit: float, one: float, two: float, chance: float) -> float:
    """Noncentrality at which an F statistic exceeds a limit with a given chance; 0 where it does so anyway."""

    def lacking(nc: float) -> float:
        return float(ncf.sf(limit, one, two, nc)) - chance

    if float(f_distribution.sf(limit, one, two)) >= chance:
        return 0.0
    top = 10.0
    while lacking(top) < 0 and top < 1e6:
        top *= 2
    return float(brentq(lacking, 1e-9, top))
