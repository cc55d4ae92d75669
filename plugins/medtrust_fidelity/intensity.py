"""Wasserstein distance between the pixel intensities of train and synthetic."""

from __future__ import annotations

import numpy as np
import torch

from medtrust import Estimate, Insufficient, Interval, MetricInput, Null, Resolution, Result, stats
from medtrust.errors import DataError
from medtrust.seeding import derive_seed
from medtrust.types import Intensity, SetData
from medtrust_fidelity.comparison import Comparison, Rows, compare_rows

__all__ = ["IntensityDistance"]

_POWER = 0.8
_BINS = 1024
_SPLITS = 24


class IntensityDistance:
    """How far must intensities move, on average over pixels, to turn one set's distribution into the other's?"""

    def compute(self, data: MetricInput) -> Result:
        """Compare the average cumulative distributions of the patients' pixels."""
        unit = data.intensity.unit
        if not data.intensity.hi > data.intensity.lo:
            raise DataError(
                f"the declared range {data.intensity.lo} to {data.intensity.hi} is empty: declare the true one"
            )
        outside: list[float] = []
        train = _cumulative(data.train, data.intensity, outside)
        synthetic = _cumulative(data.synthetic, data.intensity, outside)
        holdout = None if data.holdout is None else _cumulative(data.holdout, data.intensity, outside)
        sets = compare_rows(train, synthetic, holdout, data.seed, least=2)
        equal = sets.at_equal_size(data.seed)
        found = _infer(sets.train, sets.synthetic, data, "estimate")
        null = _infer(equal.null_train, equal.null_other, data, "null")
        smallest = stats.min_detectable(null.se, data.level, null.dof, _POWER)
        notes = sets.notes
        if max(outside) > 0:
            notes += (
                f"up to {max(outside):.2%} of a set's pixels lie outside the declared range and count at its ends",
            )
        return Result(
            estimate=Estimate(found.value, unit, "lower"),
            interval=found.interval,
            null=Null(sets.reference, null.value, null.interval),
            resolution=Resolution(
                smallest, _POWER,
                f"With {len(equal.null_train)} train and {len(equal.null_other)} other patients, a distance less than "
                f"{smallest:.3g} {unit} above real against real could not have been shown (power {_POWER:.0%}, from "
                "the delete-half standard error of real against real).",
            ),
            facts=_facts(sets, equal, data.intensity),
            notes=notes,
        )  # fmt: skip


def _cumulative(data: SetData, intensity: Intensity, outside: list[float]) -> Rows:
    """Share of each patient's pixels at or below each bin's upper edge, [patients, bins], each image counting alike."""
    edges = np.linspace(intensity.lo, intensity.hi, _BINS + 1)
    number, count = stats.groups(data.patients, len(data))
    sums = np.zeros((count, _BINS))
    beyond, pixels = 0, 0
    for record, patient in zip(data.images, number.tolist(), strict=True):
        values = record.pixels.ravel()
        if values.size == 0 or not np.isfinite(values).all():
            raise Insufficient(
                f"{record.name} of {data.name} is empty or holds values that are not finite: leave it out"
            )
        counts, _ = np.histogram(np.clip(values, intensity.lo, intensity.hi), edges)
        sums[patient] += np.cumsum(counts) / values.size
        beyond += int(((values < intensity.lo) | (values > intensity.hi)).sum())
        pixels += values.size
    outside.append(beyond / pixels)
    images = np.bincount(number.numpy(), minlength=count)
    return Rows(torch.from_numpy(sums / images[:, None]), tuple(dict.fromkeys(data.patients)))


def _distances(real: torch.Tensor, other: torch.Tensor, width: float) -> tuple[float, float]:
    """Wasserstein-1 distance between the average distributions of two sets of patients, and between their means."""
    gap = real.mean(0) - other.mean(0)
    return float(gap.abs().sum() * width), abs(float(gap.sum() * width))


def _infer(real: Rows, other: Rows, data: MetricInput, part: str) -> stats.Inference:
    """Bracket the population's distance.

    The plug-in is biased upwards, by an amount that need not go like 1/n; the distance between the means is never above
    the distance between the distributions.
    """
    width = (data.intensity.hi - data.intensity.lo) / _BINS
    value, means = _distances(real.values, other.values, width)
    _, errors = stats.half_sampling(
        lambda i, j: _distances(real.values[i], other.values[j], width),
        None, None, (len(real), len(other)), splits=_SPLITS, seed=derive_seed(data.seed, part),
    )  # fmt: skip
    t = stats.t_quantile(data.level, _SPLITS)
    interval = Interval(
        lo=max(0.0, means - t * float(errors[1])),
        hi=value + t * float(errors[0]),
        level=data.level,
        method="mean-to-plug-in bracket, delete-half t",
        n_units=min(len(real), len(other)),
    )
    return stats.Inference(value=value, plug_in=value, se=float(errors[0]), interval=interval, dof=_SPLITS)


def _facts(sets: Comparison, equal: Comparison, intensity: Intensity) -> dict[str, float | int | str | bool]:
    width = (intensity.hi - intensity.lo) / _BINS
    # The mean is the upper end of the range less the area under the cumulative distribution, here at bins' middles.
    top = intensity.hi + width / 2
    return {
        "patients_train": len(sets.train),
        "patients_synthetic": len(sets.synthetic),
        "patients_null": len(equal.null_other),
        "plug_in_at_null_size": _distances(equal.train.values, equal.synthetic.values, width)[0],
        "mean_train": top - float(sets.train.values.mean(0).sum()) * width,
        "mean_synthetic": top - float(sets.synthetic.values.mean(0).sum()) * width,
    }
