"""The gap between the patients of two sets in a physical statistic, with a real-against-real null and a resolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from medtrust import Estimate, Insufficient, Interval, MetricInput, Null, Resolution, Result
from medtrust.seeding import derive_seed
from medtrust.types import ImageRecord, SetData

__all__ = ["Gap", "compare", "gap", "per_patient"]

_LEAST, _DRAWS, _POWER = 8, 2000, 0.8
Statistic = Callable[[ImageRecord], "np.ndarray[Any, Any] | None"]


@dataclass(frozen=True, slots=True)
class Gap:
    """Distance between the mean statistics of two sets of patients.

    Args:
        value: Root mean square over the entries of the difference of the means.
        interval: Its confidence interval.
        noise: Sizes of the sampling error, drawn by bootstrap, ascending.
    """

    value: float
    interval: Interval
    noise: np.ndarray[Any, Any]


def per_patient(data: SetData, statistic: Statistic) -> np.ndarray[Any, Any]:
    """Average a statistic over each patient's images.

    Args:
        data: The set.
        statistic: Maps an image to [K] float64, entries NaN where that image says nothing; None likewise for all.

    Returns:
        [patients, K] of the patients who have any.

    Raises:
        Insufficient: Fewer than 8 patients have.
    """
    found: dict[str, list[np.ndarray[Any, Any]]] = {}
    for record, patient in zip(data.images, data.patients, strict=True):
        if not np.isfinite(record.pixels).all():
            raise Insufficient(f"{record.name} of {data.name} holds values that are not finite: leave it out")
        row = statistic(record)
        if row is not None:
            found.setdefault(patient, []).append(row)
    if len(found) < _LEAST:
        raise Insufficient(
            f"needs {_LEAST} patients in each set whose images can be measured; {data.name} has {len(found)}"
        )
    return np.stack([_mean(np.stack(rows)) for rows in found.values()])


def _mean(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    counts = np.isfinite(rows).sum(0)
    sums = np.where(np.isfinite(rows), rows, 0.0).sum(0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def gap(real: np.ndarray[Any, Any], other: np.ndarray[Any, Any], level: float, seed: int) -> Gap:
    """Measure the distance of two means and how far chance alone can move it.

    By the triangle inequality the measured distance is off by no more than the size of the sampling error, whatever
    the true distance is; the bootstrap over patients gives that size, so the interval covers at least at its level.

    Args:
        real: [patients, K] float64, NaN where a patient says nothing of an entry.
        other: Likewise.
        level: Confidence level.
        seed: Seed of the bootstrap.

    Reference:
        Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 8.
    """
    rng = np.random.default_rng(seed)
    value = _rms(_mean(other) - _mean(real))
    moved = _errors(other, rng) - _errors(real, rng)
    noise = np.sort(_rms(moved))
    reach = float(np.quantile(noise, level))
    interval = Interval(
        max(0.0, value - reach),
        value + reach,
        level,
        "patient bootstrap of the error's size",
        min(len(real), len(other)),
    )
    return Gap(float(value), interval, noise)


def _errors(rows: np.ndarray[Any, Any], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Draw errors of the mean, [draws, K]; √(n/(n-1)) undoes the bootstrap's shrinking."""
    n = len(rows)
    known = np.isfinite(rows)
    values = np.where(known, rows, 0.0)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=_DRAWS).astype(np.float64)
    counts = weights @ known
    means = np.where(counts > 0, weights @ values / np.maximum(counts, 1e-300), _mean(rows))
    return (means - _mean(rows)) * np.sqrt(n / (n - 1))


def _rms(rows: np.ndarray[Any, Any]) -> Any:
    return np.sqrt(np.mean(np.square(rows), axis=-1))


def compare(data: MetricInput, statistic: Statistic, unit: str, what: str, names: tuple[str, ...]) -> Result:
    """Answer a physics question: how far are synthetic patients from train, against real from real.

    Args:
        data: The audit's input.
        statistic: See `per_patient`.
        unit: Unit of the statistic.
        what: What differs, for the sentence of the resolution.
        names: Name of each entry.

    Raises:
        Insufficient: Too few patients, or no entry that enough of them know.
    """
    train = per_patient(data.train, statistic)
    synthetic = per_patient(data.synthetic, statistic)
    if data.holdout is not None:
        reference, null_real, null_other = "holdout against train", train, per_patient(data.holdout, statistic)
    else:
        if len(train) < 2 * _LEAST:
            raise Insufficient(f"needs a holdout set, or {2 * _LEAST} patients in train; it has {len(train)}")
        order = np.random.default_rng(derive_seed(data.seed, "halves")).permutation(len(train))
        half = len(train) // 2
        reference, null_real, null_other = "train halves", train[order[:half]], train[order[half:]]
    sets = (train, synthetic, null_real, null_other)
    kept = np.all([np.isfinite(rows).sum(0) >= _LEAST for rows in sets], axis=0)
    if not kept.any():
        raise Insufficient(f"no entry of {what} is known of {_LEAST} patients in each set")
    found = gap(train[:, kept], synthetic[:, kept], data.level, derive_seed(data.seed, "estimate"))
    null = gap(null_real[:, kept], null_other[:, kept], data.level, derive_seed(data.seed, "null"))
    smallest = float(np.quantile(null.noise, data.level) + np.quantile(null.noise, _POWER))
    facts: dict[str, float | int | str | bool] = {"patients_train": len(train), "patients_synthetic": len(synthetic)}
    means = _mean(train), _mean(synthetic)
    for name, used, real, made in zip(names, kept, *means, strict=True):
        if used:
            facts |= {f"train.{name}": float(real), f"synthetic.{name}": float(made)}
    left_out = [name for name, used in zip(names, kept, strict=True) if not used]
    notes = (f"too few patients show {', '.join(left_out)}; left out",) if left_out else ()
    return Result(
        estimate=Estimate(found.value, unit, "lower"),
        interval=found.interval,
        null=Null(reference, null.value, null.interval),
        resolution=Resolution(
            smallest, _POWER,
            f"With {len(null_real)} and {len(null_other)} real patients, a gap in {what} below {smallest:.3g} {unit} "
            f"could not have been shown (power {_POWER:.0%}).",
        ),
        facts=facts,
        notes=notes,
    )  # fmt: skip
