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
        sets = compare_rows(train, synthetic, holdout, data.seed)
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
                f"With {len(equal.null_train)} train and {len(equal.null_other)} other images, a distance less than "
                f"{smallest:.3g} {unit} above real against real could not have been shown (power {_POWER:.0%}, from "
                "the delete-half standard error of real against real).",
            ),
            facts=_facts(sets, equal, data.intensity),
            notes=notes,
        )  # fmt: skip


def _cumulative(data: SetData, intensity: Intensity, outside: list[float]) -> Rows:
    """Share of each image's pixels at or below each bin's upper edge, [n, bins], so that images of any size compare."""
    edges = np.linspace(intensity.lo, intensity.hi, _BINS + 1)
    rows, beyond, pixels = [], 0, 0
    for record in data.images:
        values = record.pixels.ravel()
        if values.size == 0 or not np.isfinite(values).all():
            raise Insufficient(
                f"{record.name} of {data.name} is empty or holds values that are not finite: leave it out"
            )
        counts, _ = np.histogram(np.clip(values, intensity.lo, intensity.hi), edges)
        rows.append(np.cumsum(counts) / values.size)
        beyond += int(((values < intensity.lo) | (values > intensity.hi)).sum())
        pixels += values.size
    outside.append(beyond / pixels)
    return Rows(torch.from_numpy(np.stack(rows)), tuple(data.patients))


def _distances(real: Rows, other: Rows, width: float) -> tuple[float, float]:
    """Wasserstein-1 distance between the patients' average distributions, and between their means."""
    gap = _average(real) - _average(other)
    return float(gap.abs().sum() * width), abs(float(gap.sum() * width))


def _average(rows: Rows) -> torch.Tensor:
    number, count = stats.groups(rows.patients, len(rows))
    sums = rows.values.new_zeros(count, rows.values.shape[1]).index_add_(0, number, rows.values)
    return (sums / torch.bincount(number, minlength=count)[:, None]).mean(0)


def _infer(real: Rows, other: Rows, data: MetricInput, part: str) -> stats.Inference:
    """Bracket the population's distance.

    The plug-in is biased upwards, by an amount that need not go like 1/n; the distance between the means is never above
    the distance between the distributions.
    """
    width = (data.intensity.hi - data.intensity.lo) / _BINS
    value, means = _distances(real, other, width)
    _, errors = stats.half_sampling(
        lambda i, j: _distances(real.take(i), other.take(j), width),
        real.patients, other.patients, (len(real), len(other)),
        splits=_SPLITS, seed=derive_seed(data.seed, part),
    )  # fmt: skip
    t = stats.t_quantile(data.level, _SPLITS)
    interval = Interval(
        lo=max(0.0, means - t * float(errors[1])),
        hi=value + t * float(errors[0]),
        level=data.level,
        method="mean-to-plug-in bracket, delete-half t",
        n_units=min(len(set(real.patients)), len(set(other.patients))),
    )
    return stats.Inference(value=value, plug_in=value, se=float(errors[0]), interval=interval, dof=_SPLITS)


def _facts(sets: Comparison, equal: Comparison, intensity: Intensity) -> dict[str, float | int | str | bool]:
    width = (intensity.hi - intensity.lo) / _BINS
    at_null = _distances(equal.train, equal.synthetic, width)[0]
    # The mean is the upper end of the range less the area under the cumulative distribution.
    mean = {name: intensity.hi - float(_average(rows).sum()) * width for name, rows in
            (("mean_train", sets.train), ("mean_synthetic", sets.synthetic))}  # fmt: skip
    return {
        "n_train": len(sets.train),
        "n_synthetic": len(sets.synthetic),
        "n_null": len(equal.null_other),
        "plug_in_at_null_size": at_null,
        **mean,
    }
