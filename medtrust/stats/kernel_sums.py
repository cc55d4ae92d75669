"""Sums of kernel values by patient: what a kernel distance and its interval are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from medtrust.errors import Insufficient
from medtrust.stats.influence import dominance, effective_dof, jackknife_influence
from medtrust.stats.intervals import score_ends, t_quantile
from medtrust.stats.kernels import Kernel
from medtrust.stats.resampling import Inference, Patients, groups
from medtrust.types import Interval

__all__ = ["TILE", "KernelSums"]

TILE = 1024  # rows per side: 8 MiB of float64 per tile


@dataclass(frozen=True, slots=True)
class KernelSums:
    """Sums of kernel values by patient, from which the estimate and each leave-one-out estimate follow.

    Args:
        n_a: Rows of each patient of a, [N_a].
        within_a: The kernel of each patient's rows summed over the rows of other patients of a, [N_a].
        own_a: The kernel summed over pairs of rows of one patient of a, a row with itself included.
        cross_a: The kernel of each patient's rows summed over all rows of b, [N_a].
        n_b: Likewise of b.
        within_b: Likewise of b.
        own_b: Likewise of b.
        cross_b: Likewise of b.
    """

    n_a: torch.Tensor
    within_a: torch.Tensor
    own_a: torch.Tensor
    cross_a: torch.Tensor
    n_b: torch.Tensor
    within_b: torch.Tensor
    own_b: torch.Tensor
    cross_b: torch.Tensor

    @classmethod
    def of(
        cls, a: torch.Tensor, b: torch.Tensor, patients_a: Patients, patients_b: Patients, kernel: Kernel
    ) -> KernelSums:
        """Compute the sums tile by tile, without holding a matrix of pairs.

        Args:
            a: Features [n, d] float64.
            b: Features [m, d] float64.
            patients_a: Patient of each row; None where each row is its own.
            patients_b: Likewise of b.
            kernel: Maps rows [n, d] and [m, d] to kernel values [n, m].

        Raises:
            Insufficient: Fewer than two patients in a set.
        """
        of_a, count_a = groups(patients_a, len(a))
        of_b, count_b = groups(patients_b, len(b))
        of_a, of_b = of_a.to(a.device), of_b.to(b.device)
        cross_a, cross_b = a.new_zeros(len(a)), b.new_zeros(len(b))
        within = (*_within(a, of_a, count_a, kernel), *_within(b, of_b, count_b, kernel))
        for top in range(0, len(a), TILE):
            for left in range(0, len(b), TILE):
                tile = kernel(a[top : top + TILE], b[left : left + TILE])
                cross_a[top : top + TILE] += tile.sum(1)
                cross_b[left : left + TILE] += tile.sum(0)
        if min(count_a, count_b) < 2:
            raise Insufficient("needs 2 patients in each set for the kernel distance, a set has one")
        return cls(
            *within[:3], _by_patient(cross_a, of_a, count_a), *within[3:], _by_patient(cross_b, of_b, count_b)
        )  # fmt: skip

    def inference(self, level: float) -> Inference:
        """Estimate and score interval, see `mmd_interval`.

        Raises:
            Insufficient: Fewer than three patients in a set.
        """
        units = min(len(self.n_a), len(self.n_b))
        if units < 3:
            raise Insufficient(
                f"needs 3 patients in each set for an interval of the kernel distance, a set has {units}"
            )
        value = self.estimate()
        influences = [jackknife_influence(left) for left in (self.without_each_of_a(), self.without_each_of_b())]
        se = math.sqrt(sum(float(one.square().sum()) for one in influences))
        dof = min(units - 1.0, effective_dof(*influences))
        lo, hi = score_ends(value, se, self.with_own_pairs() - value, t_quantile(level, dof))
        interval = Interval(lo, hi, level, "delete-one-patient jackknife, score t", units)
        return Inference(
            value=value, plug_in=value, se=se, interval=interval, dof=dof, dominance=dominance(*influences)
        )

    def estimate(self) -> float:
        """MMD² over pairs of different patients."""
        return float(
            self.within_a.sum() / _pairs(self.n_a)
            + self.within_b.sum() / _pairs(self.n_b)
            - 2 * self.cross_a.sum() / (self.n_a.sum() * self.n_b.sum())
        )

    def with_own_pairs(self) -> float:
        """MMD² over all pairs: the squared distance between the mean embeddings, biased upwards by their noise."""
        return float(
            (self.within_a.sum() + self.own_a) / self.n_a.sum().square()
            + (self.within_b.sum() + self.own_b) / self.n_b.sum().square()
            - 2 * self.cross_a.sum() / (self.n_a.sum() * self.n_b.sum())
        )

    def without_each_of_a(self) -> torch.Tensor:
        """Estimates [N_a], each without one patient of a."""
        return _left_out(self.within_a, self.n_a, self.cross_a, self.n_b) + self.within_b.sum() / _pairs(self.n_b)

    def without_each_of_b(self) -> torch.Tensor:
        """Estimates [N_b], each without one patient of b."""
        return _left_out(self.within_b, self.n_b, self.cross_b, self.n_a) + self.within_a.sum() / _pairs(self.n_a)


def _by_patient(values: torch.Tensor, of_row: torch.Tensor, count: int) -> torch.Tensor:
    return values.new_zeros(count).index_add_(0, of_row, values)


def _within(
    x: torch.Tensor, of_row: torch.Tensor, count: int, kernel: Kernel
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows per patient [N], per patient [N] the kernel summed over pairs with others, and its sum over all the rest."""
    rows, own = x.new_zeros(len(x)), x.new_zeros(())
    for top in range(0, len(x), TILE):
        for left in range(0, len(x), TILE):
            tile = kernel(x[top : top + TILE], x[left : left + TILE])
            same = of_row[top : top + TILE, None] == of_row[None, left : left + TILE]
            own += tile[same].sum()
            tile[same] = 0
            rows[top : top + TILE] += tile.sum(1)
    return _by_patient(torch.ones_like(rows), of_row, count), _by_patient(rows, of_row, count), own


def _pairs(n: torch.Tensor) -> torch.Tensor:
    """Ordered pairs of rows of different patients."""
    return n.sum().square() - n.square().sum()


def _left_out(within: torch.Tensor, n: torch.Tensor, cross: torch.Tensor, n_other: torch.Tensor) -> torch.Tensor:
    """Own and cross term of the estimate without each patient in turn, [N]."""
    pairs = _pairs(n) - 2 * n * (n.sum() - n)
    return (within.sum() - 2 * within) / pairs - 2 * (cross.sum() - cross) / ((n.sum() - n) * n_other.sum())
