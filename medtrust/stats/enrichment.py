"""Are training patients over-represented at the top of a ranking? An exact test, whatever made the ranking."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medtrust.errors import Insufficient
from medtrust.stats.exact import hypergeometric_tail, smallest_rejecting_count

__all__ = ["Enrichment", "EnrichmentTest"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

# How many copies there may be, and how purely they fill the top of the list. A test that knew both would count training
# patients among the first c; not knowing them, the average of the likelihood ratios over this grid loses little.
COUNTS = (3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 20, 25, 30, 40, 50, 70, 100, 140, 200, 280, 400)
PURITIES = (0.5, 0.8, 0.95)
_ROUNDING = 1e-9  # statistics that differ by less are ties, and a tie counts against rejection


@dataclass(frozen=True, slots=True)
class Enrichment:
    """Outcome of the test on one ranking.

    Args:
        p: Exact p-value of the whole ranking.
        statistic: Natural logarithm of the average likelihood ratio; above 0 favours copying.
        count: Length of the top of the list that weighs most in the statistic, among those long enough to decide.
        in_train: How many of these `count` patients are training patients.
        p_count: Hypergeometric p-value at `count` alone, not corrected for having chosen it.
    """

    p: float
    statistic: float
    count: int
    in_train: int
    p_count: float


class EnrichmentTest:
    """Test whether the patients at the top of a ranking are training patients more often than chance allows.

    The null hypothesis is that, given the ranking, every assignment of the labels "train" and "holdout" to the patients
    is equally likely. It holds when the split was random by patient and the ranking did not look at labels. The
    statistic averages, over how many copies there may be and how purely they fill the top, the likelihood ratio
    against that null. Its null distribution is simulated from seeded random assignments, so that the p-value
    (1 + #{simulated >= observed}) / (1 + draws) is exact for every sample size.

    Args:
        n_train: Training patients in the pool that was ranked.
        n_holdout: Holdout patients in that pool.
        seed: Seed of the simulated assignments.
        draws: Number of simulated assignments; the smallest p-value is 1 / (1 + draws).
        shortest: Tops shorter than this are not looked at.

    Raises:
        Insufficient: A side has no patients.

    Reference: permutation p-values as in Phipson and Smyth 2010, doi 10.2202/1544-6115.1585.
    """

    def __init__(self, n_train: int, n_holdout: int, seed: int, draws: int = 9999, *, shortest: int = 1) -> None:
        if n_train < 1 or n_holdout < 1:
            raise Insufficient(
                f"the copy test needs patients on both sides, got {n_train} and {n_holdout}: add a holdout"
            )
        self.n_train, self.n_holdout = n_train, n_holdout
        self.share = n_train / (n_train + n_holdout)
        self._counts = np.array(self.lengths(n_train + n_holdout, shortest))
        self._null_counts = _cumulate(self.draw_labels(int(self._counts[-1]), draws, seed), self._counts)
        self._nulls: dict[int, Floats] = {}
        need = smallest_rejecting_count(n_train, n_holdout, 0.05) or 1
        self._decisive = int(np.searchsorted(self._counts, need))  # shorter tops decide nothing by themselves

    @staticmethod
    def lengths(patients: int, shortest: int = 1) -> list[int]:
        """Lengths of the top of a ranking of so many patients that are looked at, rising."""
        return [count for count in COUNTS if shortest <= count <= patients] or [min(shortest, patients)]

    def log_ratio(self, hits: Floats) -> tuple[Floats, Floats]:
        """Statistics of rankings of which only counts are known.

        Args:
            hits: [R, J] training patients among the first so many, for the first J of `lengths`.

        Returns:
            [R] natural logarithms of the average likelihood ratio, and [R, J] those of each length.
        """
        return self._statistic(hits)

    def simulated(self, steps: int) -> Floats:
        """Statistics [draws] of the simulated assignments over the first `steps` lengths, in the order of drawing."""
        return self._statistic(self._null_counts[:, :steps])[0]

    def draw_labels(self, length: int, draws: int, seed: int) -> Bools:
        """Draw the labels of the first patients of a random ranking.

        Args:
            length: How many patients from the top, at most all.
            draws: How many rankings.
            seed: Seed.

        Returns:
            [draws, length], true where the patient is a training patient.
        """
        rng = np.random.default_rng(seed)
        left = np.full(draws, self.n_train)
        labels = np.empty((draws, length), dtype=bool)
        for rank in range(length):
            labels[:, rank] = rng.random(draws) * (self.n_train + self.n_holdout - rank) < left
            left -= labels[:, rank]
        return labels

    def __call__(self, in_train: npt.ArrayLike) -> Enrichment:
        """Test one ranking.

        Args:
            in_train: [M] whether each patient, most suspicious first, is a training patient; no patient twice.

        Raises:
            Insufficient: The ranking is empty.
        """
        labels = np.asarray(in_train, dtype=bool)[None]
        steps = self._steps(labels.shape[1])
        hits = _cumulate(labels, self._counts[:steps])
        statistic, by_count = self._statistic(hits)
        shortest = self._decisive if self._decisive < steps else 0
        at = shortest + int(by_count[0, shortest:].argmax())
        count, k = int(self._counts[at]), int(hits[0, at])
        p_count = float(hypergeometric_tail(k, self.n_train, self.n_holdout, count))
        return Enrichment(float(self._p(statistic, steps)[0]), float(statistic[0]), count, k, p_count)

    def p_values(self, in_train: Bools) -> Floats:
        """Test many rankings of one length.

        Args:
            in_train: [R, M], one ranking per row.

        Returns:
            [R] p-values.
        """
        steps = self._steps(in_train.shape[1])
        statistic, _ = self._statistic(_cumulate(in_train, self._counts[:steps]))
        return self._p(statistic, steps)

    def smallest_count(self, alpha: float) -> int | None:
        """Find how many patients, all from train, must top the list before the test can reject; None if never."""
        for count in self._counts[self._counts <= self.n_train].tolist():
            if self(np.ones(count, dtype=bool)).p <= alpha:
                return int(count)
        return None

    def _steps(self, length: int) -> int:
        steps = int(np.searchsorted(self._counts, length, side="right"))
        if steps == 0:
            raise Insufficient(
                f"only {length} patients are ranked, at least {self._counts[0]} are needed: add samples, or look "
                "whether the generator has collapsed"
            )
        return steps

    def _statistic(self, hits: Floats) -> tuple[Floats, Floats]:
        """Average likelihood ratio in logarithms: [R], and the share of each count in it: [R, J]."""
        counts = self._counts[: hits.shape[1]]
        terms = [
            hits * np.log((self.share + (1 - self.share) * purity) / self.share) + (counts - hits) * np.log(1 - purity)
            for purity in PURITIES
        ]
        by_count = np.logaddexp.reduce(terms, axis=0)
        total: Floats = np.logaddexp.reduce(by_count, axis=1) - np.log(len(PURITIES) * len(counts))
        return total, by_count

    def _p(self, statistic: Floats, steps: int) -> Floats:
        if steps not in self._nulls:
            self._nulls[steps] = np.sort(self._statistic(self._null_counts[:, :steps])[0])
        null = self._nulls[steps]
        at_least = null.size - np.searchsorted(null, statistic - _ROUNDING, side="left")
        return np.asarray((1.0 + at_least) / (1.0 + null.size), dtype=np.float64)


def _cumulate(labels: Bools, counts: npt.NDArray[np.int64]) -> Floats:
    return np.cumsum(labels, axis=1, dtype=np.float64)[:, counts - 1]
