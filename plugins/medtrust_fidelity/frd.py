"""Fréchet distance of radiomics features between train and synthetic."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from medtrust import Insufficient, MetricInput, Result, stats
from medtrust_fidelity.fd import FrechetDistance
from medtrust_fidelity.options import chosen_convention

__all__ = ["RadiomicsDistance", "frd_v1"]


class RadiomicsDistance:
    """Is train further from synthetic than from other real images, in what a person can measure?"""

    def compute(self, data: MetricInput) -> Result:
        """Estimate the Fréchet distance of the features, each divided by its standard deviation in train.

        The option `convention = "frd-v1"` adds the number of that convention on these features.
        """
        result = FrechetDistance().compute(data)
        if chosen_convention(data, "frd") != "frd-v1":
            return result
        facts = {**result.facts, "frd_v1": frd_v1(data.train.matrix, data.synthetic.matrix)}
        if data.holdout is not None:
            facts["null_frd_v1"] = frd_v1(data.train.matrix, data.holdout.matrix)
        return replace(result, facts=facts)


def frd_v1(train: torch.Tensor, other: torch.Tensor) -> float:
    """Logarithm of the Fréchet distance of features standardised by train, as frd-score computes its version 1.

    Args:
        train: Features [n, d] of the first set, whose mean and population standard deviation standardise both.
        other: Features [m, d] of the second set.

    Returns:
        The natural logarithm of the distance; features that are constant in train are left out.

    Raises:
        Insufficient: Every feature is constant in train, or the distance is 0.

    Reference:
        Konz, Osuala et al. 2026, arXiv:2412.01496; the package frd-score, whose own features need pyradiomics.
    """
    train, other = train.double(), other.double()
    spread = train.std(0, correction=0)
    varied = spread > 0
    if not bool(varied.any()):
        raise Insufficient("every feature is constant in train, so nothing can be standardised by it")
    mean = train.mean(0)
    a, b = (((x - mean) / spread)[:, varied] for x in (train, other))
    distance = stats.frechet_distance(a, b)
    if not distance > 0:
        raise Insufficient("both sets have the same mean and covariance, so the distance has no logarithm")
    return math.log(distance)
