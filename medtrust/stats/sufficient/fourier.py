"""Sums of random Fourier features: what a Gaussian kernel distance needs of a set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from medtrust.errors import Insufficient
from medtrust.stats.intervals import score_ends, t_quantile
from medtrust.stats.resampling import Inference, Patients, groups
from medtrust.stats.sufficient.folded import Folds, jackknife
from medtrust.types import Interval

__all__ = ["FourierSums", "folded_mmd", "fourier_features"]


def fourier_features(rows: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
    """Map rows [n, d] to [n, 2q] whose inner products are, on average over the frequencies, a Gaussian kernel.

    Args:
        rows: Features, float64.
        frequencies: [q, d], normal draws over the bandwidth.

    Reference: Rahimi and Recht 2007, Random features for large-scale kernel machines, NIPS 20.
    """
    angles = rows @ frequencies.T
    return torch.cat([angles.cos(), angles.sin()], dim=1) / math.sqrt(len(frequencies))


@dataclass(frozen=True, slots=True)
class FourierSums:
    """Sums over a set; those of a union are the sums of those of its parts.

    Args:
        n: Rows; no whole number where some count more than once.
        units: Patients, likewise.
        total: [2q] float64, Σφ.
        own: Σ over patients of ‖Σφ of the patient's rows‖²: the kernel over pairs of rows of one patient.
        pairs: Σ over patients of the squared number of rows.
    """

    n: float
    units: float
    total: torch.Tensor
    own: float
    pairs: float

    @classmethod
    def of(cls, features: torch.Tensor, patients: Patients = None) -> FourierSums:
        """Sum features [n, 2q] up."""
        of_row, count = groups(patients, len(features))
        sums = features.new_zeros(count, features.shape[1]).index_add_(0, of_row, features)
        sizes = torch.bincount(of_row, minlength=count).double()
        return cls(len(features), count, features.sum(0), float(sums.square().sum()), float(sizes.square().sum()))

    def weighted(self, weight: float) -> FourierSums:
        """The sums as if each row counted `weight` times; a pair of rows then counts its square."""
        square = weight * weight
        return FourierSums(
            self.n * weight, self.units * weight, self.total * weight, self.own * square, self.pairs * square
        )  # fmt: skip

    @classmethod
    def merge(cls, parts: Sequence[FourierSums]) -> FourierSums:
        """Join disjoint sets, at least one, in the order given."""
        total = parts[0].total.clone()
        for part in parts[1:]:
            total = total + part.total
        return cls(
            sum(part.n for part in parts), sum(part.units for part in parts), total,
            sum(part.own for part in parts), sum(part.pairs for part in parts),
        )  # fmt: skip


def _distances(a: FourierSums, b: FourierSums) -> tuple[float, float]:
    """MMD² over pairs of different patients, and over all pairs."""
    squares = [float(each.total.square().sum()) for each in (a, b)]
    cross = float(a.total @ b.total) / (a.n * b.n)
    apart = sum((s - each.own) / (each.n**2 - each.pairs) for s, each in zip(squares, (a, b), strict=True))
    every = sum(s / each.n**2 for s, each in zip(squares, (a, b), strict=True))
    return apart - 2 * cross, every - 2 * cross


def folded_mmd(a: Folds[FourierSums], b: Folds[FourierSums], *, level: float = 0.95) -> Inference:
    """Estimate MMD² under the kernel that the Fourier features stand for, with an interval.

    Args:
        a: Sums of one set by site and fold.
        b: Likewise of the other.
        level: Confidence level.

    Raises:
        Insufficient: Fewer than three patients in a set, or neither folds nor sites enough for an interval.
    """
    units = min(a.units, b.units)
    if units < 3:
        raise Insufficient(f"needs 3 patients in each set for the kernel distance, a set has {units}")
    found = jackknife((a, b), lambda x, y: _distances(FourierSums.merge(x), FourierSums.merge(y)))
    value, with_own = found.value.tolist()
    lo, hi = score_ends(value, float(found.se[0]), with_own - value, t_quantile(level, found.dof))
    interval = Interval(lo, hi, level, f"delete-a-{found.by}, score t", units)
    return Inference(value=value, plug_in=value, se=float(found.se[0]), interval=interval, dof=found.dof)
