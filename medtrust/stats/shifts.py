"""The smallest shift of the mean that a sample could show."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from medtrust.stats.resampling import Patients, groups

__all__ = ["MeanNoise", "mean_noise"]

_ITERATIONS = 100  # of the power method; a direction among the noisiest will do, it need not be the noisiest


@dataclass(frozen=True, slots=True)
class MeanNoise:
    """Sampling noise of the difference of two sets' means.

    Args:
        typical: Its variance along a direction drawn like the noise itself, tr V² / tr V.
        largest: Its variance along `direction`.
        direction: [d] unit vector along which it is largest, or nearly so; zero without noise.
    """

    typical: float
    largest: float
    direction: torch.Tensor


def mean_noise(a: torch.Tensor, b: torch.Tensor, patients_a: Patients = None, patients_b: Patients = None) -> MeanNoise:
    """Estimate how much the difference of the means of two sets varies from sample to sample of patients.

    Args:
        a: Features [n, d].
        b: Features [m, d].
        patients_a: Patient of each row; None where each row is its own.
        patients_b: Likewise of b.
    """
    parts = torch.cat([_by_patient(a.double(), patients_a), _by_patient(b.double(), patients_b)])  # V = partsᵀ parts
    total = float(parts.square().sum())
    if total == 0:
        return MeanNoise(0.0, 0.0, parts.new_zeros(parts.shape[1]))
    gram = parts @ parts.T if len(parts) < parts.shape[1] else parts.T @ parts
    direction = parts[parts.square().sum(1).argmax()]
    for _ in range(_ITERATIONS):
        direction = parts.T @ (parts @ direction)
        direction = direction / direction.norm()
    return MeanNoise(float(gram.square().sum()) / total, float((parts @ direction).square().sum()), direction)


def _by_patient(x: torch.Tensor, patients: Patients) -> torch.Tensor:
    """What each patient adds to the error of the mean, [N, d]."""
    of_row, count = groups(patients, len(x))
    sums = x.new_zeros(count, x.shape[1]).index_add_(0, of_row.to(x.device), x - x.mean(0))
    correction: float = (count / max(1, count - 1)) ** 0.5
    return sums / len(x) * correction
