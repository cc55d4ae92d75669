"""Histograms of intensities, each patient counting alike: what a Wasserstein distance needs of a set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from medtrust.stats.intervals import t_quantile
from medtrust.stats.resampling import Inference
from medtrust.stats.sufficient.folded import Folds, jackknife
from medtrust.types import Interval

__all__ = ["Histogram", "folded_wasserstein", "merged_bins"]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Sum of the patients' histograms.

    Args:
        units: Patients; no whole number where some count more than once.
        shares: [B] float64, Σ over patients of the share of the patient's pixels in each bin.
    """

    units: float
    shares: torch.Tensor

    def weighted(self, weight: float) -> Histogram:
        """The sum as if each patient were there `weight` times."""
        return Histogram(self.units * weight, self.shares * weight)

    @classmethod
    def merge(cls, parts: Sequence[Histogram]) -> Histogram:
        """Join disjoint sets, at least one, in the order given."""
        shares = parts[0].shares.clone()
        for part in parts[1:]:
            shares = shares + part.shares
        return cls(sum(part.units for part in parts), shares)


def merged_bins(occupied: torch.Tensor, least: int) -> torch.Tensor:
    """Where the content of each bin goes so that no bin speaks of fewer than `least` patients.

    A bin that too few patients reach is emptied into the nearest one towards the middle that enough patients reach.

    Args:
        occupied: [B] int64, patients with a pixel in each bin.
        least: Patients that a bin must be of.

    Returns:
        [B] int64, the bin that each bin's content is moved to.
    """
    target = torch.arange(len(occupied))
    full = (occupied >= least).nonzero().flatten()
    if not len(full):
        return torch.full_like(target, int(occupied.argmax()))
    middle = int(full[len(full) // 2])
    for b in range(len(occupied)):
        if 0 < int(occupied[b]) < least:
            inward = full[(full >= b) & (full <= middle)] if b <= middle else full[(full <= b) & (full >= middle)]
            target[b] = (inward.min() if b <= middle else inward.max()) if len(inward) else middle
    return target


def folded_wasserstein(a: Folds[Histogram], b: Folds[Histogram], width: float, *, level: float = 0.95) -> Inference:
    """Bracket the Wasserstein-1 distance between two average distributions of intensities.

    The plug-in is biased upwards; the distance between the means is never above that between the distributions.

    Args:
        a: Histograms of one set by site and fold.
        b: Likewise of the other.
        width: Width of a bin in physical units.
        level: Confidence level.

    Raises:
        Insufficient: Neither folds nor sites enough for an interval.
    """

    def distances(*sets: Sequence[Histogram]) -> tuple[float, float]:
        x, y = (Histogram.merge(parts) for parts in sets)
        gap = (x.shares / x.units - y.shares / y.units).cumsum(0)
        return float(gap.abs().sum()) * width, abs(float(gap.sum())) * width

    found = jackknife((a, b), distances)
    value, means = found.value.tolist()
    t = t_quantile(level, found.dof)
    lo, hi = max(0.0, means - t * float(found.se[1])), value + t * float(found.se[0])
    method = f"mean-to-plug-in bracket, delete-a-{found.by} t"
    interval = Interval(min(lo, value), hi, level, method, min(a.units, b.units))
    return Inference(value=value, plug_in=value, se=float(found.se[0]), interval=interval, dof=found.dof)
