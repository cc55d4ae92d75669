"""Does a generator come closer to its training patients than to others? Copy score and close-pair membership test."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from medtrust import ops
from medtrust.errors import DataError, Insufficient
from medtrust.stats.enrichment import Enrichment, EnrichmentTest
from medtrust.types import FeatureMatrix

__all__ = ["CopyTest", "Matches", "Near", "Pool", "copy_score", "copy_test", "nearest_patients", "rank_patients"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Views = Callable[[torch.Tensor], Iterable[torch.Tensor]]

NEIGHBOURS = 5
_REFERENCE_ROWS = 16384  # rows whose versions are held at once


@dataclass(frozen=True, slots=True)
class Matches:
    """The nearest patient of each query, and how much nearer it is than the next ones.

    Args:
        patient: [m] code of the nearest patient.
        row: [m] row of the reference that is nearest.
        distance: [m] Euclidean distance to that row.
        score: [m] distance over the mean distance to the next patients: 0 is a copy, 1 is nothing special.
    """

    patient: Ints
    row: Ints
    distance: Floats
    score: Floats


def copy_score(
    queries: torch.Tensor,
    reference: torch.Tensor,
    patients: npt.ArrayLike,
    *,
    exclude: npt.ArrayLike | None = None,
    views: Views | None = None,
    neighbours: int = NEIGHBOURS,
) -> Matches:
    """Match each query to its nearest patient and score how singular that nearness is.

    The distance to a patient is that to the nearest of the patient's images. The score is the distance to the nearest
    patient over the mean distance to the `neighbours` next ones, so a query in a dense region is not suspicious for
    being near to everybody. Time is O(m n d), memory O(m + tile) beyond the input.

    Args:
        queries: [m, d] features, float32 or float64.
        reference: [n, d] features of the same space.
        patients: [n] patient code of each reference row: 0 … G - 1, none left out.
        exclude: [m] code of one patient whom the query must not be matched to, such as its own.
        views: Maps reference rows [r, d] to further versions of them [r, d], such as mirrored ones, that count as
            images of the same patient.
        neighbours: How many next patients make up the scale.

    Returns:
        Matches; a score is 1 where the next patients are as near as 0, for instance among constant images.

    Raises:
        Insufficient: Fewer than two patients to choose from, or features that are not finite.
    """
    best = nearest_patients(queries, reference, patients, neighbours + 1, exclude=exclude, views=views)
    distance = best.distance
    scale = distance[:, 1:].mean(dim=1)
    score = torch.where(scale > 0, distance[:, 0] / scale, torch.ones_like(scale))
    return Matches(best.patient[:, 0].numpy(), best.row[:, 0].numpy(), distance[:, 0].numpy(), score.numpy())


class Near(NamedTuple):
    """The nearest patients of each query, the nearest first: distance, patient and reference row, [m, k] each."""

    distance: torch.Tensor
    patient: torch.Tensor
    row: torch.Tensor


def nearest_patients(
    queries: torch.Tensor,
    reference: torch.Tensor,
    patients: npt.ArrayLike,
    k: int,
    *,
    exclude: npt.ArrayLike | None = None,
    views: Views | None = None,
) -> Near:
    """Find the k nearest patients of each query, fewer where there are fewer.

    Args:
        queries: As for `copy_score`.
        reference: As for `copy_score`.
        patients: As for `copy_score`.
        k: Patients wanted.
        exclude: As for `copy_score`.
        views: As for `copy_score`.

    Raises:
        Insufficient: As `copy_score`.
    """
    codes = np.asarray(patients, dtype=np.int64)
    n_patients = int(codes.max()) + 1 if codes.size else 0
    banned = None if exclude is None else torch.from_numpy(np.asarray(exclude, dtype=np.int64))
    if n_patients - (exclude is not None) < 2:
        raise Insufficient(f"the copy score needs at least two patients to choose from, got {n_patients}: add patients")
    for name, values in (("queries", queries), ("reference", reference)):
        if not bool(torch.isfinite(values).all()):
            raise Insufficient(f"{name} features hold values that are not finite: look for broken images")
    k = min(k, n_patients - (exclude is not None))
    kind = torch.promote_types(queries.dtype, reference.dtype)
    kind = kind if kind in (torch.float32, torch.float64) else torch.float64
    wanted, of_row = queries.to(kind), torch.from_numpy(codes)
    best: Near | None = None
    step = _REFERENCE_ROWS if views else max(1, len(reference))
    for start in range(0, len(reference), step):
        rows = torch.arange(start, min(start + step, len(reference)))
        block = reference[rows]
        for version in (block, *(views(block) if views else ())):
            found = _nearest_patients(wanted, version.to(kind), of_row[rows], k, banned)
            found = Near(found.distance, found.patient, found.row + start)
            best = found if best is None else _first_of_each(Near(*map(_joined, best, found)), k)
    assert best is not None
    return best


def _joined(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.cat([a, b], dim=1)


def _nearest_patients(
    queries: torch.Tensor, reference: torch.Tensor, codes: torch.Tensor, k: int, banned: torch.Tensor | None
) -> Near:
    """Find the k nearest patients of some reference rows; where fewer are there, the rest is at infinity."""
    largest = int(torch.bincount(codes).max())
    allowed = len(reference) - (largest if banned is not None else 0)  # rows that every query may be matched to
    if allowed < 1:
        return _every_patient(queries, reference, codes, k, banned)
    exclude = None if banned is None else (banned, codes)
    count = min(allowed, k if largest == 1 else 2 * k)
    near = ops.nearest(queries, reference, count, exclude)
    found = _first_of_each(Near(near.distances, codes[near.indices], near.indices), k)
    present = len(torch.unique(codes)) - (banned is not None)
    short = found.distance[:, min(k, present) - 1].isinf().nonzero().flatten() if present > 0 else torch.arange(0)
    if len(short):  # some patients took all places: look at every row for these queries alone
        barred = None if banned is None else banned[short]
        for place, part in zip(found, _every_patient(queries[short], reference, codes, k, barred), strict=True):
            place[short] = part
    return found


def _every_patient(
    queries: torch.Tensor, reference: torch.Tensor, codes: torch.Tensor, k: int, banned: torch.Tensor | None
) -> Near:
    """As `_nearest_patients`, by the distance to every row, few queries at a time."""
    parts: list[Near] = []
    step = max(1, 2**22 // len(reference))
    for at in range(0, len(queries), step):
        some = queries[at : at + step].double()
        squared = torch.stack([(reference.double() - query).square().sum(1) for query in some])
        if banned is not None:
            squared[banned[at : at + step, None] == codes] = torch.inf
        order = squared.argsort(dim=1, stable=True)
        near = Near(squared.gather(1, order).sqrt(), codes[order], order)
        parts.append(_first_of_each(near, k))
    if not parts:
        return Near(torch.zeros(0, k, dtype=torch.float64), *(torch.zeros(0, k, dtype=torch.int64) for _ in range(2)))
    return Near(*(torch.cat(each) for each in zip(*parts, strict=True)))


def _first_of_each(near: Near, k: int) -> Near:
    """Sort by distance, keep the nearest row of each patient, and of these the first k."""
    distance, order = near.distance.sort(dim=1, stable=True)
    patient, row = near.patient.gather(1, order), near.row.gather(1, order)
    by_patient, place = patient.sort(dim=1, stable=True)
    again = torch.zeros_like(by_patient, dtype=torch.bool)
    again[:, 1:] = by_patient[:, 1:] == by_patient[:, :-1]
    distance = distance.masked_fill(torch.zeros_like(again).scatter(1, place, again), torch.inf)
    distance, order = distance.sort(dim=1, stable=True)
    patient, row = patient.gather(1, order), row.gather(1, order)
    missing = k - distance.shape[1]
    if missing > 0:
        distance = torch.nn.functional.pad(distance, (0, missing), value=torch.inf)
        patient, row = (torch.nn.functional.pad(each, (0, missing)) for each in (patient, row))
    return Near(distance[:, :k], patient[:, :k], row[:, :k])


@dataclass(frozen=True, slots=True)
class Pool:
    """Train and holdout as one pool in random order, so that neither position nor code tells which is which.

    Args:
        features: [n, d] pooled rows.
        codes: [n] patient code of each row, 0 … G - 1.
        in_train: [G] whether each patient is a training patient.
        source: [n] row in train, or -1 - row in holdout.
    """

    features: torch.Tensor
    codes: Ints
    in_train: npt.NDArray[np.bool_]
    source: Ints

    @classmethod
    def of(cls, train: FeatureMatrix | torch.Tensor, holdout: FeatureMatrix | torch.Tensor, seed: int) -> Pool:
        """Pool two sets.

        Args:
            train: Training features; a bare tensor [n, d] makes each row its own patient.
            holdout: Holdout features of the same space.
            seed: Seed of the order.

        Raises:
            DataError: A patient is in both sets, or the spaces differ.
        """
        values = [each.values if isinstance(each, FeatureMatrix) else each for each in (train, holdout)]
        names = [
            [f"p:{p}" for p in each.patients]
            if isinstance(each, FeatureMatrix)
            else [f"{side}:{i}" for i in range(len(each))]
            for side, each in (("train", train), ("holdout", holdout))
        ]
        shared = set(names[0]) & set(names[1])
        if shared:
            raise DataError(f"{len(shared)} patients are in both train and holdout: split the data by patient again")
        if values[0].ndim != 2 or values[0].shape[1:] != values[1].shape[1:]:
            raise DataError(f"train {list(values[0].shape)} and holdout {list(values[1].shape)} differ: use one space")
        rng = np.random.default_rng(seed)
        everyone = sorted(set(names[0])) + sorted(set(names[1]))
        code = dict(zip(everyone, rng.permutation(len(everyone)).tolist(), strict=True))
        in_train = np.zeros(len(everyone), dtype=bool)
        in_train[[code[name] for name in set(names[0])]] = True
        order = rng.permutation(len(names[0]) + len(names[1]))
        source = np.r_[np.arange(len(names[0])), -1 - np.arange(len(names[1]))][order]
        codes = np.array([code[name] for name in names[0] + names[1]], dtype=np.int64)[order]
        return cls(torch.cat(values)[torch.from_numpy(order)], codes, in_train, source)


def rank_patients(matches: Matches) -> Ints:
    """Rank the matched patients, each once, most suspicious first.

    Args:
        matches: Matches of the synthetic samples.

    Returns:
        [M] index of the sample that brought each patient in, by rising score; M <= m distinct patients.
    """
    order = np.argsort(matches.score, kind="stable")
    _, first = np.unique(matches.patient[order], return_index=True)
    return order[np.sort(first)]


@dataclass(frozen=True, slots=True)
class CopyTest:
    """Outcome of the close-pair membership test.

    Args:
        enrichment: p-value, statistic, and the deciding top of the list.
        matches: Nearest pooled patient of each synthetic sample.
        ranked: Samples that brought a patient in, most suspicious first.
        in_train: [M] whether the patient of each ranked sample is a training patient.
        pool: The pool that was searched.
        test: The test, for further rankings against the same pool.
    """

    enrichment: Enrichment
    matches: Matches
    ranked: Ints
    in_train: npt.NDArray[np.bool_]
    pool: Pool
    test: EnrichmentTest

    @property
    def p(self) -> float:
        """Exact p-value of the hypothesis that the generator comes no closer to training than to holdout patients."""
        return self.enrichment.p


def copy_test(
    train: FeatureMatrix | torch.Tensor,
    holdout: FeatureMatrix | torch.Tensor,
    synthetic: FeatureMatrix | torch.Tensor,
    *,
    seed: int = 0,
    views: Views | None = None,
    draws: int = 9999,
) -> CopyTest:
    """Test whether the synthetic samples closest to a real patient are closest to training patients (CPM).

    Each sample is matched to its nearest patient in train and holdout together and scored without knowing which set the
    patient is from; the patients are ranked by score, each once. If the generator copied nobody, training patients
    are as rare at the top of this list as everywhere in it. The test is exact for a random split by patient,
    whatever the quality of the synthetic images.

    Args:
        train: Training features [n, d]; a bare tensor makes each row its own patient.
        holdout: Features of real patients whom the generator never saw.
        synthetic: Features of the generator's samples.
        seed: Seed of the order of the pool and of the null distribution.
        views: Further versions of real rows in which a copy counts as well, see `copy_score`.
        draws: Simulated assignments of labels behind the p-value.

    Raises:
        DataError: A patient is in both sets, or the sets are of different spaces.
        Insufficient: Features are not finite, or too few patients are matched to rank them.

    Reference: Meehan et al. 2020, arXiv 2004.05675, for testing copies against a holdout.
    """
    pool = Pool.of(train, holdout, seed)
    values = synthetic.values if isinstance(synthetic, FeatureMatrix) else synthetic
    matches = copy_score(values, pool.features, pool.codes, views=views)
    n_train = int(pool.in_train.sum())
    test = EnrichmentTest(n_train, len(pool.in_train) - n_train, seed, draws)
    ranked = rank_patients(matches)
    in_train = pool.in_train[matches.patient[ranked]]
    return CopyTest(test(in_train), matches, ranked, in_train, pool, test)
