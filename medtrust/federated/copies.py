"""Looking for copies at one site: rankings stay there, counts leave."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medtrust import ops
from medtrust.errors import Insufficient, SafetyError
from medtrust.federated.layout import NEAREST
from medtrust.federated.study import RATES, REPETITIONS, Study
from medtrust.seeding import derive_seed
from medtrust.stats import CopyTest, copy_test, groups, plant, real_matches, split_p
from medtrust.stats.copying import NEIGHBOURS, Views, nearest_patients
from medtrust.stats.copying_power import planted_rankings
from medtrust.stats.embedding import pixel_views
from medtrust.stats.enrichment import EnrichmentTest
from medtrust.stats.linking import keep_one_of_linked
from medtrust.stats.sufficient import EnrichmentCounts, RankSum
from medtrust.types import FeatureMatrix

__all__ = ["Bank", "copy_arrays", "views_of"]

_REAL = 400  # patients whose images stand for a perfect generator
_ALPHA, _SPLIT_ALPHA = 0.05, 0.01
_TOP = 10  # patients of the top that secure sums speak of


@dataclass(frozen=True, slots=True)
class Bank:
    """Edited copies of a site's own images.

    Args:
        features: [b, d] in the space of the copy test.
        patients: Patient that each was made of.
    """

    features: torch.Tensor
    patients: tuple[str, ...]


def views_of(study: Study) -> Views | None:
    """Further versions of real rows in which a copy counts: mirrored and cropped, in medtrust's own pixel space."""
    return partial(pixel_views, shape=study.shape) if study.shape else None


def copy_arrays(
    study: Study, site: str, train: FeatureMatrix, holdout: FeatureMatrix, bank: Bank | None, secret: bytes
) -> dict[str, npt.NDArray[Any]]:
    """Everything that the study's questions about copies ask of a site.

    Args:
        study: The study.
        site: This site.
        train: Features in the space of the copy test.
        holdout: Likewise.
        bank: Edited copies for the self-test.
        secret: The site's own, which breaks ties and chooses images.

    Raises:
        SafetyError: Too few patients for the rule `cell`.
    """
    kept = keep_one_of_linked(train, holdout, study.seed, near=study.shape is not None)
    train, holdout = _rows(train, kept.train), _rows(holdout, kept.holdout)
    synthetic = torch.from_numpy(study.arrays["copies/synthetic"].copy())
    for name, side in (("train", train), ("holdout", holdout)):
        if len(set(side.patients)) < max(2 * study.rules.cell, NEAREST):
            raise SafetyError(
                f"site {site} reveals no counts of its closest patients: {name} has {len(set(side.patients))} of them "
                f"and the rule `cell` = {study.rules.cell} asks for twice as many: bring more patients"
            )
    arrays: dict[str, npt.NDArray[Any]] = {}
    if study.asks("privacy.cpm"):
        arrays |= _membership(study, site, train, holdout, synthetic, bank)
    if study.asks("privacy.ct"):
        arrays |= _ranks(study, site, train, holdout, synthetic, secret)
    return arrays


def _membership(
    study: Study, site: str, train: FeatureMatrix, holdout: FeatureMatrix, synthetic: torch.Tensor, bank: Bank | None
) -> dict[str, npt.NDArray[Any]]:
    if bank is None:
        raise ValueError("the copy test needs a bank of edited copies for its self-test")
    seed, views = derive_seed(study.seed, "copies", site), views_of(study)
    outcome = copy_test(train, holdout, synthetic, seed=seed, views=views, draws=999)
    cell = study.rules.cell
    counts = EnrichmentCounts.of(outcome.in_train, outcome.test.n_train, outcome.test.n_holdout, cell)
    codes = {
        (train.patients[at] if at >= 0 else holdout.patients[-1 - at]): int(code)
        for at, code in zip(outcome.pool.source.tolist(), outcome.pool.codes.tolist(), strict=True)
    }
    hits, fair = _planted(study, site, outcome, bank, codes, counts, views, seed)
    if study.secure_sums:
        test = EnrichmentTest(counts.n_train, counts.n_holdout, seed, shortest=cell)
        null = np.sort(test.simulated(len(counts.counts)))

        def surprise(at: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
            found = test.log_ratio(at.astype(np.float64))[0]
            least = null.size - np.searchsorted(null, found - 1e-9, side="left")
            return np.asarray(-2 * np.log((1 + least) / (1 + null.size)))

        top = max(c for c in counts.counts if c <= max(_TOP, counts.counts[0]))
        return {
            "copies/fisher.total": surprise(np.array([counts.hits])),
            "copies/fisher.top": np.array([counts.hits[counts.counts.index(top)], top, top * test.share], np.float64),
            "copies/fisher.planted": np.stack([surprise(each) for each in hits]),
            "copies/fisher.unfair": np.array([float(fair < _SPLIT_ALPHA / len(study.keys))]),
        }
    arrays: dict[str, npt.NDArray[Any]] = {
        "copies/counts.patients": np.array([counts.n_train, counts.n_holdout], np.int64),
        "copies/counts.lengths": np.array(counts.counts, np.int64),
        "copies/counts.hits": np.array(counts.hits, np.int64),
        "copies/counts.planted": hits,
        "copies/counts.split_p": np.array([fair], np.float64),
    }
    return arrays | (_nearest(outcome, synthetic, views) if study.header["copies"]["reveal"] == "distances" else {})


def _planted(
    study: Study,
    site: str,
    outcome: CopyTest,
    bank: Bank,
    codes: Mapping[str, int],
    counts: EnrichmentCounts,
    views: Views | None,
    seed: int,
) -> tuple[npt.NDArray[np.int64], float]:
    """Hits at the top when this site's part of all copies is planted, under random labels, [P, R, J]."""
    known = [i for i, patient in enumerate(bank.patients) if patient in codes]
    first_row = {int(code): row for row, code in reversed(list(enumerate(outcome.pool.codes.tolist())))}
    rows = np.array([first_row[codes[bank.patients[i]]] for i in known], dtype=np.int64)
    planted = plant(bank.features[torch.tensor(known, dtype=torch.int64)], rows, outcome.pool, views)
    own, real = real_matches(outcome.pool, _REAL, derive_seed(seed, "real"), views)
    background = real if outcome.p <= _ALPHA else outcome.matches
    samples, sites = len(outcome.matches.score), sorted(study.keys)
    found = np.zeros((len(RATES), REPETITIONS, len(counts.counts)), np.int64)
    for at, rate in enumerate(RATES):
        copies = round(rate * samples)
        mine = copies // len(sites) + (sites.index(site) < copies % len(sites))
        rng = np.random.default_rng([seed, at])
        rankings = planted_rankings(outcome, background, planted, mine, REPETITIONS, rng)
        for r, labels in enumerate(rankings):
            tops = np.cumsum(labels)
            found[at, r] = [tops[min(c, len(tops)) - 1] for c in counts.counts]
    return found, split_p(own, real, outcome.pool, derive_seed(seed, "split"), draws=999)


def _nearest(outcome: CopyTest, synthetic: torch.Tensor, views: Views | None) -> dict[str, npt.NDArray[Any]]:
    """Distances of every synthetic image to its nearest patients, and a number in place of the nearest one's name."""
    near = nearest_patients(synthetic, outcome.pool.features, outcome.pool.codes, NEIGHBOURS + 1, views=views)
    patient = near.patient[:, 0].numpy()
    return {
        "copies/nearest.distance": near.distance.numpy().astype(np.float64),
        "copies/nearest.patient": patient.astype(np.int64),
        "copies/nearest.train": outcome.pool.in_train[patient].astype(np.int64),
    }


def _ranks(
    study: Study, site: str, train: FeatureMatrix, holdout: FeatureMatrix, synthetic: torch.Tensor, secret: bytes
) -> dict[str, npt.NDArray[Any]]:
    """Compare this site's part of the synthetic images with one image of each holdout patient."""
    order = np.argsort(
        [hashlib.sha256(secret + f"{digest}:{i}".encode()).digest() for i, digest in enumerate(holdout.digests)]
    )
    of_row = groups(holdout.patients, len(holdout))[0].numpy()
    single = np.sort(order[np.unique(of_row[order], return_index=True)[1]])
    mine = dealt_samples(study, len(synthetic)) == sorted(study.keys).index(site)
    if not mine.any():
        raise Insufficient(f"no synthetic image is left for site {site}: the study needs more of them than sites")
    rows = train.values.double()
    found = RankSum.of(
        ops.nearest(synthetic[torch.from_numpy(mine)].double(), rows, 1).distances[:, 0].numpy(),
        ops.nearest(holdout.values[torch.from_numpy(single)].double(), rows, 1).distances[:, 0].numpy(),
    )
    if study.secure_sums:
        return {"copies/elteren.sums": np.array([found.excess, found.variance])}
    return {
        "copies/ranks.u": np.array([found.u]),
        "copies/ranks.n": np.array([found.n_synthetic, found.n_holdout], np.int64),
    }


def dealt_samples(study: Study, count: int) -> npt.NDArray[np.int64]:
    """Which site compares each synthetic image: each is compared at one, or sites would share their errors."""
    rng = np.random.default_rng(derive_seed(study.seed, "dealt samples"))
    return np.asarray(rng.permutation(count) % len(study.keys), dtype=np.int64)


def _rows(features: FeatureMatrix, rows: npt.NDArray[np.int64]) -> FeatureMatrix:
    keep = rows.tolist()
    return replace(
        features,
        values=features.values[torch.from_numpy(rows)],
        patients=tuple(features.patients[i] for i in keep),
        digests=tuple(features.digests[i] for i in keep),
    )
