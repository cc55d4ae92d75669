"""Fréchet distance between the features of train and synthetic."""

from __future__ import annotations

from medtrust import Estimate, MetricInput, Null, Resolution, Result, stats
from medtrust.seeding import derive_seed
from medtrust_fidelity.comparison import Comparison, Rows, compare_features, dominance_note
from medtrust_fidelity.options import chosen_convention

__all__ = ["FrechetDistance"]

_POWER = 0.8


class FrechetDistance:
    """Is train further from synthetic than from other real images?"""

    def compute(self, data: MetricInput) -> Result:
        """Estimate the population's distance, its null, and what this sample size could have shown.

        The option `convention = "stylegan"` adds the plug-in with that code's divisor of the covariance.
        """
        sets = compare_features(data, least=4)
        equal = sets.at_equal_size(data.seed)
        found = _infer(sets.train, sets.synthetic, data, "estimate")
        null = _infer(equal.null_train, equal.null_other, data, "null")
        facts = _facts(sets, equal, found, null, data.seed)
        if chosen_convention(data, "fd") == "stylegan":
            facts["stylegan"] = stats.frechet_distance(sets.train.values, sets.synthetic.values, convention="stylegan")
        return Result(
            estimate=Estimate(found.value, "feature²", "lower"),
            interval=found.interval,
            null=Null(sets.reference, null.value, null.interval),
            resolution=_resolution(null, equal, data.level),
            facts=facts,
            notes=sets.notes + _limits(found, null) + dominance_note(found),
        )


def _infer(real: Rows, other: Rows, data: MetricInput, part: str) -> stats.FrechetInference:
    return stats.frechet_interval(
        real.values, other.values, real.patients, other.patients, level=data.level, seed=derive_seed(data.seed, part)
    )


def _resolution(null: stats.FrechetInference, equal: Comparison, level: float) -> Resolution:
    real, other = equal.null_train, equal.null_other
    noise = stats.mean_noise(real.values, other.values, real.patients, other.patients)
    # A shift v of the mean adds ‖v‖² to the distance, and 4‖v‖² times the noise along v to its variance.
    smallest = stats.min_detectable(null.se, level, null.dof, _POWER, growth=4 * noise.typical)
    sentence = (
        f"With {len(real)} train and {len(other)} other images, a shift of the mean that adds less than {smallest:.3g} "
        f"to the distance of real from real could not have been shown (power {_POWER:.0%}; delete-half standard error "
        "of real against real, plus the noise of a mean shift)."
    )
    return Resolution(smallest, _POWER, sentence)


def _facts(
    sets: Comparison, equal: Comparison, found: stats.FrechetInference, null: stats.FrechetInference, seed: int
) -> dict[str, float | int | str | bool]:
    at_null = stats.frechet_distance(equal.train.values, equal.synthetic.values)
    facts: dict[str, float | int | str | bool] = {
        "n_train": len(sets.train),
        "n_synthetic": len(sets.synthetic),
        "n_null": len(equal.null_other),
        "features": sets.train.values.shape[1],
        "rank": found.rank,
        "extrapolated": found.extrapolated,
        "plug_in": found.plug_in,
        "dominance": found.dominance or 0.0,
        "plug_in_at_null_size": at_null,
        "null_plug_in": null.plug_in,
    }
    if at_null > 0:
        facts["ratio"] = null.plug_in / at_null
    if found.extrapolated:
        real, other = sets.train, sets.synthetic
        facts["fd_infinity"] = stats.fd_infinity(
            real.values, other.values, real.patients, other.patients, seed=derive_seed(seed, "infinity")
        )
    return facts


def _limits(found: stats.FrechetInference, null: stats.FrechetInference) -> tuple[str, ...]:
    notes = []
    if not found.extrapolated:
        notes.append(
            f"{found.interval.n_units} patients in the smaller set are fewer than twice the {found.rank} directions of "
            "the features, so the distance is biased upwards and can only be bracketed: compare plug_in_at_null_size "
            "with null_plug_in"
        )
    elif not null.extrapolated:
        notes.append(
            f"the null has only {null.interval.n_units} patients, so it is biased upwards where the estimate is not: "
            "compare plug_in_at_null_size with null_plug_in"
        )
    return tuple(notes)
