"""Can the sets be told apart by how their files were made, before any network looks at what they show?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medtrust import Estimate, Interval, MetricInput, Null, Resolution, Result, SelfTest, TestOutcome, stats
from medtrust.seeding import derive_seed
from medtrust_explain.comparison import Sides, sides
from medtrust_explain.planting import coarser, framed, jpeg
from medtrust_explain.traits import TRAITS, Trait, columns, measure

__all__ = ["Finding", "Shortcut", "audit_traits", "decisive"]

_MOST = 400  # images measured per set
_PLANTED = 120  # images per set in the self-test
_PERMUTATIONS = 1999
_DECISIVE = 0.9  # an area above this, surely, leaves a classifier nothing to learn of the content
_POWER = 0.8


@dataclass(frozen=True, slots=True)
class Finding:
    """How well one trait tells two sets apart."""

    trait: Trait
    auc: float
    se: float
    interval: Interval
    p: float
    example: str


class Shortcut:
    """Separate synthetic from train by each trait of the processing alone, and name the one that does it best.

    Reference: Geirhos et al. 2020, arXiv:2004.07780 (shortcut learning); Fan and de Queiroz 2003,
    doi:10.1109/TIP.2002.807361 (block edges as traces of JPEG).
    """

    def compute(self, data: MetricInput) -> Result:
        """Measure up to 400 images of each set."""
        pair = sides(data, _MOST)
        found = audit_traits(pair, data)
        null = audit_traits(pair.null(), data)
        first = max(found, key=lambda f: (f.auc, f.trait.pipeline))
        same = next((f for f in null if f.trait == first.trait), null[0])
        floor = max(null, key=lambda f: f.auc)
        # one p-value per trait; the smallest one is adjusted for having looked at them all
        p = min(1.0, first.p * len(TRAITS))
        reach = stats.min_detectable(max(same.se, 1e-3), data.level, same.interval.n_units - 1, _POWER)
        names = [f.trait.words for f in found if f.interval.lo > _DECISIVE]
        notes = list(pair.notes)
        if names:
            notes.append(
                f"{', '.join(names)} alone tell{'s' if len(names) == 1 else ''} the sets apart: {first.trait.remedy}"
            )
        facts: dict[str, Any] = {"trait": first.trait.words, "example": first.example}
        facts |= {f"auc_{f.trait.name}": f.auc for f in found}
        facts |= {"largest_auc_real_against_real": floor.auc, "trait_real_against_real": floor.trait.words}
        return Result(
            estimate=Estimate(first.auc, "AUC", "lower"),
            interval=first.interval,
            test=TestOutcome(first.auc, first.p, p, "traits of the processing"),
            null=Null(pair.reference, same.auc, same.interval),
            resolution=Resolution(
                reach, _POWER,
                f"With {same.interval.n_units} patients on the smaller side, a trait whose AUC lies less than "
                f"{reach:.2g} above that of real against real could not have been seen.",
            ),
            selftest=_selftest(sides(data, _PLANTED), data),
            facts=facts,
            notes=tuple(notes),
        )  # fmt: skip


def audit_traits(pair: Sides, data: MetricInput) -> list[Finding]:
    """Separate the first side from the second by each trait.

    Args:
        pair: The two sides.
        data: For range, level and seed.
    """
    one = columns([measure(pair.first.images[i], data.intensity) for i in pair.first_rows])
    other = columns([measure(pair.second.images[i], data.intensity) for i in pair.second_rows])
    who = (pair.patients(pair.first, pair.first_rows), pair.patients(pair.second, pair.second_rows))
    return [_separate(t, a, b, who, data, pair) for t, a, b in zip(TRAITS, one, other, strict=True)]


def _separate(
    trait: Trait,
    one: list[str | float],
    other: list[str | float],
    who: tuple[list[str], list[str]],
    data: MetricInput,
    pair: Sides,
) -> Finding:
    """Area under the curve of the trait, in whichever direction separates: halves choose it for each other."""
    values = np.array(_scores(trait, one, other))
    y = np.arange(len(values)) < len(one)
    patients = [f"1:{p}" for p in who[0]] + [f"2:{p}" for p in who[1]]
    folds = _halves(patients, y, derive_seed(data.seed, "halves", trait.name))
    scores, labels, owners = [], [], []
    for half in (0, 1):
        learn, judge = folds != half, folds == half
        scores.append(_learned(trait, values, y, learn)[judge])
        labels.append(y[judge])
        owners.append([patients[i] for i in np.flatnonzero(judge)])
    found = stats.discriminate(scores, labels, owners, data.level)
    seed = derive_seed(data.seed, "permute", trait.name)
    p = stats.auc_test(scores, labels, owners, permutations=_PERMUTATIONS, seed=seed)
    return Finding(trait, found.auc, found.se, found.interval, p, _example(trait, one, other, pair))


def _scores(trait: Trait, one: list[str | float], other: list[str | float]) -> list[float]:
    if trait.ordered:
        return [float(v) for v in (*one, *other)]
    codes = {value: float(i) for i, value in enumerate(sorted(set(map(str, (*one, *other)))))}
    return [codes[str(v)] for v in (*one, *other)]


def _halves(patients: list[str], y: npt.NDArray[np.bool_], seed: int) -> npt.NDArray[np.int64]:
    fold = np.zeros(len(patients), np.int64)
    for side in (True, False):
        rows = np.flatnonzero(y == side)
        _, second = stats.split_patients([patients[i] for i in rows], len(rows), derive_seed(seed, int(side)))
        fold[rows[second.numpy()]] = 1
    return fold


def _learned(
    trait: Trait, values: npt.NDArray[np.float64], y: npt.NDArray[np.bool_], learn: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Score each image by the likelihood ratio of its category or decile, learned from the images in `learn`."""
    if trait.ordered:
        cuts = np.unique(np.quantile(values[learn], np.linspace(0, 1, 11)[1:-1]))
        bins = np.searchsorted(cuts, values, side="right") + (len(cuts) + 1) * np.isin(values, cuts)
    else:
        bins = values.astype(np.int64)
    n = int(bins.max()) + 1
    a = np.bincount(bins[learn & y], minlength=n) + 0.5
    b = np.bincount(bins[learn & ~y], minlength=n) + 0.5
    ratio: npt.NDArray[np.float64] = np.log(a / a.sum()) - np.log(b / b.sum())
    return ratio[bins]


def _example(trait: Trait, one: list[str | float], other: list[str | float], pair: Sides) -> str:
    if not trait.ordered:
        words = [", ".join(f"{v} ({n})" for v, n in Counter(map(str, part)).most_common(3)) for part in (one, other)]
    else:
        words = [f"{float(np.median(np.array(part, float))):.3g}" for part in (one, other)]
    return f"{trait.words}: {words[0]} in {pair.first.name}, {words[1]} in {pair.second.name}"


def decisive(found: list[Finding]) -> Finding | None:
    """The trait of the processing that alone tells the sets apart, if there is one."""
    sure = [f for f in found if f.trait.pipeline and f.trait.name != "format" and f.interval.lo > _DECISIVE]
    return max(sure, key=lambda f: f.auc, default=None)


def _selftest(pair: Sides, data: MetricInput) -> SelfTest:
    """Plant three pipeline differences in real images and see whether each is named."""
    real = pair.null()
    before = {f.trait.name: f.auc for f in audit_traits(real, data)}
    plants: tuple[tuple[str, Any, tuple[str, ...]], ...] = (
        ("a border", framed, ("border",)),
        ("coarser levels", coarser, ("step", "levels")),
        ("JPEG", jpeg, ("jpeg", "levels", "spectrum", "grid")),
    )
    missed = []
    for words, edit, traits in plants:
        planted = real.edited(lambda record, edit=edit: edit(record, data.intensity))  # type: ignore[misc]
        found = [f for f in audit_traits(planted, data) if f.trait.name in traits]
        if not any(f.interval.lo > max(0.5, before[f.trait.name]) for f in found):
            missed.append(words)
    power = 1 - len(missed) / 3
    named = "a border, coarser levels and JPEG compression were planted in real images, and seen"
    if missed:
        return SelfTest("failed", f"planted in real images and not seen: {', '.join(missed)}", power=power)
    return SelfTest("ok", named, power=power)
