"""The area under the curve: its value, its coverage, and the size of its test."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from medtrust import Insufficient, stats


def draw(rng, patients, per_patient, shift, within=0.7):
    """Scores of two sets whose images share a patient's own level; true area is Phi(shift / sqrt 2)."""
    scores, first, who = [], [], []
    for side, move in ((True, shift), (False, 0.0)):
        own = np.repeat(rng.normal(size=patients), per_patient) * np.sqrt(within)
        scores.append(move + own + rng.normal(size=patients * per_patient) * np.sqrt(1 - within))
        first += [side] * (patients * per_patient)
        who += [f"{side}{i // per_patient}" for i in range(patients * per_patient)]
    return np.concatenate(scores), np.array(first), who


def test_the_area_is_sklearns():
    """Averaged over folds of fresh scores, with ties."""
    rng = np.random.default_rng()
    folds = [draw(rng, 17 + k, 2, 0.8) for k in range(3)]
    scores = [np.round(s, 1) for s, _, _ in folds]
    found = stats.discriminate(scores, [f for _, f, _ in folds], [w for _, _, w in folds], 0.95)
    expected = np.mean([roc_auc_score(f, s) for s, (_, f, _) in zip(scores, folds, strict=True)])
    assert found.auc == pytest.approx(expected, abs=1e-12)
    assert found.interval.lo <= found.auc <= found.interval.hi


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_interval_covers_with_several_images_per_patient(shift):
    """A 95 % interval holds the true area in 90 to 99 % of 300 draws; ignoring the patient it would not."""
    rng = np.random.default_rng(4)
    truth = norm.cdf(shift / np.sqrt(2))
    held, naive = 0, 0
    for _ in range(300):
        scores, first, who = draw(rng, 40, 4, shift)
        a = stats.discriminate([scores], [first], [who], 0.95).interval
        b = stats.discriminate([scores], [first], [[str(i) for i in range(len(who))]], 0.95).interval
        held += a.lo <= truth <= a.hi
        naive += b.lo <= truth <= b.hi
    assert 270 <= held <= 297
    assert naive < held - 30


def test_perfect_separation_keeps_an_honest_bound():
    """With 30 patients and no error the lower bound is the exact one, not 1."""
    rng = np.random.default_rng(0)
    scores, first, who = draw(rng, 30, 1, 50.0)
    found = stats.discriminate([scores], [first], [who], 0.95)
    assert found.auc == 1
    assert 0.8 < found.interval.lo < 0.95


def test_the_test_keeps_its_size_and_has_power():
    """Rejections at 5 % of 200 draws: few without a difference, most with one."""
    rng = np.random.default_rng(1)
    rejections = {0.0: 0, 0.9: 0}
    for shift in rejections:
        for seed in range(200):
            scores, first, who = draw(rng, 20, 3, shift)
            rejections[shift] += stats.auc_test([scores], [first], [who], permutations=199, seed=seed) <= 0.05
    assert rejections[0.0] <= 20
    assert rejections[0.9] >= 150


def test_one_patient_is_no_sample():
    """A fold with one patient on a side is refused."""
    with pytest.raises(Insufficient, match="2 in each"):
        stats.discriminate([np.arange(4.0)], [np.array([1, 1, 0, 0], bool)], [["a", "a", "b", "c"]], 0.95)


def test_folds_that_learn_from_each_other_keep_coverage_and_size():
    """A linear classifier, trained in turn on the other fold of sets without a difference, 200 draws.

    As if folds were independent, the interval would hold one half in 87 % of them, and the test reject in 9 %.
    """
    rng = np.random.default_rng(3)
    held, rejected = 0, 0
    for seed in range(200):
        y = np.arange(200) < 100
        x = rng.normal(size=(200, 12))
        fold = np.concatenate([rng.permutation(100) % 2, rng.permutation(100) % 2])
        scores, first, who = [], [], []
        for k in (0, 1):
            learn, judge = fold != k, fold == k
            spread = np.cov(x[learn].T) + 0.1 * np.eye(12)
            gap = x[learn & y].mean(0) - x[learn & ~y].mean(0)
            scores.append(x[judge] @ np.linalg.solve(spread, gap))
            first.append(y[judge])
            who.append([str(i) for i in np.flatnonzero(judge)])
        interval = stats.discriminate(scores, first, who, 0.95).interval
        held += interval.lo <= 0.5 <= interval.hi
        rejected += stats.auc_test(scores, first, who, permutations=199, seed=seed) <= 0.05
    assert 184 <= held <= 199
    assert rejected <= 18
