"""How well a score tells two sets apart: area under the ROC curve over folds, with the patient as the unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from scipy.stats import rankdata

from medtrust.errors import Insufficient
from medtrust.stats.intervals import korn_graubard, t_quantile
from medtrust.types import Interval

__all__ = ["Discrimination", "auc_test", "discriminate"]

Floats = npt.NDArray[np.float64]
_FEW = 5  # expected misranked patients below which the logit interval is replaced by an exact one


@dataclass(frozen=True, slots=True)
class Discrimination:
    """Area under the ROC curve, averaged over folds.

    Args:
        auc: 0.5 where the score tells nothing, 1 where every image of the first set scores higher.
        se: Standard error, given the scores.
        interval: Interval for `auc`.
    """

    auc: float
    se: float
    interval: Interval


def discriminate(
    scores: Sequence[Floats],
    first: Sequence[npt.NDArray[np.bool_]],
    patients: Sequence[Sequence[str]],
    level: float,
) -> Discrimination:
    """Estimate the area under the ROC curve of scores that were each given by a model that did not see the image.

    The variance is that of the placement values summed by patient, within each fold; folds are averaged. With several
    folds it is doubled: where nothing tells the sets apart, the model of fold a judged on b and the model of b judged
    on a err by the same inner product of chance differences, so that half of the folds' errors are repeats.

    Args:
        scores: Per fold, the scores [n], higher for the first set.
        first: Per fold, which images belong to the first set, [n].
        patients: Per fold, the patient of each image.
        level: Confidence level.

    Raises:
        Insufficient: A fold has fewer than two patients of either set.

    Reference:
        DeLong et al. 1988, doi:10.2307/2531595; Obuchowski 1997, doi:10.2307/2533958, for patients with several images;
        LeDell et al. 2015, doi:10.1214/15-EJS1035, for the average over folds.
    """
    values, variances, counts = [], [], []
    for s, y, who in zip(scores, first, patients, strict=True):
        owners = np.unique(np.asarray(who, dtype=object).astype(str), return_inverse=True)[1]
        present = [len(np.unique(owners[side])) for side in (y, ~y)]
        if min(present) < 2:
            raise Insufficient(f"a fold holds {min(present)} patients of one set: needs 2 in each")
        ranks = rankdata(s)
        n1, n0 = int(y.sum()), int((~y).sum())
        above = (ranks[y] - rankdata(s[y])) / n0  # share of the other set below each image, ties count half
        below = 1 - (ranks[~y] - rankdata(s[~y])) / n1
        auc = float(above.mean())
        variances.append(_clustered(above - auc, owners[y]) + _clustered(below - auc, owners[~y]))
        values.append(auc)
        counts.append(present)
    auc = float(np.mean(values))
    se = float(np.sqrt(_repeats(len(values)) * np.sum(variances))) / len(values)
    units = min(sum(c[0] for c in counts), sum(c[1] for c in counts))
    dof = max(units - len(values), 1)
    return Discrimination(auc, se, _interval(auc, se, units, level, dof))


def _repeats(folds: int) -> float:
    """Factor on the variance of a mean over folds whose models learned from each other's images."""
    return 2.0 if folds > 1 else 1.0


def _clustered(deviations: Floats, owners: npt.NDArray[np.int64]) -> float:
    """Variance of a mean whose terms are correlated within a patient."""
    sums = np.bincount(owners, weights=deviations)
    present = np.bincount(owners) > 0
    g = int(present.sum())
    return float((sums**2).sum()) / len(deviations) ** 2 * g / (g - 1)


def _interval(auc: float, se: float, units: int, level: float, dof: int) -> Interval:
    if se > 0 and min(auc, 1 - auc) * units >= _FEW:
        reach = t_quantile(level, dof) * se / (auc * (1 - auc))
        lo, hi = float(expit(logit(auc) - reach)), float(expit(logit(auc) + reach))
        return Interval(lo, hi, level, "placement values by patient, logit", units)
    lo, hi = korn_graubard(auc, se, units, level, dof)
    return Interval(min(lo, auc), max(hi, auc), level, "exact at the effective number of patients", units)


def auc_test(
    scores: Sequence[Floats],
    first: Sequence[npt.NDArray[np.bool_]],
    patients: Sequence[Sequence[str]],
    *,
    permutations: int,
    seed: int,
) -> float:
    """One-sided p-value of "the score does not tell the sets apart", by permuting the patients' labels in each fold.

    Args:
        scores: Per fold, the scores [n].
        first: Per fold, which images belong to the first set.
        patients: Per fold, the patient of each image; all images of a patient keep one label.
        permutations: How many relabellings.
        seed: Seed of the relabellings.

    Returns:
        (1 + relabellings with at least this mean area) / (1 + relabellings).

    Reference:
        Lopez-Paz and Oquab 2017, arXiv:1610.06545; Phipson and Smyth 2010, arXiv:1603.05766, for the added one.
    """
    rng = np.random.default_rng(seed)
    observed, drawn = 0.0, np.zeros(permutations)
    for s, y, who in zip(scores, first, patients, strict=True):
        owners = np.unique(np.asarray(who, dtype=object).astype(str), return_inverse=True)[1]
        g = int(owners.max()) + 1
        rank_sum = np.bincount(owners, weights=rankdata(s), minlength=g)
        size = np.bincount(owners, minlength=g).astype(np.float64)
        label = np.zeros(g)
        label[owners[y]] = 1.0
        observed += float(_area(label[None] @ rank_sum, label[None] @ size, len(s))[0])
        for start in range(0, permutations, 256):
            block = min(256, permutations - start)
            labels = rng.permuted(np.tile(label, (block, 1)), axis=1)
            drawn[start : start + block] += _area(labels @ rank_sum, labels @ size, len(s))
    chance = len(scores) / 2
    spread = chance + np.sqrt(_repeats(len(scores))) * (drawn - chance)  # as in the standard error of `discriminate`
    return (1 + int((spread >= observed - 1e-12).sum())) / (1 + permutations)


def _area(rank_sum: Floats, n1: Floats, n: int) -> Floats:
    area: Floats = (rank_sum - n1 * (n1 + 1) / 2) / np.maximum(n1 * (n - n1), 1.0)
    return area
