"""Close-pair membership by site: counts at the top of each site's own ranking, combined into one exact test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from medtrust.errors import Insufficient
from medtrust.stats.enrichment import EnrichmentTest

__all__ = ["EnrichmentCounts", "StratifiedEnrichment", "StratifiedOutcome", "fisher_p"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class EnrichmentCounts:
    """How many training patients stand at the top of one site's ranking.

    Args:
        n_train: Training patients in the site's pool.
        n_holdout: Holdout patients in it.
        counts: [J] lengths of the top that were counted, rising.
        hits: [J] training patients among so many.
    """

    n_train: int
    n_holdout: int
    counts: tuple[int, ...]
    hits: tuple[int, ...]

    @classmethod
    def of(cls, in_train: npt.ArrayLike, n_train: int, n_holdout: int, shortest: int) -> EnrichmentCounts:
        """Count a ranking [M], most suspicious first.

        Args:
            in_train: Whether each ranked patient is a training patient.
            n_train: Training patients in the pool.
            n_holdout: Holdout patients in it.
            shortest: No shorter top is counted.

        Raises:
            Insufficient: Fewer than `shortest` patients are ranked.
        """
        labels = np.asarray(in_train, dtype=bool)
        counts = tuple(c for c in EnrichmentTest.lengths(n_train + n_holdout, shortest) if c <= len(labels))
        if not counts:
            raise Insufficient(
                f"only {len(labels)} patients are ranked, and no top shorter than {shortest} may be counted: "
                f"add samples"
            )
        return cls(n_train, n_holdout, counts, tuple(int(labels[:c].sum()) for c in counts))


@dataclass(frozen=True, slots=True)
class StratifiedOutcome:
    """Outcome of the test over all sites.

    Args:
        p: Exact p-value.
        statistic: Sum over the sites of the natural logarithms of their average likelihood ratios.
        count: Length of the top that weighs most, the same at every site.
        counted: Patients in these tops together.
        in_train: Training patients among them.
        expected: Share of training patients among them where nothing was copied.
        spread: Quantiles .025 and .975 of that share by chance.
        by_site: The sites' own statistics.
    """

    p: float
    statistic: float
    count: int
    counted: int
    in_train: int
    expected: float
    spread: tuple[float, float]
    by_site: tuple[float, ...]


class StratifiedEnrichment:
    """Test whether training patients top the sites' rankings more often than chance allows.

    Every site ranks its own patients; given the rankings, every assignment of the labels within each site is equally
    likely if nothing was copied. The statistic is the sum of the sites' statistics (`EnrichmentTest`), whose null
    distribution is simulated site by site, so the p-value is exact for any number and size of sites.

    Args:
        sites: The sites' counts, in a fixed order.
        seed: Seed of the simulated assignments.
        draws: Their number.

    Reference: Meehan et al. 2020, arXiv 2004.05675, for testing copies against a holdout.
    """

    def __init__(self, sites: Sequence[EnrichmentCounts], seed: int, draws: int = 9999) -> None:
        if not sites:
            raise Insufficient("no site counted its closest patients")
        self.sites = tuple(sites)
        self.tests = tuple(
            EnrichmentTest(site.n_train, site.n_holdout, seed + at, draws, shortest=site.counts[0])
            for at, site in enumerate(sites)
        )
        self.seed, self.draws = seed, draws

    @cached_property
    def null(self) -> Floats:
        """Sorted statistics of simulated assignments, [draws]."""
        steps = (test.simulated(len(site.counts)) for test, site in zip(self.tests, self.sites, strict=True))
        return np.sort(np.sum(list(steps), axis=0))

    def p_of(self, statistics: Floats) -> Floats:
        """p-values of statistics [R]; a tie counts against rejection."""
        at_least = self.null.size - np.searchsorted(self.null, statistics - 1e-9, side="left")
        return np.asarray((1.0 + at_least) / (1.0 + self.null.size), dtype=np.float64)

    def statistics(self, hits: Sequence[npt.ArrayLike]) -> Floats:
        """Statistics of R experiments.

        Args:
            hits: Per site, training patients at each of its tops, [R, J].
        """
        parts = [test.log_ratio(np.asarray(h, np.float64))[0] for test, h in zip(self.tests, hits, strict=True)]
        return np.asarray(np.sum(parts, axis=0))

    def __call__(self) -> StratifiedOutcome:
        """Test the observed counts."""
        found = [
            test.log_ratio(np.asarray([site.hits], np.float64))
            for test, site in zip(self.tests, self.sites, strict=True)
        ]
        own = [float(ratio[0]) for ratio, _ in found]
        count = self._deciding([by_count[0] for _, by_count in found])
        tops = [
            next(
                (c, h)
                for c, h in zip(site.counts[::-1], site.hits[::-1], strict=True)
                if c <= max(count, site.counts[0])
            )
            for site in self.sites
        ]
        counted, hits = sum(c for c, _ in tops), sum(h for _, h in tops)
        rng = np.random.default_rng([self.seed, 1])
        drawn = sum(
            rng.hypergeometric(site.n_train, site.n_holdout, c, self.draws)
            for site, (c, _) in zip(self.sites, tops, strict=True)
        )
        expected = sum(c * test.share for test, (c, _) in zip(self.tests, tops, strict=True)) / counted
        lo, hi = np.quantile(np.asarray(drawn) / counted, [0.025, 0.975]).tolist()
        total = sum(own)
        p = float(self.p_of(np.array([total]))[0])
        return StratifiedOutcome(p, total, count, counted, hits, expected, (lo, hi), tuple(own))

    def _deciding(self, by_count: Sequence[Floats]) -> int:
        """The length of the top that weighs most over all sites."""
        shared = sorted(set.intersection(*(set(site.counts) for site in self.sites)) or set(self.sites[0].counts))
        weight = [
            sum(
                float(terms[site.counts.index(c)]) if c in site.counts else 0.0
                for terms, site in zip(by_count, self.sites, strict=True)
            )
            for c in shared
        ]
        return int(shared[int(np.argmax(weight))])


def fisher_p(total: float, sites: int) -> float:
    """Combine p-values of independent sites of which only the sum of -2 ln p is known.

    Reference: Fisher 1932, Statistical Methods for Research Workers, section 21.1.
    """
    return float(chi2.sf(total, 2 * sites)) if total < math.inf else 0.0
