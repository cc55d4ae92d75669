"""Kernel distance between the features of train and synthetic."""

from __future__ import annotations

from medtrust import Estimate, MetricInput, Null, Result, stats
from medtrust_fidelity.comparison import Rows, compare_features, dominance_note
from medtrust_fidelity.kernel import kernel_resolution
from medtrust_fidelity.options import chosen_convention

__all__ = ["KernelDistance"]


class KernelDistance:
    """Is train further from synthetic than from other real images, without a bias at any sample size?"""

    def compute(self, data: MetricInput) -> Result:
        """Estimate the population's distance, its null, and what this sample size could have shown.

        The option `convention = "torch-fidelity"` adds that package's number, which needs 1000 images in each set.
        """
        sets = compare_features(data, least=3)
        equal = sets.at_equal_size(data.seed)

        def infer(real: Rows, other: Rows) -> stats.Inference:
            return stats.kid_interval(real.values, other.values, real.patients, other.patients, level=data.level)

        found = infer(sets.train, sets.synthetic)
        null = infer(equal.null_train, equal.null_other)
        facts: dict[str, float | int | str | bool] = {
            "n_train": len(sets.train),
            "n_synthetic": len(sets.synthetic),
            "n_null": len(equal.null_other),
            "standard_error": found.se,
            "dominance": found.dominance or 0.0,
        }
        if chosen_convention(data, "kid") == "torch-fidelity":
            facts["torch_fidelity"] = stats.kid(sets.train.values, sets.synthetic.values, convention="torch-fidelity")
        return Result(
            estimate=Estimate(found.value, "kernel", "lower"),
            interval=found.interval,
            null=Null(sets.reference, null.value, null.interval),
            resolution=kernel_resolution(null, equal, infer, data.level),
            facts=facts,
            notes=sets.notes + dominance_note(found),
        )
