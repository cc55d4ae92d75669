"""Gaussian-kernel distance between the features of train and synthetic."""

from __future__ import annotations

import torch

from medtrust import Estimate, MetricInput, Null, Result, stats
from medtrust.errors import ConfigError
from medtrust.seeding import derive_seed
from medtrust_fidelity.comparison import Rows, compare_features, dominance_note
from medtrust_fidelity.kernel import kernel_resolution
from medtrust_fidelity.options import chosen_convention, number

__all__ = ["GaussianDistance"]


class GaussianDistance:
    """Do the whole distributions of the features differ, not only their first moments?"""

    def compute(self, data: MetricInput) -> Result:
        """Estimate MMD² under a Gaussian kernel whose width is the median distance within train.

        The option `bandwidth` sets the width; `convention = "cmmd"` adds that number, of features of unit length.
        """
        sets = compare_features(data, least=3)
        equal = sets.at_equal_size(data.seed)
        width = number(data, "mmd", "bandwidth")
        if width is None:
            width = stats.median_distance(sets.train.values, sets.train.patients, seed=derive_seed(data.seed, "width"))
        if width <= 0:
            raise ConfigError(f"the option bandwidth is {width}: give a number above 0, in units of the features")
        kernel = stats.gaussian(width)

        def infer(real: Rows, other: Rows) -> stats.Inference:
            return stats.mmd_interval(
                real.values, other.values, real.patients, other.patients, kernel=kernel, level=data.level
            )

        found = infer(sets.train, sets.synthetic)
        null = infer(equal.null_train, equal.null_other)
        facts: dict[str, float | int | str | bool] = {
            "bandwidth": width,
            "n_train": len(sets.train),
            "n_synthetic": len(sets.synthetic),
            "n_null": len(equal.null_other),
            "standard_error": found.se,
            "dominance": found.dominance or 0.0,
        }
        if chosen_convention(data, "mmd") == "cmmd":
            units = [torch.nn.functional.normalize(one.matrix, dim=1) for one in (data.train, data.synthetic)]
            facts["cmmd"] = stats.mmd_rbf(*units, convention="cmmd")
        return Result(
            estimate=Estimate(found.value, "kernel", "lower"),
            interval=found.interval,
            null=Null(sets.reference, null.value, null.interval),
            resolution=kernel_resolution(null, equal, infer, data.level),
            facts=facts,
            notes=sets.notes + dominance_note(found),
        )
