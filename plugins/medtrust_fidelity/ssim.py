"""Are pairs of synthetic images more alike than pairs of real ones?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from medtrust import (
    Estimate,
    Evidence,
    Insufficient,
    Interval,
    MetricInput,
    Null,
    Picture,
    Resolution,
    Result,
    ops,
    stats,
)
from medtrust.seeding import derive_seed
from medtrust.types import SetData
from medtrust_fidelity.options import whole
from medtrust_fidelity.pixels import stacked

__all__ = ["SsimDiversity"]

_POWER = 0.8
_PAIRS = 2000
_VOLUME_PAIRS = 200  # each decodes two volumes
_BATCH = 32
_PIXELS = 2**25  # most in one stack of images
_MULTI_SCALE = 161  # pixels per side that five scales of an 11-pixel window need
_WINDOW = 11
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class _Likeness:
    """Mean likeness of pairs of one set, and the pairs."""

    mean: float
    se: float
    units: int
    values: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor


class SsimDiversity:
    """Mean structural similarity of synthetic pairs, less that of train pairs; above 0 the generator repeats itself."""

    def compute(self, data: MetricInput) -> Result:
        """Compare pairs of different patients within each set.

        The option `pairs` sets about how many are drawn per set (2000; 200 of volumes, whose likeness is that in three
        dimensions).
        """
        side, solid = _side(data.train)
        pairs = whole(data, "ssim_diversity", "pairs", _VOLUME_PAIRS if solid else _PAIRS)
        multi = side >= _MULTI_SCALE
        train = _likeness(data.train, None, data, pairs, multi, "train")
        synthetic = _likeness(data.synthetic, None, data, pairs, multi, "synthetic")
        base, other, reference, notes = self._null(data, train, pairs, multi)
        interval = _difference(synthetic, train, data.level)
        null = _difference(other, base, data.level)
        name = ("MS-SSIM, five scales" if multi else "SSIM, one scale") + (", of volumes" if solid else "")
        if not multi:
            notes += (f"one scale only: five need {_MULTI_SCALE} pixels per side",)
        smallest = stats.min_detectable(math.hypot(base.se, other.se), data.level, _dof(base, other), _POWER)
        return Result(
            estimate=Estimate(synthetic.mean - train.mean, "SSIM", "lower"),
            interval=interval,
            null=Null(reference, other.mean - base.mean, null),
            resolution=Resolution(
                smallest, _POWER,
                f"With {base.units} and {other.units} patients, a mean likeness less than {smallest:.3g} above that of "
                f"real pairs could not have been shown (power {_POWER:.0%}, jackknife standard error of real pairs).",
            ),
            evidence=_evidence(synthetic),
            facts={
                "measure": name,
                "mean_synthetic": synthetic.mean,
                "mean_train": train.mean,
                "pairs_synthetic": len(synthetic.values),
                "pairs_train": len(train.values),
            },
            notes=notes,
        )  # fmt: skip

    def _null(
        self, data: MetricInput, train: _Likeness, pairs: int, multi: bool
    ) -> tuple[_Likeness, _Likeness, str, tuple[str, ...]]:
        """Two real sets: train and holdout, or two halves of train."""
        if data.holdout is not None:
            holdout = _likeness(data.holdout, None, data, pairs, multi, "holdout")
            return train, holdout, "holdout against train", ()
        halves = stats.split_patients(data.train.patients, len(data.train), derive_seed(data.seed, "halves"))
        one, other = (
            _likeness(data.train, half, data, pairs, multi, f"half {i}") for i, half in enumerate(halves)
        )  # fmt: skip
        note = "there is no holdout: the null compares two halves of train, split by patients"
        return one, other, "half of train against the other", (note,)


def _likeness(
    data: SetData, rows: torch.Tensor | None, given: MetricInput, pairs: int, multi: bool, part: str
) -> _Likeness:
    rows = torch.arange(len(data)) if rows is None else rows
    patients = tuple(data.patients[i] for i in rows.tolist())
    first, second = stats.patient_pairs(patients, len(rows), pairs, derive_seed(given.seed, "pairs", part))
    measure = ops.ms_ssim if multi else ops.ssim
    width = given.intensity.hi - given.intensity.lo
    batch = max(1, min(_BATCH, _PIXELS // data.images[0].pixels.size))
    left = stacked(data, rows[first].tolist(), batch)
    right = stacked(data, rows[second].tolist(), batch)
    values = torch.cat([measure(x, y, data_range=width) for x, y in zip(left, right, strict=True)])
    number, _ = stats.groups(patients, len(patients))
    mean, se, units = stats.pair_mean(values, number[first], number[second])
    return _Likeness(mean, se, units, values, rows[first], rows[second])


def _side(data: SetData) -> tuple[int, bool]:
    """Shortest side of the images, and whether they are volumes."""
    sides = data.images[0].pixels.shape[1:]
    side = min(sides)
    if side < _WINDOW:
        raise Insufficient(f"images of {side} pixels a side are smaller than the {_WINDOW}-pixel window of SSIM")
    return int(side), len(sides) == 3


def _dof(one: _Likeness, other: _Likeness) -> int:
    return min(one.units, other.units) - 1


def _difference(one: _Likeness, other: _Likeness, level: float) -> Interval:
    gap, dof = one.mean - other.mean, _dof(one, other)
    reach = stats.t_quantile(level, dof) * math.hypot(one.se, other.se)
    return Interval(gap - reach, gap + reach, level, "delete-one-patient jackknife over pairs, t", dof + 1)


def _evidence(synthetic: _Likeness) -> tuple[Evidence, ...]:
    """The most alike pairs of synthetic images."""
    shown = []
    for rank, pair in enumerate(synthetic.values.topk(min(_SHOWN, len(synthetic.values))).indices.tolist(), start=1):
        one, other = int(synthetic.first[pair]), int(synthetic.second[pair])
        shown.append(
            Evidence(
                kind="pair",
                title="Two synthetic images that are most alike",
                rank=rank,
                facts={"ssim": float(synthetic.values[pair])},
                pictures=(
                    Picture("first", "synthetic image", (("synthetic", one),)),
                    Picture("second", "synthetic image it resembles", (("synthetic", other),)),
                    Picture("difference", "absolute difference", (("synthetic", one), ("synthetic", other))),
                ),
            )
        )
    return tuple(shown)
