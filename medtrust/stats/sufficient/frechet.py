"""Fréchet distance between sets of which only moments by site and fold are known."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from medtrust.errors import Insufficient
from medtrust.stats.frechet import frechet_distance
from medtrust.stats.intervals import score_ends, t_quantile
from medtrust.stats.resampling import Inference
from medtrust.stats.sufficient.folded import Folds, jackknife
from medtrust.stats.sufficient.moments import Moments
from medtrust.types import Interval

__all__ = ["folded_frechet", "frechet_excess", "mean_noise_of"]


def folded_frechet(a: Folds[Moments], b: Folds[Moments], *, level: float = 0.95) -> Inference:
    """Estimate the population's Fréchet distance from moments, with an interval.

    The bias of the plug-in, about c/n, is read off from what leaving out folds does to it and is removed. Where only
    whole sites can be left out it cannot be told from differences between sites: then the value is the plug-in, and the
    lower end of the interval lies as much deeper as the distance grows by leaving sites out.

    Args:
        a: Moments of one set by site and fold.
        b: Likewise of the other.
        level: Confidence level.

    Raises:
        Insufficient: Neither folds nor sites enough for an interval, or a set of fewer than two rows.
    """

    def distance(*sets: Sequence[Moments]) -> tuple[float]:
        x, y = (Moments.merge(parts) for parts in sets)
        return (frechet_distance(x, y),)

    if min(sum(part.n for part in a.parts), sum(part.n for part in b.parts)) < 4:
        raise Insufficient("needs 4 images in each set for a Fréchet distance of moments")
    found = jackknife((a, b), distance)
    plug_in, se, bias = float(found.value[0]), float(found.se[0]), max(0.0, float(found.bias[0]))
    quantile = t_quantile(level, found.dof)
    units = min(a.units, b.units)
    if found.by == "fold":
        corrected = plug_in - bias
        value = max(0.0, corrected)
        lo, hi = score_ends(corrected, se, bias, quantile)
        method = "delete-a-fold by site, bias removed, score t"
    else:
        value, method = plug_in, "delete-a-site bracket, t"
        lo, hi = plug_in - bias - quantile * se, plug_in + quantile * se
    interval = Interval(min(max(0.0, lo), value), max(hi, value), level, method, units)
    return Inference(value=value, plug_in=plug_in, se=se, interval=interval, dof=found.dof)


def frechet_excess(
    train: Folds[Moments], holdout: Folds[Moments], synthetic: Folds[Moments], *, level: float = 0.95
) -> Inference:
    """How much further synthetic is from train than holdout is, in the population, with an interval.

    Args:
        train: Moments by site and fold, such as those of one site.
        holdout: Likewise.
        synthetic: Likewise.
        level: Confidence level.

    Raises:
        Insufficient: No folds to leave out: differences between sites would pass for bias.
    """

    def excess(*sets: Sequence[Moments]) -> tuple[float]:
        t, h, s = (Moments.merge(parts) for parts in sets)
        return (frechet_distance(t, s) - frechet_distance(t, h),)

    found = jackknife((train, holdout, synthetic), excess)
    if found.by != "fold":
        raise Insufficient("the excess needs two folds of patients in train and in holdout: bring more patients")
    plug_in, se = float(found.value[0]), float(found.se[0])
    value, reach = plug_in - float(found.bias[0]), t_quantile(level, found.dof) * se
    units = min(train.units, holdout.units)
    interval = Interval(value - reach, value + reach, level, "delete-a-fold by site, bias removed, t", units)
    return Inference(value=value, plug_in=plug_in, se=se, interval=interval, dof=found.dof)


def mean_noise_of(a: Folds[Moments], b: Folds[Moments]) -> float:
    """Variance of the difference of two means along a direction drawn like that noise, tr V² / tr V.

    Each patient counts as one draw, however many images there are: that promises no more than the patients hold.
    """
    total = _within(a) / a.units + _within(b) / b.units
    return float((total @ total).trace() / total.trace()) if float(total.trace()) > 0 else 0.0


def _within(folds: Folds[Moments]) -> torch.Tensor:
    """Covariance within sites, [d, d]."""
    sites = [Moments.merge(site) for site in folds.sites]
    return torch.stack([site.m2 for site in sites]).sum(0) / max(1, sum(site.n for site in sites) - len(sites))
