"""Scores of one set alone, beside the same score of as many real images: Vendi and Inception Score."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from medtrust import Estimate, Insufficient, MetricInput, Null, Resolution, Result, stats
from medtrust.seeding import derive_seed
from medtrust_fidelity.comparison import Comparison, Rows, compare_features, compare_rows
from medtrust_fidelity.options import chosen_convention

__all__ = ["LOGIT", "InceptionScore", "VendiScore"]

_POWER = 0.8
_LEAST = 4
LOGIT = "logit."  # how the columns of a class head are named
Facts = dict[str, float | int | str | bool]


class VendiScore:
    """How many different images does the generator make, in effect, beside as many real ones?"""

    def compute(self, data: MetricInput) -> Result:
        """Score synthetic and other real images at one sample size, on which the score depends."""
        sets = compare_features(data, least=_LEAST)
        features = data.train.features
        if features is not None and features.names:
            centre = sets.train.values.mean(0)
            note = "angles between features are taken about the mean of train"
            moved = {
                part: replace(rows, values=rows.values - centre)
                for part in ("train", "synthetic", "null_train", "null_other")
                for rows in (getattr(sets, part),)
            }
            sets = replace(sets, **moved, notes=(*sets.notes, note))
        return _beside_real(sets, data, stats.vendi_interval, "effective images", {})


class InceptionScore:
    """Are the classes of the synthetic images clear, and are there as many of them as among real ones?"""

    def compute(self, data: MetricInput) -> Result:
        """Score the class probabilities of synthetic and other real images at one sample size.

        The option `convention = "torch-fidelity"` adds the score in that package's 10 shuffled splits.
        """
        features = data.train.features
        names = features.names if features is not None else ()
        if not names or not all(name.startswith(LOGIT) for name in names):
            raise Insufficient(
                f"the feature space {data.space or 'given'} has no class head, whose columns would be named "
                f"{LOGIT}CLASS: choose a space of class logits"
            )
        rows = {}
        for one in (data.train, data.synthetic, data.holdout):
            if one is None:
                continue
            broken = int((~one.matrix.isfinite().all(dim=1)).sum())
            if broken:
                raise Insufficient(f"{broken} images of {one.name} have logits that are not finite: look at them")
            rows[one.name] = Rows(one.matrix, one.patients)
        sets = compare_rows(rows["train"], rows["synthetic"], rows.get("holdout"), data.seed, _LEAST)
        facts: Facts = {"classes": len(names)}
        if chosen_convention(data, "inception_score") == "torch-fidelity":
            facts["torch_fidelity"] = stats.inception_score(sets.synthetic.values, splits=10, shuffle_seed=2020)
        return _beside_real(sets, data, stats.inception_score_interval, "effective classes", facts)


def _beside_real(
    sets: Comparison, data: MetricInput, infer: Callable[..., stats.Inference], unit: str, facts: Facts
) -> Result:
    equal = sets.at_equal_size(data.seed)

    def of(rows: Rows, part: str) -> stats.Inference:
        return infer(rows.values, rows.patients, level=data.level, seed=derive_seed(data.seed, part))

    found, null = of(equal.synthetic, "estimate"), of(equal.null_other, "null")
    smallest = stats.min_detectable(math.sqrt(2) * null.se, data.level, null.dof, _POWER)
    sentence = (
        f"With {len(equal.null_other)} real images, a score less than {smallest:.3g} below theirs could not have been "
        f"shown (power {_POWER:.0%}, from their delete-half standard error)."
    )
    return Result(
        estimate=Estimate(found.value, unit, "higher"),
        interval=found.interval,
        null=Null("holdout" if data.holdout is not None else "half of train", null.value, null.interval),
        resolution=Resolution(smallest, _POWER, sentence),
        facts={
            **facts,
            "n_synthetic": len(equal.synthetic),
            "n_null": len(equal.null_other),
            "share_of_real": found.value / null.value,
        },
        notes=(*sets.notes, "the score depends on the sample size, so estimate and null have the same"),
    )
