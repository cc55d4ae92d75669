"""Kernel distance between the features of train and synthetic."""

from __future__ import annotations

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
    smallest = stats.min_detectable(null.se, level, null.dof, _POWER)
    sentence = (
        f"With {len(equal.null_train)} train and {len(equal.null_other)} other images, a kernel distance less than "
        f"{smallest:.3g} above real against real could not have been shown (power {_POWER:.0%}, from the jackknife "
        "standard error of real against real)."
    )
    return Resolution(smallest, _POWER, sentence)
