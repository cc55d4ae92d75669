"""Planted copies: predicted power against what the test really does, and the check of the split."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medtrust.errors import DataError
from medtrust.stats.copying import Matches, copy_test
from medtrust.stats.copying_power import Planted, copy_power, copy_size, detection_auc, plant, real_matches, split_p


def cloud(rng, n, d=12, shift=0.0):
    return torch.from_numpy(rng.normal(size=(n, d)) + shift)


def edited(rng, rows):
    return rows + torch.from_numpy(rng.normal(0, 0.35, rows.shape))


def audit(rng, copies=0, n=200, m=250):
    train, holdout, synthetic = cloud(rng, n), cloud(rng, n), cloud(rng, m)
    synthetic[:copies] = edited(rng, train[rng.choice(n, copies, replace=False)])
    return copy_test(train, holdout, synthetic, seed=int(rng.integers(2**31)), draws=1999)


def bank_of(rng, result, size=150):
    rows = rng.permutation(len(result.pool.codes))[:size]
    return plant(edited(rng, result.pool.features[torch.from_numpy(rows)]), rows, result.pool)


def test_predicted_power_is_what_fresh_audits_show():
    """The power predicted from one audit agrees with the rejection rate over new data with as many copies."""
    rng = np.random.default_rng(0)
    predictions = []
    for _ in range(6):
        result = audit(rng)
        predictions.append(copy_power(result, result.matches, bank_of(rng, result), (0.02, 0.04), repetitions=100))
    for rate, predicted in zip((0.02, 0.04), np.mean(predictions, 0), strict=True):
        observed = np.mean([audit(rng, copies=round(rate * 250)).p <= 0.05 for _ in range(60)])
        assert observed == pytest.approx(predicted, abs=0.2)
    assert np.mean(predictions, 0)[0] < 0.9
    assert np.mean(predictions, 0)[1] > 0.5


def test_size_holds_even_if_the_generator_did_copy():
    """Labels dealt anew make true copies part of the background, so the size stays at α."""
    rng = np.random.default_rng(1)
    result = audit(rng, copies=60)
    assert result.p <= 0.05
    assert copy_size(result, result.matches, repetitions=1000) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1000)


def test_power_rises_with_the_rate_and_falls_with_the_background():
    """More copies are easier to see; a background as close as the copies hides them."""
    rng = np.random.default_rng(2)
    result = audit(rng)
    planted = bank_of(rng, result)
    powers = copy_power(result, result.matches, planted, (0.0, 0.02, 0.2), repetitions=150)
    assert powers[0] <= 0.12
    assert powers[0] < powers[1] < powers[2]
    assert powers[2] >= 0.99
    hidden = replace(result.matches, score=np.full_like(result.matches.score, planted.matches.score.min()))
    assert copy_power(result, hidden, planted, (0.02,), repetitions=150)[0] < powers[1]


def test_real_matches_never_match_a_patient_to_itself():
    """Each real image is matched to another patient, one image per patient, at most as many as asked for."""
    rng = np.random.default_rng(3)
    result = audit(rng)
    own, matches = real_matches(result.pool, 37, seed=1)
    assert len(own) == len(set(own.tolist())) == 37
    assert (own != matches.patient).all()
    everybody, _ = real_matches(result.pool, 10_000, seed=1)
    assert sorted(everybody.tolist()) == list(range(400))


def test_split_test_accepts_random_splits_and_finds_shifts():
    """A random split gives p <= 0.05 in about 5 %, a holdout from elsewhere a tiny p."""
    rng = np.random.default_rng(4)
    p = []
    for seed in range(120):
        result = copy_test(cloud(rng, 40), cloud(rng, 40), cloud(rng, 5), seed=seed, draws=99)
        p.append(split_p(*real_matches(result.pool, 80, seed), result.pool, seed, draws=199))
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 120)
    assert 0.35 < np.mean(p) < 0.7
    shifted = copy_test(cloud(rng, 60), cloud(rng, 60, shift=1.0), cloud(rng, 5), draws=99)
    assert split_p(*real_matches(shifted.pool, 120, 0), shifted.pool, 0) < 0.01


def test_auc_equals_counting_pairs():
    """The area is the share of (copy, background) pairs in the right order, ties half."""
    rng = np.random.default_rng(5)
    copies, background = rng.integers(0, 6, 13) / 6, rng.integers(0, 6, 29) / 6

    def as_matches(score):
        zeros = np.zeros(len(score), dtype=np.int64)
        return Matches(zeros, zeros, score, score)

    planted = Planted(np.zeros(13, dtype=np.int64), as_matches(copies))
    pairs = copies[:, None] - background[None]
    expected = (pairs < 0).mean() + 0.5 * (pairs == 0).mean()
    assert detection_auc(planted, as_matches(background)) == pytest.approx(expected)
    with pytest.raises(DataError, match="background"):
        detection_auc(planted, as_matches(background[:0]))
