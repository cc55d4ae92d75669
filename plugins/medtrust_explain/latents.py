"""What the latent code of an autoencoder means: which units are in use, what each does, which attribute it follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medtrust import Insufficient

__all__ = [
    "Disentanglement",
    "active_units",
    "dci",
    "disentanglement",
    "mutual_information_gap",
    "separated_attribute_predictability",
    "spearman_consistency",
    "traverse",
]

Floats = npt.NDArray[np.float64]
ACTIVE = 0.01  # variance over images above which a unit is in use
SIGMAS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
_BINS = 20
_PERMUTATIONS = 50


def active_units(mean: Tensor) -> npt.NDArray[np.int64]:
    """Units whose posterior mean varies over images by more than 0.01, the most active first.

    Args:
        mean: Posterior means [N, d].

    Reference:
        Burda et al. 2016, arXiv:1509.00519.
    """
    spread = mean.double().var(0).numpy()
    order = np.argsort(-spread, kind="stable")
    return order[spread[order] > ACTIVE]  # type: ignore[no-any-return]


def traverse(decode: Callable[[Tensor], Tensor], mean: Tensor, unit: int) -> Tensor:
    """Images along one unit at its mean and at one, two and three standard deviations to either side.

    Args:
        decode: Maps codes [N, d] to images.
        mean: Posterior means [N, d]; the other units stay at their mean.
        unit: Which unit moves.

    Returns:
        [7, C, H, W], from -3 to +3 standard deviations.
    """
    centre, spread = mean.mean(0), mean.std(0)
    codes = centre.repeat(len(SIGMAS), 1)
    codes[:, unit] += torch.tensor(SIGMAS, dtype=codes.dtype) * spread[unit]
    with torch.no_grad():
        return decode(codes)


def mutual_information_gap(codes: Floats, attributes: Floats) -> float:
    """Mean gap between the two units that tell most of an attribute, as a share of the attribute's entropy.

    Args:
        codes: [N, d].
        attributes: [N, a]; cut into 20 classes of equal counts, as the codes are.

    Returns:
        0 to 1; 1 where each attribute is told by one unit alone.

    Reference:
        Chen et al. 2018, arXiv:1802.04942.
    """
    known = [_classes(column) for column in codes.T]
    gaps = []
    for column in attributes.T:
        wanted = _classes(column)
        entropy = _entropy(np.bincount(wanted))
        told = np.sort([_information(k, wanted) for k in known])[::-1]
        if entropy > 0:
            gaps.append(float((told[0] - (told[1] if len(told) > 1 else 0.0)) / entropy))
    return float(np.mean(gaps)) if gaps else 0.0


def separated_attribute_predictability(codes: Floats, attributes: Floats) -> float:
    """Mean gap between the two units that predict an attribute best, by the R² of a line.

    Reference:
        Kumar et al. 2018, arXiv:1711.00848.
    """
    squared = _correlations(codes, attributes) ** 2  # [d, a]
    ordered = np.sort(squared, axis=0)[::-1]
    second = ordered[1] if len(ordered) > 1 else np.zeros(attributes.shape[1])
    return float((ordered[0] - second).mean())


def dci(codes: Floats, attributes: Floats, seed: int) -> tuple[float, float, float]:
    """Disentanglement, completeness and informativeness from the importances of a regression of each attribute.

    Args:
        codes: [N, d].
        attributes: [N, a].
        seed: Seed of split and trees.

    Returns:
        Disentanglement and completeness in [0, 1], and the mean R² on the quarter of the images held back.

    Reference:
        Eastwood and Williams 2018, openreview.net/forum?id=By-7dz-AZ; importances of a random forest.
    """
    from sklearn.ensemble import RandomForestRegressor

    n = len(codes)
    order = np.random.default_rng(seed).permutation(n)
    learn, judge = order[n // 4 :], order[: n // 4]
    weights, fits = [], []
    for column in attributes.T:
        forest = RandomForestRegressor(20, max_depth=6, random_state=seed % 2**31, n_jobs=1).fit(
            codes[learn], column[learn]
        )
        weights.append(forest.feature_importances_)
        fits.append(max(0.0, float(forest.score(codes[judge], column[judge]))))
    importance = np.array(weights).T  # [d, a]
    return (*_dci_of(importance), float(np.mean(fits)))


def _dci_of(importance: Floats) -> tuple[float, float]:
    total = importance.sum()
    if total <= 0:
        return 0.0, 0.0
    by_unit = np.array([_purity(row) for row in importance])
    by_attribute = np.array([_purity(column) for column in importance.T])
    return (
        float((by_unit * importance.sum(1)).sum() / total),
        float((by_attribute * importance.sum(0)).sum() / total),
    )


def spearman_consistency(codes: Floats, attributes: Floats) -> float:
    """Spearman correlation coefficient score: mean over attributes of the strongest rank correlation with any unit.

    Reference:
        Pati and Lerch 2021, doi:10.1007/s00521-020-05270-2 (attribute-regularised latent spaces).
    """
    from scipy.stats import rankdata

    ranks = (rankdata(codes, axis=0), rankdata(attributes, axis=0))
    return float(np.abs(_correlations(*ranks)).max(axis=0).mean())


def _purity(weights: Floats) -> float:
    """1 where one entry has all the weight, 0 where all have the same."""
    return 1 - _entropy(weights) / float(np.log(len(weights))) if weights.sum() > 0 and len(weights) > 1 else 0.0


@dataclass(frozen=True, slots=True)
class Disentanglement:
    """One measure with what it is for attributes that have nothing to do with the images.

    Args:
        value: The measure.
        null: Its mean over permuted attributes.
        upper: 95 % quantile over permuted attributes.
        p: (1 + permutations at least as large) / (1 + permutations).
    """

    value: float
    null: float
    upper: float
    p: float


def disentanglement(mean: Tensor, attributes: Tensor, seed: int) -> dict[str, Disentanglement]:
    """Measure how each attribute is held by the active units, against attributes permuted over the images.

    Args:
        mean: Posterior means [N, d].
        attributes: [N, a].
        seed: Seed of permutations and trees.

    Returns:
        "MIG", "SAP", "SCC", "DCI disentanglement", "DCI completeness" and "DCI informativeness".

    Raises:
        Insufficient: Fewer than 200 images, no active unit, or no attribute that varies.
    """
    if len(mean) < 200:
        raise Insufficient(f"the meaning of a code needs 200 images, there are {len(mean)}")
    units = active_units(mean)
    if not len(units):
        raise Insufficient(f"no unit varies over images by more than {ACTIVE}: the code is not used")
    codes = mean.double().numpy()[:, units]
    table = attributes.double().numpy()
    table = table[:, table.std(0) > 1e-9]
    if not table.shape[1]:
        raise Insufficient("no attribute varies over the images")
    rng = np.random.default_rng(seed)
    quick: dict[str, Callable[[Floats, Floats], float]] = {
        "MIG": mutual_information_gap,
        "SAP": separated_attribute_predictability,
        "SCC": spearman_consistency,
    }
    orders = [rng.permutation(len(table)) for _ in range(_PERMUTATIONS)]
    found = {
        name: _against(measure(codes, table), [measure(codes, table[order]) for order in orders])
        for name, measure in quick.items()
    }
    names = ("DCI disentanglement", "DCI completeness", "DCI informativeness")
    own = dci(codes, table, seed)
    permuted = [dci(codes, table[order], seed) for order in orders[:5]]  # forests are slow, and five set the level
    for i, name in enumerate(names):
        found[name] = _against(own[i], [p[i] for p in permuted])
    return found


def _against(value: float, permuted: list[float]) -> Disentanglement:
    drawn = np.array(permuted)
    p = (1 + int((drawn >= value).sum())) / (1 + len(drawn))
    return Disentanglement(value, float(drawn.mean()), float(np.quantile(drawn, 0.95)), p)


def _classes(column: Floats) -> npt.NDArray[np.int64]:
    cuts = np.unique(np.quantile(column, np.linspace(0, 1, _BINS + 1)[1:-1]))
    return np.searchsorted(cuts, column, side="right")  # type: ignore[return-value]


def _entropy(weights: Any) -> float:
    share = np.asarray(weights, float)
    share = share[share > 0] / share.sum()
    return float(-(share * np.log(share)).sum())


def _information(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> float:
    joint = np.zeros((int(a.max()) + 1, int(b.max()) + 1))
    np.add.at(joint, (a, b), 1)
    return _entropy(joint.sum(1)) + _entropy(joint.sum(0)) - _entropy(joint.ravel())


def _correlations(a: Floats, b: Floats) -> Floats:
    """Pearson correlation of each column of a with each of b, [d, a]."""
    x, y = a - a.mean(0), b - b.mean(0)
    scale = np.sqrt((x**2).sum(0))[:, None] * np.sqrt((y**2).sum(0))[None]
    found: Floats = np.divide(x.T @ y, scale, out=np.zeros_like(scale), where=scale > 0)
    return found
