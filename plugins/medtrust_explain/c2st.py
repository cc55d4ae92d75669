"""Classifier two-sample test: can a small network tell synthetic images from real ones of patients it never saw?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medtrust import Estimate, Insufficient, MetricInput, Null, Resolution, Result, SelfTest, TestOutcome, stats
from medtrust.errors import ConfigError
from medtrust.seeding import derive_seed
from medtrust.types import Probe, Score, Target
from medtrust_explain.artefacts import Planted, plant_artefact
from medtrust_explain.comparison import Sides, sides
from medtrust_explain.network import Classifier, predict, shuffled, train_all
from medtrust_explain.pixels import prepared
from medtrust_explain.shortcut import audit_traits, decisive

__all__ = ["Folded", "Samples", "TwoSampleTest", "crossfit"]

_MOST = 2000  # images per side
_SIDE = 64  # pixels: larger images are averaged down to this
_FOLDS = 3
_PERMUTATIONS = 1999
_POWER = 0.8
_TRAITS = 150  # images per set that are looked at for a shortcut
_PROBE = 500  # images per side that an artefact is planted among
_SHOWN = 128  # images offered to explainers
_PROBED = 64  # of them with a planted artefact
_BASELINES = 16  # real images that stand for nothing to see
_FALSE = 0.005  # real told from real at this p-value is no accident


@dataclass(frozen=True, slots=True)
class Samples:
    """Images of two sides with label and patient.

    Args:
        images: [N, C, H, W] float32 in [0, 1].
        first: Which images belong to the first side, [N].
        patients: Patient of each image.
    """

    images: torch.Tensor
    first: npt.NDArray[np.bool_]
    patients: list[str]


@dataclass(frozen=True, slots=True)
class Folded:
    """Scores by networks that saw no image of the patient.

    Args:
        networks: One per fold that was judged.
        rows: Rows that each network judged and did not learn from.
        scores: Their logits.
    """

    networks: list[Classifier]
    rows: list[npt.NDArray[np.int64]]
    scores: list[npt.NDArray[np.float64]]

    def judged(self, samples: Samples, level: float) -> stats.Discrimination:
        """Area under the curve with its interval."""
        return stats.discriminate(self.scores, *self._sides(samples), level)

    def p(self, samples: Samples, seed: int) -> float:
        """One-sided permutation p-value."""
        return stats.auc_test(self.scores, *self._sides(samples), permutations=_PERMUTATIONS, seed=seed)

    def _sides(self, samples: Samples) -> tuple[list[npt.NDArray[np.bool_]], list[list[str]]]:
        return [samples.first[rows] for rows in self.rows], [[samples.patients[i] for i in rows] for rows in self.rows]


class TwoSampleTest:
    """Train a small network on two thirds of the patients, judge the rest, in turn; report how well it can.

    Reference: Lopez-Paz and Oquab 2017, arXiv:1610.06545.
    """

    def compute(self, data: MetricInput) -> Result:
        """Compare at most 2000 images a side; options `folds` (3), `most` (2000) and `epochs` (8 to 20).

        Raises:
            Insufficient: Too few images or patients, unlike shapes, or a shortcut that decides before any network.
        """
        folds, most = _whole(data, "folds", _FOLDS, 2), _whole(data, "most", _MOST, 40)
        epochs = _whole(data, "epochs", 0, 1) if "epochs" in data.options else None
        torch.set_num_threads(1)  # sums in one order; the host restores the number
        pair = sides(data, most)
        cut = decisive(audit_traits(sides(data, min(most, _TRAITS)), data))
        if cut is not None:
            raise Insufficient(
                f"the sets differ by {cut.trait.words} ({cut.example}), which a classifier would learn instead of what "
                f"the images show: {cut.trait.remedy} and run again"
            )
        samples, null, planted = _samples(pair, data), _samples(pair.null(), data), _planted(pair, data)
        if len(samples.images) and samples.images.shape[1:] != null.images.shape[1:]:
            raise Insufficient("synthetic and real images differ in shape: bring all sets to one size first")
        # Each half judging the other would add a network and no certainty: their chance errors repeat (see
        # `stats.discriminate`). One half learns, the other is judged.
        main, same, probe = crossfit(
            [(samples, folds), (null, 2), (planted.samples, 2)],
            epochs,
            derive_seed(data.seed, "train"),
            judged=(folds, 1, 1),
        )
        found, floor = main.judged(samples, data.level), same.judged(null, data.level)
        p = main.p(samples, derive_seed(data.seed, "permute"))
        reach = stats.min_detectable(floor.se, data.level, floor.interval.n_units - 1, _POWER)
        facts: dict[str, Any] = {
            "images_per_side": int(samples.first.sum()),
            "folds": folds,
            "pixels_a_side": max(samples.images.shape[-2:]),
        }
        return Result(
            estimate=Estimate(found.auc, "AUC", "lower"),
            interval=found.interval,
            test=TestOutcome(found.auc, p, p, "classifier two-sample test"),
            null=Null(pair.reference, floor.auc, floor.interval),
            resolution=Resolution(
                min(reach, 0.5), _POWER,
                f"With {floor.interval.n_units} patients on the smaller side, an AUC less than {reach:.2g} above one "
                "half could not have been told from chance.",
            ),
            selftest=_selftest(
                probe.judged(planted.samples, data.level),
                floor.auc,
                same.p(null, derive_seed(data.seed, "permute", "null")),
                planted.kind,
            ),
            facts=facts,
            notes=(*pair.notes, *_notes(data)),
            target=_target(pair, samples, main, found, planted, probe),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Plant:
    samples: Samples
    masks: torch.Tensor
    kind: str


def _samples(pair: Sides, data: MetricInput) -> Samples:
    one = prepared(pair.first, pair.first_rows, data.intensity, _SIDE)
    two = prepared(pair.second, pair.second_rows, data.intensity, _SIDE)
    if one.shape[1:] != two.shape[1:]:
        raise Insufficient(
            f"{pair.first.name} images are {_words(one)}, {pair.second.name} images {_words(two)}: bring them to one "
            "size"
        )
    # a patient of either side keeps the side's mark: one who is on both must not link the labels
    owners = [f"1:{p}" for p in pair.patients(pair.first, pair.first_rows)]
    owners += [f"2:{p}" for p in pair.patients(pair.second, pair.second_rows)]
    return Samples(torch.cat([one, two]), np.arange(len(owners)) < len(one), owners)


def _planted(pair: Sides, data: MetricInput) -> _Plant:
    """Real against real, with an artefact in a known place of every image of the first side."""
    null = pair.null()
    fewer = replace(null, first_rows=null.first_rows[:_PROBE], second_rows=null.second_rows[:_PROBE])
    real = _samples(fewer, data)
    kind = "checkerboard"
    rng = np.random.default_rng(derive_seed(data.seed, "plant"))
    changed: list[Planted] = [plant_artefact(image, kind, rng) for image in real.images[torch.from_numpy(real.first)]]
    images = real.images.clone()
    images[torch.from_numpy(real.first)] = torch.stack([c.image for c in changed])
    masks = torch.stack([c.mask for c in changed])
    return _Plant(Samples(images, real.first, real.patients), masks, kind)


def crossfit(
    tasks: list[tuple[Samples, int]], epochs: int | None, seed: int, *, judged: tuple[int, ...] | None = None
) -> list[Folded]:
    """Train the networks of all tasks side by side.

    Args:
        tasks: Samples and number of folds.
        epochs: Passes over the images; None leaves it to the size of the set.
        seed: Seed of folds, starts and orders.
        judged: Per task, how many of its folds are judged, each by one network; all of them when not given.

    Raises:
        Insufficient: A side has fewer than two patients per fold.
    """
    jobs, seeds, plan = [], [], []
    for number, (samples, folds) in enumerate(tasks):
        fold = _folds(samples, folds, derive_seed(seed, "folds", number))
        for k in range(folds if judged is None else judged[number]):
            learn = torch.from_numpy(fold != k)
            jobs.append((samples.images[learn], torch.from_numpy(samples.first.astype(np.float32))[learn]))
            seeds.append(derive_seed(seed, "network", number, k))
            plan.append((number, np.flatnonzero(fold == k)))
    networks = train_all(jobs, epochs, seeds)
    found = [Folded([], [], []) for _ in tasks]
    for network, (number, rows) in zip(networks, plan, strict=True):
        found[number].networks.append(network)
        found[number].rows.append(rows)
        scores = predict(network, tasks[number][0].images[torch.from_numpy(rows)])
        found[number].scores.append(scores.double().numpy())
    return found


def _folds(samples: Samples, folds: int, seed: int) -> npt.NDArray[np.int64]:
    """Deal the patients of each side into folds of about equal numbers of patients."""
    fold = np.zeros(len(samples.patients), np.int64)
    for side in (True, False):
        rows = np.flatnonzero(samples.first == side)
        owners, codes = np.unique([samples.patients[i] for i in rows], return_inverse=True)
        if len(owners) < 2 * folds:
            raise Insufficient(f"needs {2 * folds} patients a side for {folds} folds, there are {len(owners)}")
        dealt = np.random.default_rng(derive_seed(seed, int(side))).permutation(len(owners)) % folds
        fold[rows] = dealt[codes]
    return fold


def _selftest(planted: stats.Discrimination, floor: float, p: float, kind: str) -> SelfTest:
    words = f"a {kind} patch planted in real images was told apart with AUC {planted.auc:.3f}"
    if planted.interval.lo <= 0.5:
        return SelfTest("failed", f"{words}, which is not better than chance", auc=planted.auc)
    if p < _FALSE:
        return SelfTest("failed", f"real was told from real with AUC {floor:.3f} (p = {p:.2g})", auc=planted.auc)
    return SelfTest("ok", f"{words}; real was not told from real (AUC {floor:.3f}, p = {p:.2g})", auc=planted.auc)


def _target(
    pair: Sides, samples: Samples, main: Folded, found: stats.Discrimination, planted: _Plant, probe: Folded
) -> Target:
    """The first fold's network with the synthetic images that it did not learn from, the most suspicious first."""
    network, rows, scores = main.networks[0], main.rows[0], main.scores[0]
    ours = samples.first[rows]
    order = np.argsort(-scores[ours], kind="stable")[:_SHOWN]
    chosen = rows[ours][order]
    real = samples.images[torch.from_numpy(rows[~ours])]
    layer = network.layer
    judged = probe.rows[0][planted.samples.first[probe.rows[0]]][:_PROBED]
    known = torch.from_numpy(judged)
    detector = probe.networks[0]
    clean = planted.samples.images[torch.from_numpy(probe.rows[0][~planted.samples.first[probe.rows[0]]])]
    chance = "the classifier does no better than chance, so there is nothing to explain"
    return Target(
        score=Score(network, network, layer, real[:_BASELINES]),
        images=samples.images[torch.from_numpy(chosen)],
        sources=tuple((pair.first.name, pair.first_rows[i]) for i in chosen.tolist()),
        question="what the classifier takes for synthetic",
        randomised=lambda seed: _random(network, seed, layer, real[:_BASELINES]),
        probe=Probe(Score(detector, detector, layer, clean[:_BASELINES]), planted.samples.images[known],
                    planted.masks[known], f"{planted.kind} patch"),
        nothing=chance if found.interval.lo <= 0.5 else "",
    )  # fmt: skip


def _random(network: Classifier, seed: int, layer: str, baselines: torch.Tensor) -> Score:
    other = shuffled(network, seed)
    return Score(other, other, layer, baselines)


def _notes(data: MetricInput) -> tuple[str, ...]:
    longest = max(data.synthetic.images[0].pixels.shape[-2:])
    return (f"images of {longest} pixels a side were averaged down to {_SIDE}",) if longest > _SIDE else ()


def _words(images: torch.Tensor) -> str:
    return " x ".join(map(str, images.shape[1:]))


def _whole(data: MetricInput, name: str, default: int, least: int) -> int:
    value = data.options.get(name, default)
    try:
        number = int(str(value))
    except ValueError:
        number = least - 1
    if number < least:
        raise ConfigError(f"the option {name} is {value!r}: give a whole number from {least} up, such as {default}")
    return number
