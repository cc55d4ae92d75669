"""Kernels between feature rows, and the width that a Gaussian one takes from the data."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from medtrust.errors import Insufficient
from medtrust.stats.resampling import Patients, groups, subsample

__all__ = ["Kernel", "gaussian", "linear", "median_distance", "polynomial"]

Kernel = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def polynomial(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The kernel of KID, (x·y/d + 1)³, between rows [n, d] and [m, d]."""
    base = (x @ y.T).div_(x.shape[1]).add_(1)
    return base.square().mul_(base)


def linear(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The kernel x·y/d, whose MMD² is the mean squared difference between the means of the features."""
    return x @ y.T / x.shape[1]


def gaussian(bandwidth: float) -> Kernel:
    """The kernel exp(-‖x-y‖²/(2·bandwidth²)).

    Args:
        bandwidth: Width in units of the features, above 0.
    """
    if not (math.isfinite(bandwidth) and bandwidth > 0):
        raise ValueError(f"the bandwidth is {bandwidth}: give a number above 0, in units of the features")
    scale = -0.5 / bandwidth**2

    def kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        squared = torch.addmm(x.square().sum(1)[:, None] + y.square().sum(1), x, y.T, alpha=-2)
        return squared.clamp_(min=0).mul_(scale).exp_()

    return kernel


def median_distance(x: torch.Tensor, patients: Patients = None, *, most: int = 2000, seed: int = 0) -> float:
    """Median distance between rows of different patients, the usual bandwidth of a Gaussian kernel.

    Args:
        x: Features [n, d].
        patients: Patient of each row; None where each row is its own.
        most: Rows used; a seeded choice of patients where there are more.
        seed: Seed of that choice.

    Raises:
        Insufficient: One patient alone, or half of all distances are 0.
    """
    rows = subsample(patients, min(len(x), most), len(x), seed)
    of_row, count = groups(patients, len(x))
    if count < 2:
        raise Insufficient(f"needs 2 patients for a distance between patients, there is {count}")
    chosen, own = x[rows].double(), of_row[rows]
    centred = chosen - chosen.mean(0)
    distances = torch.cdist(centred, centred)[own[:, None] != own[None, :]]
    found = float(distances.median())
    if not found > 0:
        raise Insufficient(
            "half of all pairs of train images have equal features, so no bandwidth can be chosen: the features are "
            "constant or most images are duplicates"
        )
    return found
