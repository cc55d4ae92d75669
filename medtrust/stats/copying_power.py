"""What the copy test would have seen: its size and power on an audit's own images, by planting copies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata

from medtrust.errors import DataError
from medtrust.stats.copying import CopyTest, Matches, Pool, Views, copy_score, rank_patients

__all__ = [
    "Planted",
    "copy_power",
    "copy_size",
    "detection_auc",
    "plant",
    "planted_rankings",
    "real_matches",
    "split_p",
]

Ints = npt.NDArray[np.int64]
_DEALT = 250  # labellings at once
_LONGEST = 400  # the enrichment test looks no further down the ranking


@dataclass(frozen=True, slots=True)
class Planted:
    """Copies of pooled images, matched to the pool as synthetic samples are.

    Args:
        source: [b] code of the patient whom each was copied from.
        matches: Their nearest patients and scores.
    """

    source: Ints
    matches: Matches


def plant(copies: torch.Tensor, source_rows: npt.ArrayLike, pool: Pool, views: Views | None = None) -> Planted:
    """Match copies to the pool.

    Args:
        copies: [b, d] features of edited copies.
        source_rows: [b] pool row that each was made from.
        pool: The pool of the audit.
        views: As given to `copy_test`.
    """
    return Planted(pool.codes[np.asarray(source_rows)], copy_score(copies, pool.features, pool.codes, views=views))


def real_matches(pool: Pool, limit: int, seed: int, views: Views | None = None) -> tuple[Ints, Matches]:
    """Match real images to the nearest other patient: what a perfect generator that copies nobody looks like.

    Args:
        pool: The pool of the audit.
        limit: At most this many patients, one random image of each.
        seed: Seed of the choice.
        views: As given to `copy_test`.

    Returns:
        [q] patient code of each image, and its match among all other patients.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(pool.codes))
    _, first = np.unique(pool.codes[order], return_index=True)
    rows = rng.permutation(order[first])[:limit]
    own = pool.codes[rows]
    return own, copy_score(pool.features[torch.from_numpy(rows)], pool.features, pool.codes, exclude=own, views=views)


def copy_power(
    result: CopyTest,
    background: Matches,
    planted: Planted,
    rates: Sequence[float],
    *,
    alpha: float = 0.05,
    repetitions: int = 200,
    seed: int = 0,
) -> list[float]:
    """Estimate how often the test rejects when a share of the samples are copies of training patients.

    Every repetition splits the patients anew at random, so copies that the generator may truly have made count as
    background, and replaces a share of the background by planted copies of patients who fell into train.

    Args:
        result: The audit's copy test.
        background: Matches of samples that are to count as free of copies.
        planted: A bank of copies; where a rate asks for more than the bank holds, fewer are planted.
        rates: Shares of copies among the samples.
        alpha: Level of the test.
        repetitions: Random splits per rate.
        seed: Seed.

    Returns:
        Rejection rate for each of `rates`.
    """
    powers = []
    for at, rate in enumerate(rates):
        rng = np.random.default_rng([seed, at])
        copies = round(rate * len(result.matches.score))
        rankings = planted_rankings(result, background, planted, copies, repetitions, rng)
        powers.append(sum(int(result.test.p_values(r[None])[0] <= alpha) for r in rankings) / repetitions)
    return powers


def planted_rankings(
    result: CopyTest, background: Matches, planted: Planted, copies: int, repetitions: int, rng: np.random.Generator
) -> Iterator[npt.NDArray[np.bool_]]:
    """Rankings of random splits in which some samples are copies of training patients.

    Args:
        result: The audit's copy test.
        background: Matches of samples that are to count as free of copies.
        planted: A bank of copies.
        copies: How many samples are copies; fewer where the bank holds fewer of training patients.
        repetitions: Random splits.
        rng: Source of the splits and choices.

    Yields:
        [M] whether each ranked patient is a training patient, most suspicious first.
    """
    n_samples = len(result.matches.score)
    for _ in range(repetitions):
        in_train = rng.permutation(result.pool.in_train)
        available = np.flatnonzero(in_train[planted.source])
        chosen = rng.permutation(available)[:copies]
        rest = n_samples - len(chosen)
        kept = rng.choice(len(background.score), rest, replace=rest > len(background.score))
        mixed = replace(
            background,
            patient=np.r_[background.patient[kept], planted.matches.patient[chosen]],
            score=np.r_[background.score[kept], planted.matches.score[chosen]],
        )
        yield in_train[mixed.patient[rank_patients(mixed)[:_LONGEST]]]


def copy_size(
    result: CopyTest, background: Matches, *, alpha: float = 0.05, repetitions: int = 4000, seed: int = 0
) -> float:
    """Estimate how often the test rejects under labels dealt anew at random, when nothing is there to find.

    The standard error is 0.0034 at 5 % and 4000 repetitions.
    """
    ranked = rank_patients(background)[:_LONGEST]
    patients = background.patient[ranked]
    rng = np.random.default_rng([seed, 0])
    rejected = 0
    for at in range(0, repetitions, _DEALT):
        labels = rng.permuted(np.tile(result.pool.in_train, (min(_DEALT, repetitions - at), 1)), axis=1)
        rejected += int((result.test.p_values(labels[:, patients]) <= alpha).sum())
    return rejected / repetitions


def detection_auc(planted: Planted, background: Matches) -> float:
    """Estimate the chance that a planted copy is scored as more suspicious than a background sample.

    Returns:
        Area under the ROC curve in [0, 1], ties counted half.

    Raises:
        DataError: No copies or no background.
    """
    b, m = len(planted.source), len(background.score)
    if b == 0 or m == 0:
        raise DataError("the area under the curve needs planted copies and a background: plant at least one copy")
    ranks = rankdata(np.r_[planted.matches.score, background.score])
    return float(1 - (ranks[:b].sum() - b * (b + 1) / 2) / (b * m))


def split_p(own: Ints, matches: Matches, pool: Pool, seed: int, draws: int = 4999) -> float:
    """Test whether train and holdout are a random split: are real images nearer to patients of their own set?

    The copy test rests on that split. A holdout from another site makes every sample look close to train.

    Args:
        own: [q] patient code of each real image.
        matches: Its nearest other patient.
        pool: The pool of the audit.
        seed: Seed of the simulated splits.
        draws: Simulated splits.

    Returns:
        One-sided exact p-value; small where the sets differ.

    Reference: Schilling 1986, nearest-neighbour two-sample test, doi 10.1080/01621459.1986.10478337.
    """
    rng = np.random.default_rng(seed)
    observed = int(np.count_nonzero(pool.in_train[own] == pool.in_train[matches.patient]))
    shuffled = pool.in_train.copy()
    at_least = 0
    for _ in range(draws):
        rng.shuffle(shuffled)
        at_least += int(np.count_nonzero(shuffled[own] == shuffled[matches.patient])) >= observed
    return (1 + at_least) / (1 + draws)
