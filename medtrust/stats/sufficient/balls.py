"""Precision and density by site: how many images lie in the balls around one site's train images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from medtrust.errors import Insufficient
from medtrust.ops import nearest
from medtrust.stats.intervals import korn_graubard, t_quantile
from medtrust.stats.resampling import Inference, Patients, groups
from medtrust.types import Interval

__all__ = ["BallCounts", "site_shares"]


@dataclass(frozen=True, slots=True)
class BallCounts:
    """How many images of each fold lie in the balls around one site's train images.

    Args:
        n: [F] images of each fold.
        inside: [F] of them in at least one ball.
        balls: [F] balls around them, summed.
    """

    n: torch.Tensor
    inside: torch.Tensor
    balls: torch.Tensor

    @classmethod
    def of(cls, train: torch.Tensor, patients: Patients, folds: Sequence[torch.Tensor], k: int = 5) -> BallCounts:
        """Count; a ball reaches to the k-th nearest image of another patient.

        Args:
            train: [n, d] float64.
            patients: Patient of each row.
            folds: Rows [m, d] of each fold.
            k: Which neighbour sets the radius.

        Raises:
            Insufficient: A train image has fewer than k neighbours of other patients.

        Reference: Kynkäänniemi et al. 2019, arXiv:1904.06991; Naeem et al. 2020, arXiv:2002.09797.
        """
        of_row, _ = groups(patients, len(train))
        if len(train) - int(torch.bincount(of_row).max()) < k:
            raise Insufficient(f"needs {k} neighbours of other patients for every train image")
        radius = nearest(train, train, k, (of_row, of_row)).distances[:, -1]
        around = [(torch.cdist(rows, train) < radius).sum(1).double() for rows in folds]
        return cls(
            torch.tensor([float(len(each)) for each in around], dtype=torch.float64),
            torch.stack([(each > 0).double().sum() for each in around]),
            torch.stack([each.sum() for each in around]),
        )


def site_shares(
    sites: Sequence[BallCounts], weights: Sequence[float], units: int, *, shared: bool, k: int = 5, level: float = 0.95
) -> dict[str, Inference]:
    """Precision and density as means over the sites, weighted by their train patients.

    An image that lies in the balls of several sites counts at each of them, so this is the mean of the sites' own
    shares, not that of one pool: with fewer train images the balls are larger.

    Args:
        sites: Counts of each site.
        weights: Train patients of each site.
        units: Patients that were looked at.
        shared: Every site looked at the same images in the same folds, as at synthetic ones.
        k: As it was counted.
        level: Confidence level.
    """
    w = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    found = {}
    for name, scale in (("precision", 1.0), ("density", float(k))):
        per_fold = [(each.inside if name == "precision" else each.balls) / scale for each in sites]
        shares = torch.stack([part.sum() / each.n.sum() for part, each in zip(per_fold, sites, strict=True)])
        value = float(w @ shares)
        left = [
            (part.sum() - part) / (each.n.sum() - each.n) for part, each in zip(per_fold, sites, strict=True)
        ]  # per site, without each fold
        if shared:
            joined = (w[:, None] * torch.stack(left)).sum(0)
            variance = float(_spread(joined))
        else:
            variance = float(sum(weight**2 * _spread(one) for weight, one in zip(w, left, strict=True)))
        if len(sites) > 1:  # which train images make the balls: as the sites differ, heterogeneity included
            variance += float((w.square() * (shares - value).square()).sum()) * len(sites) / (len(sites) - 1)
        dof = max(1, len(sites) - 1) + (len(left[0]) - 1 if shared else sum(len(one) - 1 for one in left))
        se = math.sqrt(variance)
        if name == "precision":
            lo, hi = korn_graubard(value, se, units, level, dof)
            method = "delete-a-fold and between sites, Korn-Graubard"
        else:
            reach = t_quantile(level, dof) * se
            lo, hi, method = max(0.0, value - reach), value + reach, "delete-a-fold and between sites, t"
        interval = Interval(min(lo, value), max(hi, value), level, method, units, "image" if shared else "patient")
        found[name] = Inference(value=value, plug_in=value, se=se, interval=interval, dof=dof)
    return found


def _spread(left: torch.Tensor) -> torch.Tensor:
    count = len(left)
    if count < 2:
        return left.new_zeros(())
    return (count - 1) / count * (left - left.mean()).square().sum()
