"""Precision, recall, density and coverage of synthetic against train."""

from __future__ import annotations

import math
from collections.abc import Mapping

from medtrust import Estimate, MetricInput, Null, Resolution, Result, stats
from medtrust.seeding import derive_seed
from medtrust_fidelity.comparison import Comparison, Rows, compare_features, effect_se
from medtrust_fidelity.options import chosen_convention, whole

__all__ = ["NeighbourShares"]

_POWER = 0.8
_RESULTS = {
    "precision": ("fidelity.precision", "Precision", "share of the synthetic images"),
    "recall": ("diversity.recall", "Recall", "share of the train images"),
    "density": ("fidelity.density", "Density", "density"),
    "coverage": ("diversity.coverage", "Coverage", "share of the train images"),
}


class NeighbourShares:
    """Do the synthetic images lie among the real ones, and do they reach all of them?"""

    def compute(self, data: MetricInput) -> Mapping[str, Result]:
        """Estimate the four shares and their nulls at equal sample sizes, on which they depend.

        The option `k` sets which neighbour makes the radius (5); `convention = "kynkaanniemi"` adds precision and
        recall with k = 3 and closed balls, of all images whatever their patients.
        """
        k = whole(data, "prdc", "k", 5)
        sets = compare_features(data, least=2 * (k + 1))
        equal = sets.at_equal_size(data.seed)
        found = _infer(equal.train, equal.synthetic, data, k, "estimate")
        null = _infer(equal.null_train, equal.null_other, data, k, "null")
        everything = stats.manifold(
            sets.train.values, sets.synthetic.values, sets.train.patients, sets.synthetic.patients, k=k
        )
        theirs = None
        if chosen_convention(data, "prdc") == "kynkaanniemi":
            theirs = stats.manifold(sets.train.values, sets.synthetic.values, convention="kynkaanniemi")
        results = {}
        for name, (result_id, title, unit) in _RESULTS.items():
            here, real = found[name], null[name]
            results[result_id] = Result(
                estimate=Estimate(here.value, unit, "higher"),
                interval=here.interval,
                null=Null(sets.reference, real.value, real.interval),
                resolution=_resolution(name, real, equal, data.level),
                facts={
                    "k": k,
                    "n_train": len(equal.train),
                    "n_synthetic": len(equal.synthetic),
                    "all_images": getattr(everything, name),
                    "n_synthetic_all": len(sets.synthetic),
                    **({"kynkaanniemi": getattr(theirs, name)} if theirs and name in ("precision", "recall") else {}),
                },
                notes=sets.notes + _limits(sets, equal),
                title=title,
            )
        return results


def _infer(real: Rows, other: Rows, data: MetricInput, k: int, part: str) -> Mapping[str, stats.Inference]:
    return stats.manifold_interval(
        real.values, other.values, real.patients, other.patients,
        k=k, level=data.level, seed=derive_seed(data.seed, part),
    )  # fmt: skip


def _resolution(name: str, null: stats.Inference, equal: Comparison, level: float) -> Resolution:
    growth = 0.0 if name == "density" else _growth(null)
    se = math.sqrt(2) * effect_se(null, level)
    smallest = min(null.value, stats.min_detectable(se, level, null.dof, _POWER, growth))
    sentence = (
        f"With {len(equal.train)} train and {len(equal.synthetic)} synthetic images, {name} less than {smallest:.3g} "
        f"below that of real images could not have been shown (power {_POWER:.0%}, from the delete-half standard "
        "error of real against real)."
    )
    return Resolution(smallest, _POWER, sentence)


def _growth(null: stats.Inference) -> float:
    """Variance that a share p, with p(1-p)/n, gains per unit as it falls towards 1/2."""
    units = null.interval.n_units
    smooth = (null.value * units + 1) / (units + 2)  # shares of 0 and 1 have a binomial variance too
    effective = units if null.se == 0 else min(units, max(1.0, smooth * (1 - smooth) / null.se**2))
    return max(0.0, 2 * smooth - 1) / effective


def _limits(sets: Comparison, equal: Comparison) -> tuple[str, ...]:
    notes = []
    if len(equal.synthetic) < len(sets.synthetic) or len(equal.train) < len(sets.train):
        notes.append(
            f"the shares depend on the sample sizes, so {len(equal.train)} train and {len(equal.synthetic)} synthetic "
            "images are used, as many as in the null; all_images is the share when all of them are"
        )
    if len(set(equal.train.patients)) < len(equal.train):
        notes.append("neighbours of the same patient do not count")
    return tuple(notes)
