"""Is synthetic as near to train in every subgroup, beyond what real images of that subgroup are?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from scipy.stats import t as student

from medtrust import Estimate, Insufficient, Interval, MetricInput, Null, Resolution, Result, stats
from medtrust.seeding import derive_seed
from medtrust.types import SetData, TestOutcome
from medtrust_fidelity.comparison import Rows, compare_features, dominance_note

__all__ = ["SubgroupExcess"]

LEAST = 50  # patients of a subgroup in each set
_POWER = 0.8
Excess = Callable[..., stats.Inference]
_MEASURES = {"fd": ("Fréchet distance", "feature²"), "mmd": ("Gaussian kernel distance", "kernel")}


@dataclass(frozen=True, slots=True)
class _Measure:
    """A distance, and the difference of two of them with its interval.

    Neither distance depends on where in the space a subgroup lies, as that of KID's kernel does.
    """

    name: str
    distance: Callable[[Rows, Rows], float]
    excess: Excess


def _measures(train: Rows, seed: int) -> tuple[_Measure, ...]:
    width = stats.median_distance(train.values, train.patients, seed=derive_seed(seed, "width"))
    kernel = stats.gaussian(width)

    def mmd(real: Rows, other: Rows) -> float:
        return stats.mmd_interval(
            real.values, other.values, real.patients, other.patients, kernel=kernel
        ).value  # fmt: skip

    return (
        _Measure("fd", lambda real, other: stats.frechet_distance(real.values, other.values), stats.frechet_excess),
        _Measure("mmd", mmd, partial(stats.mmd_excess, kernel=kernel)),
    )


@dataclass(frozen=True, slots=True)
class _Group:
    """One subgroup: its rows of train, synthetic and holdout, and why it cannot be judged if it cannot."""

    label: str
    sets: tuple[Rows, Rows, Rows]
    shortage: str


@dataclass(frozen=True, slots=True)
class _Excess:
    """Excess of one subgroup and of real images in the place of synthetic ones."""

    label: str
    found: stats.Inference
    null: stats.Inference


class SubgroupExcess:
    """M(S, T) - M(H, T) within each subgroup at equal sample sizes, and how much it differs between subgroups."""

    def compute(self, data: MetricInput) -> Mapping[str, Result | Sequence[Result]]:
        """Estimate the excess of each subgroup, and the disparity of each column that was asked for."""
        assert data.holdout is not None
        sets = compare_features(data, least=4)
        holdout = sets.null_other
        answer: dict[str, list[Result]] = {
            f"equity.{name}_{part}": [] for name in _MEASURES for part in ("excess", "disparity")
        }
        measures = _measures(sets.train, data.seed)
        for column in data.subgroups:
            given = ((data.train, sets.train), (data.synthetic, sets.synthetic), (data.holdout, holdout))
            groups, notes = _groups(column, given, data.seed)
            for measure in measures:
                excesses = [_excess(data, column, g, measure) for g in groups if not g.shortage]
                answer[f"equity.{measure.name}_excess"] += _rows(
                    data, column, groups, excesses, measure, (*sets.notes, *notes)
                )
                answer[f"equity.{measure.name}_disparity"].append(
                    _disparity(data, column, excesses, len(groups), measure.name, (*sets.notes, *notes))
                )
        return answer


def _groups(column: str, given: Sequence[tuple[SetData, Rows]], seed: int) -> tuple[list[_Group], tuple[str, ...]]:
    """Split the three sets by the column's values; synthetic and holdout at one size within each."""
    labels = [[str(row.get(column, "")) for row in data.attributes] for data, _ in given]
    notes = []
    for (data, _), of_set in zip(given, labels, strict=True):
        blank = len(data) - sum(bool(label) for label in of_set)
        if blank == len(data):
            raise Insufficient(
                f"no image of {data.name} has a value in the column {column!r}: write it into the manifest of that set"
            )
        if blank:
            notes.append(f"{blank} images of {data.name} have no {column} and are in no subgroup")
    found = []
    for label in sorted({label for of_set in labels for label in of_set if label}):
        parts = [
            rows.take(torch.tensor([i for i, own in enumerate(of_set) if own == label], dtype=torch.int64))
            for (_, rows), of_set in zip(given, labels, strict=True)
        ]
        few = [
            f"{data.name} has {count}"
            for (data, _), part in zip(given, parts, strict=True)
            if (count := len(set(part.patients))) < LEAST
        ]
        size = min(len(parts[1]), len(parts[2]))
        if not few:
            parts[1:] = [p.first(size, derive_seed(seed, column, label, i)) for i, p in enumerate(parts[1:])]
        told = f"a subgroup needs {LEAST} patients in each set; of {column}={label}, {', '.join(few)}"
        found.append(_Group(label, (parts[0], parts[1], parts[2]), told if few else ""))
    patients = [patient for part in found for patient in set(part.sets[0].patients)]
    repeated = len(patients) - len(set(patients))
    if repeated:
        notes.append(f"{repeated} times a train patient is in more than one subgroup of {column}")
    return found, tuple(notes)


def _excess(data: MetricInput, column: str, group: _Group, measure: _Measure) -> _Excess:
    train, synthetic, holdout = group.sets
    halves = stats.split_patients(
        holdout.patients, len(holdout), derive_seed(data.seed, column, group.label, "null halves")
    )
    one, other = (holdout.take(rows) for rows in halves)

    def infer(first: Rows, second: Rows, part: str) -> stats.Inference:
        three = (train, first, second)
        return measure.excess(
            [one.values for one in three], [one.patients for one in three],
            level=data.level, seed=derive_seed(data.seed, column, group.label, measure.name, part),
        )  # fmt: skip

    return _Excess(f"{column}={group.label}", infer(synthetic, holdout, "estimate"), infer(one, other, "null"))


def _rows(
    data: MetricInput,
    column: str,
    groups: Sequence[_Group],
    excesses: Sequence[_Excess],
    measure: _Measure,
    notes: tuple[str, ...],
) -> list[Result]:
    """One result per subgroup, in the order of their names."""
    name, distance = measure.name, measure.distance
    title = f"{_MEASURES[name][0]} beyond that of real images"
    p_values = [_p(one.found) for one in excesses]
    adjusted = stats.benjamini_hochberg(p_values) if p_values else []
    by_label = {one.label: (one, p, float(q)) for one, p, q in zip(excesses, p_values, adjusted, strict=True)}
    rows = []
    for group in groups:
        label = f"{column}={group.label}"
        if group.shortage:
            rows.append(Result(status="insufficient", reason=group.shortage, title=title, subgroup=label))
            continue
        one, p, q = by_label[label]
        train, synthetic, holdout = group.sets
        smallest = stats.min_detectable(one.null.se, data.level, one.null.dof, _POWER)
        rows.append(
            Result(
                estimate=Estimate(one.found.value, _MEASURES[name][1], "lower"),
                interval=one.found.interval,
                test=TestOutcome(_statistic(one.found), p, q, f"{name} in subgroups of {column}"),
                null=Null("two halves of the subgroup's holdout", one.null.value, one.null.interval),
                resolution=Resolution(
                    smallest, _POWER,
                    f"With {len(train)} train and {len(synthetic)} synthetic images of {label}, an excess less than "
                    f"{smallest:.3g} could not have been shown (power {_POWER:.0%}, from the standard error "
                    "of real images in the place of synthetic ones).",
                ),
                facts={
                    "synthetic_to_train": distance(train, synthetic),
                    "holdout_to_train": distance(train, holdout),
                    "n_train": len(train), "n_synthetic": len(synthetic), "n_holdout": len(holdout),
                    "dominance": one.found.dominance or 0.0,
                },
                notes=(*notes, *dominance_note(one.found)),
                title=title,
                subgroup=label,
            )
        )  # fmt: skip
    return rows


def _statistic(found: stats.Inference) -> float:
    """Excess in standard errors; far out instead of infinite where the error is 0."""
    return found.value / found.se if found.se > 0 else math.copysign(1e9, found.value) if found.value else 0.0


def _p(found: stats.Inference) -> float:
    """One-sided p-value of the hypothesis that there is no excess."""
    return float(student.sf(_statistic(found), found.dof))


def _disparity(
    data: MetricInput, column: str, excesses: Sequence[_Excess], groups: int, name: str, notes: tuple[str, ...]
) -> Result:
    """Largest difference of excess between two subgroups, by intervals of all differences at once (Bonferroni)."""
    title = f"Disparity of the {_MEASURES[name][0]} between subgroups"
    if len(excesses) < 2:
        return Result(
            status="insufficient", title=title, subgroup=column,
            reason=f"a disparity needs two subgroups with {LEAST} patients in each set; {column} has {len(excesses)}",
        )  # fmt: skip
    pairs = len(excesses) * (len(excesses) - 1) // 2
    level = 1 - (1 - data.level) / pairs
    found, null = (_widest([getattr(one, part) for one in excesses], level, data.level) for part in ("found", "null"))
    smallest = stats.min_detectable(null.se, level, null.dof, _POWER)
    order = sorted(excesses, key=lambda one: one.found.value)
    if len(excesses) < groups:
        notes = (*notes, f"{groups - len(excesses)} subgroups of {column} are too small and do not count")
    return Result(
        estimate=Estimate(found.value, _MEASURES[name][1], "lower"),
        interval=found.interval,
        null=Null("two halves of each subgroup's holdout", null.value, null.interval),
        resolution=Resolution(
            smallest, _POWER,
            f"Between {len(excesses)} subgroups of {column}, a difference of excess less than {smallest:.3g} could not "
            f"have been shown (power {_POWER:.0%}, Bonferroni over {pairs} differences).",
        ),
        facts={"subgroups": len(excesses), "nearest": order[0].label, "furthest": order[-1].label},
        notes=notes,
        title=title,
        subgroup=column,
    )  # fmt: skip


def _widest(parts: Sequence[stats.Inference], level: float, shown: float) -> stats.Inference:
    """The largest difference, with an interval that holds it whichever pair has it."""
    bounds, errors = [(0.0, 0.0)], [(0.0, math.inf)]
    for i, one in enumerate(parts):
        for other in parts[:i]:
            se, dof = _joined(one, other)
            gap, reach = abs(one.value - other.value), stats.t_quantile(level, dof) * se
            bounds.append((gap - reach, gap + reach))
            errors.append((se, dof))
    value = max(part.value for part in parts) - min(part.value for part in parts)
    interval = Interval(
        max(lo for lo, _ in bounds), max(hi for _, hi in bounds), shown,
        "delete-half and influence t, Bonferroni over differences", min(part.interval.n_units for part in parts),
    )  # fmt: skip
    se, dof = max(errors)
    return stats.Inference(value=value, plug_in=value, se=se, interval=interval, dof=dof)


def _joined(one: stats.Inference, other: stats.Inference) -> tuple[float, float]:
    """Standard error of a difference, and its degrees of freedom (Satterthwaite)."""
    variances = [each.se**2 for each in (one, other)]
    spread = sum(v * v / each.dof for v, each in zip(variances, (one, other), strict=True))
    return math.sqrt(sum(variances)), sum(variances) ** 2 / spread if spread > 0 else min(one.dof, other.dof)
