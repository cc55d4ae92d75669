"""The enrichment test: exact against enumeration, monotone, and as sharp as the sample size allows."""

from itertools import combinations

import numpy as np
import pytest

from medtrust.errors import Insufficient
from medtrust.stats.enrichment import EnrichmentTest


def all_labellings(n_train, n_holdout):
    """Every assignment of labels to the ranks of a list."""
    n = n_train + n_holdout
    chosen = np.array(list(combinations(range(n), n_train)))
    labels = np.zeros((len(chosen), n), dtype=bool)
    labels[np.arange(len(chosen))[:, None], chosen] = True
    return labels


@pytest.mark.parametrize(("n_train", "n_holdout"), [(6, 6), (8, 4), (4, 9)])
def test_p_value_agrees_with_enumeration(n_train, n_holdout):
    """The simulated p-value is the share of labellings with a statistic at least as large."""
    labels = all_labellings(n_train, n_holdout)
    test = EnrichmentTest(n_train, n_holdout, seed=1)
    statistics = np.array([test(row).statistic for row in labels])
    exact = (statistics[:, None] <= statistics[None] + 1e-9).mean(1)
    assert np.abs(test.p_values(labels) - exact).max() < 0.02
    for level in (0.01, 0.05, 0.2):
        assert (exact <= level).mean() <= level


@pytest.mark.parametrize(
    ("n_train", "n_holdout", "length"), [(600, 600, 400), (1000, 250, 90), (30, 20, 17), (5, 70, 3)]
)
def test_size_under_random_labels(n_train, n_holdout, length):
    """With random labels the p-value is at most α in at most a share α of rankings, for any split and length."""
    test = EnrichmentTest(n_train, n_holdout, seed=2)
    p = test.p_values(test.draw_labels(length, 4000, seed=77))
    for level in (0.01, 0.05, 0.25):
        assert (p <= level).mean() <= level + 3 * np.sqrt(level / 4000) + 0.002


def test_drawn_labels_are_a_draw_without_replacement():
    """Whole rankings hold exactly the training patients, and every rank has the same share of them."""
    test = EnrichmentTest(7, 4, seed=0)
    labels = test.draw_labels(11, 20_000, seed=5)
    assert (labels.sum(1) == 7).all()
    assert np.abs(labels.mean(0) - 7 / 11).max() < 4 * np.sqrt(0.25 / 20_000)


def test_more_training_patients_at_the_top_lower_the_p_value():
    """Turning a holdout label of the list into train never raises the p-value."""
    rng = np.random.default_rng(6)
    test = EnrichmentTest(200, 200, seed=3)
    for _ in range(30):
        labels = rng.random(rng.integers(3, 80)) < 0.6
        better = labels.copy()
        better[rng.integers(len(labels))] = True
        assert test(better).p <= test(labels).p


def test_pure_tops_are_found_and_named():
    """Nine copies at the head of a balanced random list are significant, and the deciding count is near nine."""
    rng = np.random.default_rng(7)
    test = EnrichmentTest(500, 500, seed=4)
    outcomes = [test(np.r_[np.ones(9, dtype=bool), rng.random(300) < 0.5]) for _ in range(50)]
    assert np.mean([outcome.p <= 0.05 for outcome in outcomes]) >= 0.95
    assert 7 <= np.median([outcome.count for outcome in outcomes]) <= 14
    assert all(outcome.in_train <= outcome.count and outcome.p_count <= 1 for outcome in outcomes)


@pytest.mark.parametrize(("n_train", "n_holdout"), [(600, 600), (900, 300), (950, 50)])
def test_smallest_count_is_where_rejection_begins(n_train, n_holdout):
    """That many training patients in front reject, and the next smaller length of the grid does not."""
    test = EnrichmentTest(n_train, n_holdout, seed=5)
    count = test.smallest_count(0.05)
    assert test(np.ones(count, dtype=bool)).p <= 0.05
    assert test(np.ones(max(3, count // 2), dtype=bool)).p > 0.05 or count == 3


def test_hopeless_splits_and_short_lists():
    """A split that can never reject says so, and lists too short to test are refused."""
    assert EnrichmentTest(3, 1, seed=0).smallest_count(0.05) is None
    with pytest.raises(Insufficient, match="patients are ranked"):
        EnrichmentTest(10, 10, seed=0)([True, True])
    with pytest.raises(Insufficient, match="both sides"):
        EnrichmentTest(10, 0, seed=0)
