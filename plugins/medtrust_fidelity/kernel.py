"""What a kernel distance could have shown: the resolution that `kid`, `mmd` and the spectra share."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

from medtrust import Resolution, stats
from medtrust_fidelity.comparison import Comparison, Rows

__all__ = ["POWER", "detectable", "kernel_resolution"]

POWER = 0.8
Infer = Callable[[Rows, Rows], stats.Inference]


def detectable(null: stats.Inference, equal: Comparison, infer: Infer, level: float) -> float:
    """Kernel distance that a shift of the mean must add to be seen.

    A planted shift tells how the distance and its variance grow with the square of the shift. The shift that is seen
    every other time follows, and one that is longer by z times the noise of the mean is seen with the wanted power:
    the distance itself is too skew for that step.

    Args:
        null: Distance of real from real.
        equal: The comparison that it is of.
        infer: Estimates the distance of one set from another.
        level: Confidence level.
    """
    real, other = equal.null_train, equal.null_other
    noise = stats.mean_noise(real.values, other.values, real.patients, other.patients)
    size = 4 * math.sqrt(noise.largest)
    planted = [infer(real, Rows(other.values + sign * size * noise.direction, other.patients)) for sign in (1, -1)]
    gained = sum(one.value for one in planted) / 2 - null.value
    if gained <= 0:
        return stats.min_detectable(null.se, level, null.dof, POWER)
    growth = max(0.0, sum(one.se**2 for one in planted) / 2 - null.se**2) / gained
    seen_by_half = stats.min_detectable(null.se, level, null.dof, 0.5, growth)
    shift = math.sqrt(seen_by_half / gained) * size + NormalDist().inv_cdf(POWER) * math.sqrt(noise.largest)
    return gained * (shift / size) ** 2


def kernel_resolution(null: stats.Inference, equal: Comparison, infer: Infer, level: float) -> Resolution:
    """The smallest kernel distance, added by a shift of the mean, that could have been shown.

    Args:
        null: Distance of real from real.
        equal: The comparison that it is of.
        infer: Estimates the distance of one set from another.
        level: Confidence level.
    """
    smallest = detectable(null, equal, infer, level)
    sentence = (
        f"With {len(equal.null_train)} train and {len(equal.null_other)} other images, a shift of the mean that adds "
        f"less than {smallest:.3g} to the kernel distance of real from real could not have been shown (power "
        f"{POWER:.0%}; jackknife standard error of real against real and of a planted shift)."
    )
    return Resolution(smallest, POWER, sentence)
