"""Rank sums by site: is one group nearer to train than another, each compared within its own site?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata

from medtrust.errors import Insufficient

__all__ = ["RankSum", "VanElteren", "van_elteren"]


@dataclass(frozen=True, slots=True)
class RankSum:
    """Wilcoxon's statistic of one site.

    Args:
        u: Pairs in which the synthetic image is farther from train than the holdout image, ties counted half.
        n_synthetic: Synthetic images compared at this site.
        n_holdout: Holdout patients compared.
    """

    u: float
    n_synthetic: int
    n_holdout: int

    @classmethod
    def of(cls, synthetic: npt.ArrayLike, holdout: npt.ArrayLike) -> RankSum:
        """Count pairs of distances [m] and [n]."""
        s, h = np.asarray(synthetic, dtype=np.float64), np.asarray(holdout, dtype=np.float64)
        if min(len(s), len(h)) < 1:
            raise Insufficient("a rank sum needs a synthetic and a holdout image")
        ranks = rankdata(np.r_[s, h])[: len(s)]
        return cls(float(ranks.sum() - len(s) * (len(s) + 1) / 2), len(s), len(h))

    @property
    def excess(self) -> float:
        """Van Elteren's weight times (U - nm/2)."""
        return (self.u - self.n_synthetic * self.n_holdout / 2) / (self.n_synthetic + self.n_holdout + 1)

    @property
    def variance(self) -> float:
        """Variance of `excess` where the two groups are alike; ties would make it smaller."""
        return self.n_synthetic * self.n_holdout / (12 * (self.n_synthetic + self.n_holdout + 1))


@dataclass(frozen=True, slots=True)
class VanElteren:
    """The stratified rank test.

    Args:
        z: Standard normal where the groups are alike within every site; below 0 where synthetic images are nearer.
        p: One-sided p-value of being nearer.
    """

    z: float
    p: float


def van_elteren(sites: Sequence[RankSum]) -> VanElteren:
    """Combine the sites' rank sums with the weights 1/(n + m + 1), the best ones where sites shift alike.

    Raises:
        Insufficient: No site.

    Reference: van Elteren 1960, Bulletin of the International Statistical Institute 37, 351-361.
    """
    if not sites:
        raise Insufficient("no site compared ranks")
    z = sum(site.excess for site in sites) / math.sqrt(sum(site.variance for site in sites))
    return VanElteren(z, float(norm.cdf(z)))
