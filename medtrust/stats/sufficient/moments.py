"""Count, mean and scatter of features: all that a Fréchet distance needs of a set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from medtrust.stats.resampling import Patients, groups

__all__ = ["Moments", "upper", "whole_matrix"]


@dataclass(frozen=True, slots=True)
class Moments:
    """Moments of a set of features; those of a union follow from those of its parts.

    Args:
        n: Rows; no whole number where some count more than once.
        units: Patients, likewise.
        mean: [d] float64.
        m2: [d, d] float64, Σ (x - mean)(x - mean)ᵀ.
    """

    n: float
    units: float
    mean: torch.Tensor
    m2: torch.Tensor

    @classmethod
    def of(cls, rows: torch.Tensor, patients: Patients = None) -> Moments:
        """Compute the moments of rows [n, d], n ≥ 1, in float64."""
        rows = rows.double()
        mean = rows.mean(0)
        centred = rows - mean
        return cls(len(rows), groups(patients, len(rows))[1], mean, centred.T @ centred)

    @classmethod
    def merge(cls, parts: Sequence[Moments]) -> Moments:
        """Join disjoint sets, at least one, pair after pair in the order given, by Chan's rule in float64.

        Reference: Chan, Golub and LeVeque 1983, doi:10.1080/00031305.1983.10483115.
        """
        n, units, mean, m2 = parts[0].n, parts[0].units, parts[0].mean.clone(), parts[0].m2.clone()
        for part in parts[1:]:
            total = n + part.n
            gap = part.mean - mean
            mean = mean + gap * (part.n / total)
            m2 = m2 + part.m2 + torch.outer(gap, gap) * (n * part.n / total)
            n, units = total, units + part.units
        return cls(n, units, mean, m2)

    def weighted(self, weight: float) -> Moments:
        """The moments as if each row were there `weight` times."""
        return Moments(self.n * weight, self.units * weight, self.mean, self.m2 * weight)

    @property
    def cov(self) -> torch.Tensor:
        """Covariance with divisor n - 1, [d, d]."""
        return self.m2 / (self.n - 1)

    def sums(self) -> tuple[float, torch.Tensor, torch.Tensor]:
        """Count, Σx [d] and Σxxᵀ [d, d]: what only has to be added. Centre the rows first, or digits are lost."""
        return float(self.n), self.mean * self.n, self.m2 + torch.outer(self.mean, self.mean) * self.n

    @classmethod
    def from_sums(cls, n: float, units: float, total: torch.Tensor, outer: torch.Tensor) -> Moments:
        """Undo `sums`; the count is rounded to a whole number."""
        count = round(n)
        mean = total / count
        return cls(count, round(units), mean, outer - torch.outer(mean, mean) * count)


def upper(matrices: torch.Tensor) -> torch.Tensor:
    """Upper triangles [..., d (d + 1) / 2] of symmetric matrices [..., d, d]."""
    i, j = torch.triu_indices(matrices.shape[-1], matrices.shape[-1])
    return matrices[..., i, j]


def whole_matrix(triangles: torch.Tensor, d: int) -> torch.Tensor:
    """Symmetric matrices [..., d, d] from their upper triangles."""
    i, j = torch.triu_indices(d, d)
    full = triangles.new_zeros((*triangles.shape[:-1], d, d))
    full[..., i, j] = triangles
    full[..., j, i] = triangles
    return full
