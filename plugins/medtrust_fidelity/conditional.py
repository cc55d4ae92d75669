"""What the conditional metrics share: conditions from manifests, a classifier, synthetic held against holdout."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from medtrust import Estimate, Insufficient, Interval, MetricInput, Null, Resolution, Result, stats
from medtrust.types import SetData

__all__ = ["LEAST", "Discriminant", "Kept", "against_ceiling", "column_of", "conditions_of"]

LEAST = 8  # patients of a set that an interval needs
_POWER = 0.8
Kept = tuple[np.ndarray, Sequence[str]]  # how far each image keeps its condition, and its patient


def conditions_of(data: SetData, column: str, metric: str) -> list[str]:
    """What each image of a set was asked to show, from its manifest.

    `medtrust sample` writes what was asked for to the column `label` or `condition`.

    Raises:
        Insufficient: An image has none.
    """
    found = [column_of(row, column) for row in data.attributes]
    missing = len(data) - sum(bool(value) for value in found)
    if missing:
        raise Insufficient(
            f"{missing} of {len(data)} images of {data.name} have no {column!r}: list the images in a manifest.csv "
            f"with that column, or name another by the option column in [plugins.fidelity.{metric}]"
        )
    return found


def column_of(row: Mapping[str, str], column: str) -> str:
    """The value of a column, or of `condition`, which `medtrust sample` writes."""
    return str(row.get(column) or row.get("condition") or "")


class Discriminant:
    """Linear discriminant analysis with a shrunken covariance.

    Args:
        rows: [N, d] float64.
        classes: [N], 0 … count - 1.
        count: How many classes.
        equal: Classes are equally likely beforehand; else by their frequency.

    Reference:
        Friedman 1989, doi:10.1080/01621459.1989.10478752.
    """

    def __init__(self, rows: Tensor, classes: Tensor, count: int, *, equal: bool) -> None:
        self._mean, self._spread = rows.mean(0), rows.std(0).clamp(min=1e-12)
        x = (rows - self._mean) / self._spread
        n, d = x.shape
        means = torch.stack([x[classes == k].mean(0) for k in range(count)])
        rest = x - means[classes]
        covariance = rest.T @ rest / max(n - count, 1)
        shrunken = d / (d + n)
        scale = covariance.diagonal().mean().clamp(min=1e-12)
        covariance = (1 - shrunken) * covariance + shrunken * scale * torch.eye(d, dtype=x.dtype)
        self._weights = torch.linalg.solve(covariance, means.T)
        frequency = torch.bincount(classes, minlength=count).double() / n
        prior = torch.zeros(count, dtype=x.dtype) if equal else frequency.log()
        self._offset = prior - (means * self._weights.T).sum(1) / 2

    def classify(self, rows: Tensor) -> Tensor:
        """Likeliest class of each row."""
        return ((rows - self._mean) / self._spread @ self._weights + self._offset).argmax(1)


def against_ceiling(
    data: MetricInput,
    synthetic: Kept,
    holdout: Kept,
    what: str,
    title: str,
    facts: Mapping[str, float | int | str | bool],
    weights: tuple[np.ndarray, np.ndarray] | None = None,
) -> Result:
    """Report how far synthetic images keep their conditions; real images of holdout are the ceiling.

    Args:
        data: The metric's input.
        synthetic: Value of each image, NaN where it says nothing.
        holdout: Likewise.
        what: What is measured, for the sentence of the resolution.
        title: Heading.
        facts: Further facts.
        weights: Of the images of both; equal when not given.

    Raises:
        Insufficient: Fewer than 8 patients in one of them say anything.
    """
    sides = []
    for name, (values, patients), own in zip(
        ("synthetic", "holdout"), (synthetic, holdout), weights or (None, None), strict=True
    ):
        known = np.flatnonzero(np.isfinite(values))
        units = [patients[i] for i in known]
        if len(set(units)) < LEAST:
            raise Insufficient(f"{what} needs {LEAST} patients in each set; {name} has {len(set(units))} to ask")
        sides.append(_mean(values[known], units, np.ones(len(known)) if own is None else own[known], data.level))
    (value, interval, se), (ceiling, null, null_se) = sides
    joint = math.hypot(se, null_se)
    smallest = stats.min_detectable(joint, data.level, min(interval.n_units, null.n_units) - 1, _POWER)
    return Result(
        estimate=Estimate(value, "share", "higher"),
        interval=interval,
        null=Null("holdout", ceiling, null),
        resolution=Resolution(
            smallest, _POWER,
            f"With {interval.n_units} synthetic and {null.n_units} holdout patients, {what} that falls short of real "
            f"images by less than {smallest:.2g} could not have been told from them (power {_POWER:.0%}).",
        ),
        facts={"ceiling": ceiling, "short_of_ceiling": ceiling - value, "images": len(synthetic[0]), **facts},
        title=title,
    )  # fmt: skip


def _mean(
    values: np.ndarray, patients: Sequence[str], weights: np.ndarray, level: float
) -> tuple[float, Interval, float]:
    """Weighted mean, its interval, and its standard error, by leaving out one patient at a time."""
    number, count = stats.groups(patients, len(values))
    w = torch.from_numpy(np.asarray(weights, np.float64))
    v = w * torch.from_numpy(np.asarray(values, np.float64))
    tops, bottoms = (torch.zeros(count, dtype=torch.float64).index_add_(0, number, x) for x in (v, w))
    mean = float(v.sum() / w.sum())
    se = stats.jackknife_se((v.sum() - tops) / (w.sum() - bottoms))
    if ((values == 0) | (values == 1)).all():
        lo, hi = stats.korn_graubard(mean, se, count, level, count - 1)
        method = "Korn-Graubard over patients"
    else:
        reach = stats.t_quantile(level, count - 1) * se
        lo, hi, method = max(-1.0, mean - reach), min(1.0, mean + reach), "delete-one-patient jackknife, t"
    return mean, Interval(min(lo, mean), max(hi, mean), level, method, count), max(se, (hi - lo) / 4 if se == 0 else se)
