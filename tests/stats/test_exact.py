"""Exact tests against enumeration, simulation and the definitions."""

from itertools import combinations
from math import ceil, comb, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtrust.stats.exact import (
    benjamini_hochberg,
    conformal_p,
    extreme_count_tail,
    fewest_flagged,
    holm,
    hypergeometric_tail,
    smallest_rejecting_count,
)

P_VALUES = st.lists(st.floats(0, 1), min_size=0, max_size=30)


@given(st.integers(1, 6), st.integers(0, 5), st.data())
@settings(max_examples=40, deadline=None)
def test_hypergeometric_tail_equals_enumeration(marked, other, data):
    """The tail equals counting every subset of the population."""
    draws = data.draw(st.integers(0, marked + other))
    k = data.draw(st.integers(0, draws + 1))
    subsets = list(combinations(range(marked + other), draws))
    expected = sum(sum(unit < marked for unit in subset) >= k for subset in subsets) / len(subsets)
    assert float(hypergeometric_tail(k, marked, other, draws)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("marked", "other"), [(600, 600), (700, 300), (800, 200), (900, 100), (7, 3)])
def test_smallest_rejecting_count_is_the_first_significant_one(marked, other):
    """One draw fewer is not significant; in large populations the count is near the textbook formula."""
    count = smallest_rejecting_count(marked, other, 0.05)
    assert comb(marked, count) / comb(marked + other, count) <= 0.05
    assert comb(marked, count - 1) / comb(marked + other, count - 1) > 0.05
    if marked + other >= 1000:
        assert abs(count - ceil(log(0.05) / log(marked / (marked + other)))) <= 1


@pytest.mark.parametrize(("marked", "other"), [(0, 5), (1, 1), (19, 0), (3, 1)])
def test_hopeless_splits_have_no_rejecting_count(marked, other):
    """Where even the most extreme draw is not rare there is no such count."""
    assert smallest_rejecting_count(marked, other, 0.05) is None


def test_extreme_count_tail_matches_simulation():
    """The chance that the k smallest all come from one group agrees with shuffling."""
    rng = np.random.default_rng(3)
    m, n, k = 12, 9, 3
    groups = np.r_[np.zeros(m), np.ones(n)]
    hits = np.mean([not rng.permutation(groups)[:k].any() for _ in range(20_000)])
    assert extreme_count_tail(k, m, n) == pytest.approx(hits, abs=0.01)
    assert extreme_count_tail(0, m, n) == 1.0
    assert extreme_count_tail(m + 1, m, n) == 0.0


def test_conformal_p_is_valid_and_counts_ties_against_suspicion():
    """Under exchangeability P(p <= t) is at most t, and equal scores count."""
    assert conformal_p([0.5, 0.1, 2.0], [0.5, 1.0, 1.5]).tolist() == [0.5, 0.25, 1.0]
    rng = np.random.default_rng(5)
    draws = rng.normal(size=(4000, 20))
    p = np.array([conformal_p(row[:1], row[1:])[0] for row in draws])
    for level in (0.05, 0.2, 0.5):
        assert np.mean(p <= level) <= level + 3 * np.sqrt(level / 4000)


def test_fewest_flagged_is_what_benjamini_hochberg_needs():
    """That many smallest p-values are flagged, one fewer are not."""
    m, n, q = 700, 250, 0.1
    fewest = fewest_flagged(m, n, q)
    for count, flagged in ((fewest, True), (fewest - 1, False)):
        p = np.r_[np.full(count, 1 / (n + 1)), np.ones(m - count)]
        assert bool((benjamini_hochberg(p) <= q).sum() == count and count) is flagged
    assert fewest_flagged(1, 10**6, 0.1) == 1


@given(P_VALUES)
def test_adjusted_p_values_keep_order_and_bounds(p):
    """Adjusted p-values are monotone in the raw ones, at least as large, at most one; Holm is the stricter."""
    for adjust in (benjamini_hochberg, holm):
        adjusted = adjust(p)
        assert adjusted.shape == (len(p),)
        order = np.argsort(p, kind="stable")
        assert (np.diff(adjusted[order]) >= -1e-12).all()
        assert (adjusted >= np.asarray(p) - 1e-12).all()
        assert (adjusted <= 1).all()
    assert (holm(p) >= benjamini_hochberg(p) - 1e-12).all()


def test_corrections_match_a_worked_example():
    """Hand-computed adjusted p-values of four tests."""
    p = [0.04, 0.01, 0.03, 0.5]
    assert holm(p) == pytest.approx([0.09, 0.04, 0.09, 0.5])
    assert benjamini_hochberg(p) == pytest.approx([0.16 / 3, 0.04, 0.16 / 3, 0.5])


def test_holm_bounds_the_family_wise_error():
    """With all nulls true, any rejection at 5 % happens in at most 5 % of families."""
    rng = np.random.default_rng(8)
    any_rejected = np.mean([(holm(rng.uniform(size=7)) <= 0.05).any() for _ in range(4000)])
    assert any_rejected <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4000)
