"""Exact and near duplicates: counts by the definition, intervals by patient, refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from privacy_sets import LEVELS, fields, make_set

from medtrust.errors import Insufficient
from medtrust.stats import clopper_pearson
from medtrust.types import FeatureMatrix, MetricInput
from medtrust_features.phash import PerceptualHash
from medtrust_privacy.common import interval_of_share
from medtrust_privacy.duplicates import Duplicates, nearest_hash


def phash(images, intensity):
    return PerceptualHash().extract(torch.from_numpy(images), intensity)


def make_input(train, synthetic, holdout=None, train_names=None, holdout_names=None):
    def one(name, images, names, prefix):
        return make_set(name, images, names or [f"{prefix}{i}" for i in range(len(images))], phash, "phash")

    return MetricInput(
        train=one("train", train, train_names, "t"),
        synthetic=one("synthetic", synthetic, None, "s"),
        holdout=None if holdout is None else one("holdout", holdout, holdout_names, "h"),
        intensity=LEVELS,
        seed=1,
        space="phash",
    )


def both(data):
    answer = Duplicates().compute(data)
    assert set(answer) == {"privacy.duplicates", "privacy.near_duplicates"}
    return answer["privacy.duplicates"], answer["privacy.near_duplicates"]


def test_exact_copies_are_counted_and_shown():
    """Five of forty samples are train images: share, interval, null and evidence say so."""
    rng = np.random.default_rng(0)
    train, holdout, synthetic = fields(rng, 50), fields(rng, 30), fields(rng, 40)
    synthetic[[3, 8, 9, 20, 39]] = train[[0, 7, 7, 30, 49]]
    exact, near = both(make_input(train, synthetic, holdout))
    assert exact.estimate.value == pytest.approx(5 / 40)
    assert (exact.interval.lo, exact.interval.hi) == pytest.approx(clopper_pearson(5, 40, 0.95))
    assert exact.null.value == 0
    assert exact.null.interval.hi == pytest.approx(clopper_pearson(0, 30, 0.95)[1])
    assert exact.facts["train_synthetic"] == 5
    assert exact.facts["within_synthetic"] == 1
    shown = [(item.pictures[0].sources[0][1], item.pictures[1].sources[0][1]) for item in exact.evidence]
    assert shown == [(3, 0), (8, 7), (9, 7), (20, 30), (39, 49)]
    assert exact.selftest.status == "ok"
    assert near.estimate.value >= exact.estimate.value
    assert not exact.notes


def test_clean_sets_have_no_exact_duplicates_but_an_upper_bound():
    """Zero found is not zero: the interval reaches up and the resolution names what may be missed."""
    rng = np.random.default_rng(1)
    exact, _ = both(make_input(fields(rng, 40), fields(rng, 60), fields(rng, 20)))
    assert exact.estimate.value == 0
    assert exact.interval.hi == pytest.approx(clopper_pearson(0, 60, 0.95)[1])
    assert (1 - exact.resolution.min_detectable) ** 60 == pytest.approx(0.2)


def test_leaking_splits_are_noted_loudly():
    """Shared patients and shared pixels between train and holdout are facts and notes."""
    rng = np.random.default_rng(2)
    train, holdout = fields(rng, 20), fields(rng, 10)
    holdout[4] = train[11]
    exact, _ = both(make_input(train, fields(rng, 15), holdout, holdout_names=["t3", *"abcdefghi"]))
    assert exact.facts["train_holdout"] == 1
    assert exact.facts["train_holdout_patients"] == 1
    assert any("patients are in both" in note for note in exact.notes)
    assert any("leaking" in note for note in exact.notes)
    assert exact.null.value == pytest.approx(0.1)


def test_duplicates_within_train_are_told_apart_by_patient():
    """The same pixels twice for one patient differ from the same pixels under two names."""
    rng = np.random.default_rng(3)
    train = fields(rng, 10)
    train[1], train[5] = train[0], train[4]
    names = ["a", "a", "b", "c", "d", "e", "f", "g", "h", "i"]
    exact, near = both(make_input(train, fields(rng, 10), train_names=names))
    assert exact.facts["within_train"] == 2
    assert exact.facts["within_train_across_patients"] == 2
    assert near.facts["within_train_across_patients"] >= 2
    assert exact.null is None
    assert near.selftest.status == "not_run"


def test_near_duplicates_survive_recompression_and_flat_images_do_not_match():
    """Slightly noisy copies are near duplicates; images without structure are counted apart."""
    rng = np.random.default_rng(4)
    train, synthetic = fields(rng, 60), fields(rng, 50)
    noisy = np.clip(train[:6] + rng.normal(0, 2, train[:6].shape), 0, 255)
    synthetic[10:16] = noisy.round().astype(np.uint8)
    synthetic[20], train[30] = 7, 9
    exact, near = both(make_input(train, synthetic, fields(rng, 40)))
    assert exact.estimate.value == 0
    shown = {(item.pictures[0].sources[0][1], item.pictures[1].sources[0][1]) for item in near.evidence}
    assert len(shown & {(10 + i, i) for i in range(6)}) >= 5
    assert near.facts["train_without_structure"] == near.facts["synthetic_without_structure"] == 1
    assert all(item.facts["bits"] <= 4 for item in near.evidence)
    assert all(item.pictures[0].sources[0][1] != 20 for item in near.evidence)
    bits = [item.facts["bits"] for item in near.evidence]
    assert bits == sorted(bits)


def test_hashes_that_confuse_strangers_fail_the_selftest():
    """Where holdout images pass for copies too, the near-duplicate count means nothing and says so."""
    rng = np.random.default_rng(5)
    base = fields(rng, 1)

    def alike(n):
        return np.clip(base + rng.normal(0, 1, (n, *base.shape[1:])), 0, 255).round().astype(np.uint8)

    _, near = both(make_input(alike(30), alike(30), alike(30)))
    assert near.selftest.status == "failed"
    assert near.selftest.size > 0.09


@pytest.mark.parametrize("seed", range(4))
def test_nearest_hash_equals_brute_force(seed):
    """Distance and row follow the definition across tiles, with and without patients, for flat hashes too."""
    rng = np.random.default_rng(seed)
    m, n = (1100, 40) if seed % 2 else (13, 8300)
    queries = torch.from_numpy(rng.integers(0, 2, (m, 9))).float()
    reference = torch.from_numpy(rng.integers(0, 2, (n, 9))).float()
    queries[2] = 0
    names = tuple(map(str, rng.integers(0, 5, m))), tuple(map(str, rng.integers(0, 5, n)))
    apart = names if seed >= 2 else None
    distance, row = nearest_hash(queries, reference, apart)
    expected = (queries[:, None] != reference[None]).sum(2).numpy()
    barred = (queries.sum(1) <= 1).numpy()[:, None] | (reference.sum(1) <= 1).numpy()[None]
    if apart:
        barred |= np.array(names[0])[:, None] == np.array(names[1])[None]
    expected = np.where(barred, 10, expected)
    assert np.array_equal(distance, expected.min(1))
    found = row >= 0
    assert np.array_equal(found, expected.min(1) < 10)
    assert np.array_equal(expected[np.flatnonzero(found), row[found]], distance[found])


def test_refusals():
    """An empty set and hashes that are not finite are refused with a sentence."""
    rng = np.random.default_rng(6)
    data = make_input(fields(rng, 5), fields(rng, 5))
    empty = replace(data.synthetic, images=[], patients=(), digests=(), features=None)
    with pytest.raises(Insufficient, match="synthetic is empty"):
        both(replace(data, synthetic=empty))
    values = data.train.features.values.clone()
    values[0, 3] = float("nan")
    features = FeatureMatrix(values, data.train.patients, data.train.digests, "phash", "")
    with pytest.raises(Insufficient, match="train have hashes that are not finite"):
        both(replace(data, train=replace(data.train, features=features)))
    one = make_input(fields(rng, 1), fields(rng, 1))
    assert both(one)[0].interval.hi == pytest.approx(clopper_pearson(0, 1, 0.95)[1])


def test_interval_of_a_share_knows_that_images_of_a_patient_hang_together():
    """One image per patient gives Clopper-Pearson; repeated images widen it and keep its coverage."""
    own = tuple(map(str, range(40)))
    hits = np.arange(40) < 6
    share, interval = interval_of_share(hits, own, 0.95)
    assert share == pytest.approx(0.15)
    assert (interval.lo, interval.hi) == pytest.approx(clopper_pearson(6, 40, 0.95))
    assert (interval.unit, interval.n_units) == ("image", 40)
    people = tuple(str(i // 5) for i in range(200))
    _, repeated = interval_of_share(np.repeat(hits, 5), people, 0.95)
    assert repeated.hi - repeated.lo >= 0.95 * (interval.hi - interval.lo)
    assert repeated.unit == "patient"
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(400):
        rate = rng.beta(1, 4, 40)
        drawn = rng.random((40, 5)) < rate[:, None]
        _, found = interval_of_share(drawn.ravel(), people, 0.95)
        covered += found.lo <= 0.2 <= found.hi
    assert covered / 400 >= 0.92
