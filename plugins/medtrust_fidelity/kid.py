"""Kernel distance between the features of train and synthetic."""

from __future__ import annotations

import math
from statistics import NormalDist

from medtrust import Estimate, MetricInput, Null, Resolution, Result, stats
from medtrust.errors import ConfigError
from medtrust_fidelity.comparison import Comparison, Rows, compare_features

__all__ = ["KernelDistance"]

_POWER = 0.8


class KernelDistance:
    """Is train further from synthetic than from other real images, without a bias at any sample size?"""

    def compute(self, data: MetricInput) -> Result:
        """Estimate the population's distance, its null, and what this sample size could have shown.

        The option `convention = "torch-fidelity"` adds that package's number, which needs 1000 images in each set.
        """
        sets = compare_features(data, least=3)
        equal = sets.at_equal_size(data.seed)
        found = _infer(sets.train, sets.synthetic, data.level)
        null = _infer(equal.null_train, equal.null_other, data.level)
        facts: dict[str, float | int | str | bool] = {
            "n_train": len(sets.train),
            "n_synthetic": len(sets.synthetic),
            "n_null": len(equal.null_other),
            "standard_error": found.se,
        }
        convention = data.options.get("convention", "u-statistic")
        if convention == "torch-fidelity":
            facts["torch_fidelity"] = stats.kid(sets.train.values, sets.synthetic.values, convention="torch-fidelity")
        elif convention != "u-statistic":
            raise ConfigError(f"the option convention is {convention!r}: give u-statistic or torch-fidelity")
        return Result(
            estimate=Estimate(found.value, "kernel", "lower"),
            interval=found.interval,
            null=Null(sets.reference, null.value, null.interval),
            resolution=_resolution(null, equal, data.level),
            facts=facts,
            notes=sets.notes,
        )


def _infer(real: Rows, other: Rows, level: float) -> stats.Inference:
    return stats.kid_interval(real.values, other.values, real.patients, other.patients, level=level)


def _resolution(null: stats.Inference, equal: Comparison, level: float) -> Resolution:
    real, other = equal.null_train, equal.null_other
    noise = stats.mean_noise(real.values, other.values, real.patients, other.patients)
    smallest = _detectable(null, real, other, noise, level)
    sentence = (
        f"With {len(real)} train and {len(other)} other images, a shift of the mean that adds less than {smallest:.3g} "
        f"to the kernel distance of real from real could not have been shown (power {_POWER:.0%}; jackknife standard "
        "error of real against real and of a planted shift)."
    )
    return Resolution(smallest, _POWER, sentence)


def _detectable(null: stats.Inference, real: Rows, other: Rows, noise: stats.MeanNoise, level: float) -> float:
    """Kernel distance that a shift of the mean must add to be seen.

    A planted shift tells how the distance and its variance grow with the square of the shift. The shift that is seen
    every other time follows, and one that is longer by z times the noise of the mean is seen with the wanted power:
    the distance itself is too skew for that step.
    """
    size = 4 * math.sqrt(noise.largest)
    planted = [
        _infer(real, Rows(other.values + sign * size * noise.direction, other.patients), level) for sign in (1, -1)
    ]
    gained = sum(one.value for one in planted) / 2 - null.value
    if gained <= 0:
        return stats.min_detectable(null.se, level, null.dof, _POWER)
    growth = max(0.0, sum(one.se**2 for one in planted) / 2 - null.se**2) / gained
    seen_by_half = stats.min_detectable(null.se, level, null.dof, 0.5, growth)
    shift = math.sqrt(seen_by_half / gained) * size + NormalDist().inv_cdf(_POWER) * math.sqrt(noise.largest)
    return gained * (shift / size) ** 2
