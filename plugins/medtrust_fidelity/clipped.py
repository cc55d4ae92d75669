"""Clipped density and clipped coverage of synthetic against train."""

from __future__ import annotations

import math
from collections.abc import Mapping

from medtrust import Estimate, MetricInput, Null, Resolution, Result, stats
from medtrust.seeding import derive_seed
from medtrust_fidelity.comparison import Rows, compare_features, effect_se
from medtrust_fidelity.options import whole

__all__ = ["ClippedShares"]

_POWER = 0.8
_RESULTS = {
    "density": ("fidelity.clipped_density", "Clipped density", "share of the synthetic images"),
    "coverage": ("diversity.clipped_coverage", "Clipped coverage", "share of ideal samples"),
}


class ClippedShares:
    """Which share of the synthetic images is as good as real, and which share of ideal ones would reach as far?"""

    def compute(self, data: MetricInput) -> Mapping[str, Result]:
        """Estimate both shares and their nulls at equal sample sizes.

        The option `k` sets which neighbour makes the radius (5).
        """
        k = whole(data, "clipped", "k", 5)
        sets = compare_features(data, least=2 * (k + 1))
        equal = sets.at_equal_size(data.seed)
        found = _infer(equal.train, equal.synthetic, data, k, "estimate")
        null = _infer(equal.null_train, equal.null_other, data, k, "null")
        results = {}
        for name, (result_id, title, unit) in _RESULTS.items():
            here, real = found[name], null[name]
            se = math.sqrt(2) * effect_se(real, data.level)
            smallest = min(real.value, stats.min_detectable(se, data.level, real.dof, _POWER))
            sentence = (
                f"With {len(equal.train)} train and {len(equal.synthetic)} synthetic images, a {title.lower()} less "
                f"than {smallest:.3g} below that of real images could not have been shown (power {_POWER:.0%}, from "
                "the delete-half standard error of real against real)."
            )
            results[result_id] = Result(
                estimate=Estimate(here.value, unit, "higher"),
                interval=here.interval,
                null=Null(sets.reference, real.value, real.interval),
                resolution=Resolution(smallest, _POWER, sentence),
                facts={"k": k, "n_train": len(equal.train), "n_synthetic": len(equal.synthetic)},
                notes=sets.notes,
                title=title,
            )
        return results


def _infer(real: Rows, other: Rows, data: MetricInput, k: int, part: str) -> Mapping[str, stats.Inference]:
    return stats.clipped_interval(
        real.values, other.values, real.patients, other.patients,
        k=k, level=data.level, seed=derive_seed(data.seed, part),
    )  # fmt: skip
