"""Numbers that others report for copying: they mix it up with fidelity, so they inform and never acquit."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import norm, rankdata

from medtrust.errors import Insufficient

__all__ = ["authentic", "closer_records", "copying_z", "fld_gap", "nearest_cell", "two_shares_p"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
_EM_STEPS = 40
_FLOOR = (
    1e-6  # of a component's spread, relative to that of train: a component on a train image would shrink to nothing
)


def authentic(distance: npt.ArrayLike, nearest: npt.ArrayLike, train_distance: npt.ArrayLike) -> Bools:
    """Tell samples that are farther from their nearest training image than that image is from its own.

    Args:
        distance: [m] distance of each sample j to its nearest training image i*.
        nearest: [m] index of i* for each sample.
        train_distance: [n] distance of each training image to its nearest other one, not of the same patient.

    Returns:
        [m] true where d(i*, its nearest) < d(j, i*).

    Reference: Alaa et al. 2022, arXiv:2102.08921, with the neighbour of i* looked up at i*.
    """
    own = np.asarray(train_distance, dtype=np.float64)[np.asarray(nearest, dtype=np.int64)]
    return np.asarray(own < np.asarray(distance, dtype=np.float64))


def two_shares_p(hits: int, n: int, reference_hits: int, reference_n: int) -> float:
    """One-sided p-value that a share is below a reference share, by the pooled normal approximation."""
    pooled = (hits + reference_hits) / (n + reference_n)
    spread = np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / reference_n))
    return float(norm.cdf((hits / n - reference_hits / reference_n) / spread)) if spread > 0 else 1.0


def nearest_cell(rows: torch.Tensor, centres: torch.Tensor) -> Ints:
    """Number the centre that is nearest to each row.

    Args:
        rows: [n, d].
        centres: [c, d].

    Returns:
        [n] in 0 … c - 1.
    """
    found: Ints = torch.cdist(rows.double(), centres.double()).argmin(dim=1).numpy()
    return found


def copying_z(
    synthetic: npt.ArrayLike,
    holdout: npt.ArrayLike,
    synthetic_cells: npt.ArrayLike,
    holdout_cells: npt.ArrayLike,
    smallest: int = 20,
) -> tuple[float, int]:
    """Compare distances to train by a rank test in every cell (C_T): below -3 is usually called data copying.

    Args:
        synthetic: [m] distance of each sample to train.
        holdout: [n] distance of each holdout image to train.
        synthetic_cells: [m] cell of each sample.
        holdout_cells: [n] cell of each holdout image.
        smallest: Cells with fewer samples or holdout images are left out.

    Returns:
        C_T, the mean of the cells' Z weighted by their share of holdout images, and how many cells took part.

    Raises:
        Insufficient: No cell has enough of both.

    Reference: Meehan, Chaudhuri and Dasgupta 2020, arXiv:2004.05675, section 4.
    """
    s, h = np.asarray(synthetic, dtype=np.float64), np.asarray(holdout, dtype=np.float64)
    cells_s, cells_h = np.asarray(synthetic_cells), np.asarray(holdout_cells)
    total, weight, used = 0.0, 0, 0
    for cell in np.unique(cells_h):
        inside, outside = s[cells_s == cell], h[cells_h == cell]
        m, n = len(inside), len(outside)
        if min(m, n) < smallest:
            continue
        above = rankdata(np.r_[inside, outside])[:m].sum() - m * (m + 1) / 2  # pairs in which the sample is farther
        total += n * (above - n * m / 2) / np.sqrt(n * m * (n + m + 1) / 12)
        weight, used = weight + n, used + 1
    if not used:
        raise Insufficient(f"no cell of the feature space holds {smallest} synthetic and {smallest} holdout images")
    return total / weight, used


def closer_records(synthetic: npt.ArrayLike, holdout: npt.ArrayLike, quantile: float = 0.05) -> tuple[float, float]:
    """Low quantiles of the distance to the closest training record, of samples and of holdout images (DCR).

    The usual rule calls a generator private if the first is at least the second.
    """
    low = [float(np.quantile(np.asarray(each, dtype=np.float64), quantile)) for each in (synthetic, holdout)]
    return low[0], low[1]


def fld_gap(train: torch.Tensor, holdout: torch.Tensor, synthetic: torch.Tensor) -> tuple[float, Floats, Floats]:
    """How much likelier train is than holdout under a mixture of Gaussians around the samples, fitted to train.

    Each sample is the centre of an isotropic Gaussian of equal weight; the spreads maximise the likelihood of train, by
    expectation-maximisation. A sample on top of a training image gets a small spread, which helps that image alone.

    Args:
        train: [n, d] features.
        holdout: [h, d].
        synthetic: [m, d].

    Returns:
        100/d times the difference of the mean log-likelihoods, and 100/d times the log-likelihood of each train [n] and
        of each holdout [h] image.

    Reference: Jiralerspong et al. 2023, arXiv:2302.04440, whose spreads come from gradient steps.
    """
    centres = synthetic.double()
    columns = centres.shape[1]
    squared = [torch.cdist(each.double(), centres).square() for each in (train, holdout)]
    typical = float(train.double().var(dim=0, correction=0).mean())
    if typical <= 0:
        raise Insufficient("all training images have the same features, so no likelihood can be fitted")
    log_var = torch.full((len(centres),), typical, dtype=torch.float64).log()

    def joint(distance: torch.Tensor) -> torch.Tensor:
        terms: torch.Tensor = distance / log_var.exp() + columns * (log_var + math.log(2 * math.pi))
        return -0.5 * terms

    for _ in range(_EM_STEPS):
        share = joint(squared[0]).softmax(dim=1)
        mass = share.sum(0)
        fitted = ((share * squared[0]).sum(0) / (columns * mass.clamp_min(1e-300))).clamp_min(_FLOOR * typical)
        log_var = torch.where(mass > 1e-12, fitted.log(), log_var)
    scale = 100 / columns
    likelihood = [(scale * (torch.logsumexp(joint(each), dim=1) - np.log(len(centres)))).numpy() for each in squared]
    return float(likelihood[0].mean() - likelihood[1].mean()), likelihood[0], likelihood[1]
