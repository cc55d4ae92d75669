"""Kernel distances: unbiased MMD² with the polynomial kernel of KID, a Gaussian one as in CMMD, or a linear one."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from medtrust.errors import Insufficient
from medtrust.ops import mmd
from medtrust.stats.kernel_sums import TILE, KernelSums
from medtrust.stats.kernels import Kernel, gaussian, polynomial
from medtrust.stats.resampling import Inference, Patients

__all__ = ["CMMD_BANDWIDTH", "CMMD_SCALE", "kid", "kid_interval", "mmd_interval", "mmd_rbf"]

CMMD_BANDWIDTH, CMMD_SCALE = 10.0, 1000.0  # of CMMD, for embeddings of unit length


def kid(
    a: torch.Tensor,
    b: torch.Tensor,
    patients_a: Patients = None,
    patients_b: Patients = None,
    *,
    convention: Literal["u-statistic", "torch-fidelity"] = "u-statistic",
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 2020,
) -> float:
    """Squared maximum mean discrepancy under k(x, y) = (x·y/d + 1)³, unbiased.

    Args:
        a: Features [n, d].
        b: Features [m, d].
        patients_a: Patient of each row; pairs of the same patient are left out of the term within a set, as pairs of
            a row with itself are. None where each row is its own patient.
        patients_b: Likewise of b.
        convention: "u-statistic" uses every pair once; "torch-fidelity" averages over random subsets of rows, whatever
            the patients, as that package does (its defaults are the defaults here).
        subsets: Subsets under the second convention.
        subset_size: Rows per subset under the second convention.
        seed: Seed of the subsets.

    Returns:
        The estimate; slightly below 0 where the sets are alike.

    Raises:
        Insufficient: Fewer than two patients in a set, or fewer rows than `subset_size`.
        ValueError: The widths differ, or the convention is unknown.

    Reference:
        Bińkowski et al. 2018, arXiv:1801.01401; Gretton et al. 2012, JMLR 13.
    """
    if convention == "torch-fidelity":
        checked = _checked(a, b)
        kept = a.dtype == b.dtype == torch.float32  # the kernel reads these as they are, in half the time
        return _over_subsets(*((a, b) if kept else checked), subsets, subset_size, seed)
    if convention != "u-statistic":
        raise ValueError(f"convention {convention!r} is unknown: use 'u-statistic' or 'torch-fidelity'")
    return KernelSums.of(*_checked(a, b), patients_a, patients_b, polynomial).estimate()


def kid_interval(
    a: torch.Tensor,
    b: torch.Tensor,
    patients_a: Patients = None,
    patients_b: Patients = None,
    *,
    level: float = 0.95,
) -> Inference:
    """Estimate the population's kernel distance under the kernel of KID; see `mmd_interval`."""
    return mmd_interval(a, b, patients_a, patients_b, kernel=polynomial, level=level)


def mmd_rbf(
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    bandwidth: float = CMMD_BANDWIDTH,
    convention: Literal["u-statistic", "cmmd"] = "u-statistic",
) -> float:
    """Squared maximum mean discrepancy under a Gaussian kernel, every row its own patient.

    Args:
        a: Features [n, d].
        b: Features [m, d].
        bandwidth: Width of the kernel in units of the features.
        convention: "u-statistic" is unbiased; "cmmd" keeps each row's pair with itself and multiplies by 1000, as the
            CMMD of Jayasumana et al. does, who use embeddings of unit length.

    Raises:
        Insufficient: Fewer than two rows in a set, or a value that is not finite.
        ValueError: The widths differ, or the convention is unknown.

    Reference:
        Jayasumana et al. 2024, arXiv:2401.09603.
    """
    a, b = _checked(a, b)
    sums = KernelSums.of(a, b, None, None, gaussian(bandwidth))
    if convention == "u-statistic":
        return sums.estimate()
    if convention != "cmmd":
        raise ValueError(f"convention {convention!r} is unknown: use 'u-statistic' or 'cmmd'")
    n, m = len(a), len(b)  # k(x, x) = 1
    within = (sums.within_a.sum() + n) / n**2 + (sums.within_b.sum() + m) / m**2
    return float(CMMD_SCALE * (within - 2 * sums.cross_a.sum() / (n * m)))


def mmd_interval(
    a: torch.Tensor,
    b: torch.Tensor,
    patients_a: Patients = None,
    patients_b: Patients = None,
    *,
    kernel: Kernel = polynomial,
    level: float = 0.95,
) -> Inference:
    """Estimate the population's MMD², with an interval from leaving out one patient at a time.

    Every leave-one-out estimate follows from the sums of kernel values per patient, so the interval costs no more than
    the estimate. The standard error belongs to the distance that is asked about, see `score_ends`.

    Args:
        a: Features [n, d].
        b: Features [m, d].
        patients_a: Patient of each row; None where each row is its own.
        patients_b: Likewise of b.
        kernel: Maps rows [n, d] and [m, d] to kernel values [n, m].
        level: Confidence level.

    Raises:
        Insufficient: Fewer than three patients in a set.

    Reference:
        Gretton et al. 2012, JMLR 13 (the estimate); Arvesen 1969, doi:10.1214/aoms/1177697287 (jackknife of
        U-statistics).
    """
    return KernelSums.of(*_checked(a, b), patients_a, patients_b, kernel).inference(level)


def _over_subsets(a: torch.Tensor, b: torch.Tensor, subsets: int, size: int, seed: int) -> float:
    """Mean estimate over random subsets of rows, drawn as torch-fidelity draws them; no matrix of pairs is held.

    Many subsets of few rows hold the same pairs again and again: then each pair's kernel is computed once and counted
    as often as a subset holds it. Few subsets of many rows are gathered one by one.
    """
    least = min(len(a), len(b))
    if least < size:
        raise Insufficient(f"needs {size} samples in each set for its subsets, a set has {least}")
    if size < 2:
        raise Insufficient(f"needs 2 samples in each subset for the kernel distance, subset_size is {size}")
    draw = np.random.RandomState(seed)
    chosen = [[torch.from_numpy(draw.choice(len(x), size, replace=False)) for x in (a, b)] for _ in range(subsets)]
    if (len(a) + len(b)) ** 2 >= subsets * (2 * size) ** 2:
        return float(np.mean([mmd(a[i], b[j]) for i, j in chosen]))
    a, b = a.double(), b.double()
    of_a, of_b = (_membership(rows, [pair[k] for pair in chosen]) for k, rows in enumerate((a, b)))
    within = _weighted(a, a, of_a, of_a, same=True) + _weighted(b, b, of_b, of_b, same=True)
    across = _weighted(a, b, of_a, of_b, same=False)
    return (within / (size * (size - 1)) - 2 * across / size**2) / subsets


def _membership(rows: torch.Tensor, chosen: list[torch.Tensor]) -> torch.Tensor:
    """Whether each row is in each subset, [n, subsets] as 0 and 1."""
    table = rows.new_zeros((len(rows), len(chosen)))
    for s, members in enumerate(chosen):
        table[members.to(rows.device), s] = 1
    return table


def _weighted(x: torch.Tensor, y: torch.Tensor, of_x: torch.Tensor, of_y: torch.Tensor, *, same: bool) -> float:
    """The kernel summed over the pairs of each subset and over the subsets; where `same`, over different rows."""
    total = 0.0
    for top in range(0, len(x), TILE):
        for left in range(top if same else 0, len(y), TILE):
            tile = polynomial(x[top : top + TILE], y[left : left + TILE])
            if same and left == top:
                tile.fill_diagonal_(0)
            part = float(((tile @ of_y[left : left + TILE]) * of_x[top : top + TILE]).sum())
            total += 2 * part if same and left > top else part
    return total


def _checked(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = a.double(), b.double()
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"features of width {a.shape[1]} cannot be compared with features of width {b.shape[1]}")
    if not bool(a.isfinite().all() and b.isfinite().all()):
        raise Insufficient(
            "the features hold values that are not finite: look for broken images or a failing extractor"
        )
    return a, b
