"""Two more views of the Fréchet distance: with infinitely many images, and as a share of real from real."""

from __future__ import annotations

import math

from medtrust import Estimate, MetricInput, Null, Resolution, Result, stats
from medtrust.seeding import derive_seed
from medtrust_fidelity.comparison import Rows, compare_features, dominance_note

__all__ = ["FrechetInfinity", "FrechetRatio"]

_POWER = 0.8


class FrechetInfinity:
    """Is train further from synthetic than from other real images, if there were infinitely many of each?"""

    def compute(self, data: MetricInput) -> Result:
        """Extrapolate the distance on 1/N, and its null."""
        sets = compare_features(data, least=16)
        equal = sets.at_equal_size(data.seed)
        found = _extrapolate(sets.train, sets.synthetic, data, "estimate")
        null = _extrapolate(equal.null_train, equal.null_other, data, "null")
        real, other = equal.null_train, equal.null_other
        noise = stats.mean_noise(real.values, other.values, real.patients, other.patients)
        smallest = stats.min_detectable(null.se, data.level, null.dof, _POWER, growth=4 * noise.typical)
        sentence = (
            f"With {len(real)} train and {len(other)} other images, a shift of the mean that adds less than "
            f"{smallest:.3g} to the distance of real from real could not have been shown (power {_POWER:.0%}; "
            "delete-half standard error of real against real, plus the noise of a mean shift)."
        )
        return Result(
            estimate=Estimate(found.value, "feature²", "lower"),
            interval=found.interval,
            null=Null(sets.reference, null.value, null.interval),
            resolution=Resolution(smallest, _POWER, sentence),
            facts={
                "n_train": len(sets.train),
                "n_synthetic": len(sets.synthetic),
                "n_null": len(other),
                "plug_in": found.plug_in,
                "null_plug_in": null.plug_in,
                "dominance": found.dominance or 0.0,
            },
            notes=(*sets.notes, *dominance_note(found)),
        )


def _extrapolate(real: Rows, other: Rows, data: MetricInput, part: str) -> stats.Inference:
    return stats.fd_infinity_interval(
        real.values, other.values, real.patients, other.patients,
        level=data.level, seed=derive_seed(data.seed, part),
    )  # fmt: skip


class FrechetRatio:
    """How many times nearer are other real images than synthetic ones?"""

    def compute(self, data: MetricInput) -> Result:
        """Divide the distance of real from real by that of train from synthetic, both at one sample size."""
        sets = compare_features(data, least=8)
        equal = sets.at_equal_size(data.seed)
        train, other = equal.train, equal.null_other
        found = _ratio(train, other, equal.synthetic, data, "estimate")
        halves = stats.split_patients(other.patients, len(other), derive_seed(data.seed, "null halves"))
        null = _ratio(train, other.take(halves[0]), other.take(halves[1]), data, "null")
        smallest = 1 - math.exp(-stats.min_detectable(null.se, data.level, null.dof, _POWER))
        sentence = (
            f"With {len(train)} train and {len(other)} other images, a ratio less than {smallest:.3g} below that of "
            f"real images could not have been shown (power {_POWER:.0%}, from the standard error of the logarithm "
            "between two halves of the other real images)."
        )
        return Result(
            estimate=Estimate(found.value, "ratio", "higher"),
            interval=found.interval,
            null=Null(f"{sets.reference}, between two halves of the latter", null.value, null.interval),
            resolution=Resolution(smallest, _POWER, sentence),
            facts={
                "n_train": len(train),
                "n_synthetic": len(equal.synthetic),
                "n_null": len(other),
                "plug_in": stats.frechet_distance(train.values, equal.synthetic.values),
                "null_plug_in": stats.frechet_distance(train.values, other.values),
                "dominance": found.dominance or 0.0,
            },
            notes=(*sets.notes, *dominance_note(found)),
        )


def _ratio(train: Rows, real: Rows, other: Rows, data: MetricInput, part: str) -> stats.Inference:
    """FD(train, real) / FD(train, other)."""
    three = (train, real, other)
    return stats.frechet_ratio(
        [one.values for one in three], [one.patients for one in three],
        level=data.level, seed=derive_seed(data.seed, part),
    )  # fmt: skip
