"""Extreme count and copy rate: validity, coverage, and what planted copies do to them."""

import numpy as np
import pytest
from privacy_sets import make_audit

from medtrust.errors import Insufficient
from medtrust.stats import extreme_count_tail
from medtrust_privacy.rates import CopyRate, estimate_rate


@pytest.fixture(scope="module")
def clean():
    return CopyRate().compute(make_audit(21, samples=150, effect=0.1)[0])


@pytest.fixture(scope="module")
def copied():
    return CopyRate().compute(make_audit(22, copies=45, samples=150, effect=0.1)[0])


def test_clean_generators_show_no_copies(clean):
    """Without copies neither result raises an alarm, and both pass their self-test."""
    extreme, rate = clean["privacy.extreme_count"], clean["privacy.copy_rate"]
    assert extreme.test.p > 0.05
    assert extreme.estimate.value == extreme.facts["count"] / 150
    assert rate.interval.lo == 0 <= rate.estimate.value <= rate.interval.hi < 0.2
    for result in (extreme, rate):
        assert result.selftest.status == "ok", result.selftest.detail
        assert result.selftest.size <= 0.09
        assert 0 < result.resolution.min_detectable <= 0.2


def test_copies_are_counted_and_their_share_is_covered(copied):
    """Thirty per cent copies: many are extreme, and the interval of the rate holds the truth."""
    extreme, rate = copied["privacy.extreme_count"], copied["privacy.copy_rate"]
    assert extreme.test.p < 1e-4
    assert extreme.facts["count"] >= 20
    assert extreme.test.p == pytest.approx(extreme_count_tail(extreme.facts["count"], 150, 150))
    assert rate.interval.lo <= 0.3 <= rate.interval.hi
    assert rate.estimate.value == pytest.approx(0.3, abs=0.1)
    assert rate.null.value < 0.05
    assert rate.selftest.status == "ok", rate.selftest.detail


def test_a_holdout_is_needed():
    """Without a holdout there is nothing to compare with."""
    data, _ = make_audit(23, samples=40)
    with pytest.raises(Insufficient, match="holdout"):
        CopyRate().compute(type(data)(data.train, data.synthetic, None, data.intensity))


def test_same_input_same_answer(clean):
    """The seed decides everything that is drawn."""
    assert CopyRate().compute(make_audit(21, samples=150, effect=0.1)[0]) == clean


@pytest.mark.parametrize(("rate", "sensitivity"), [(0.0, 0.9), (0.03, 0.9), (0.2, 0.6), (1.0, 0.95)])
def test_rate_interval_covers_the_truth(rate, sensitivity):
    """The interval holds the true share of copies at least as often as stated, whatever the detector's quality."""
    rng = np.random.default_rng(int(1000 * rate + 10 * sensitivity))

    def copies(n):
        return np.where(rng.random(n) < sensitivity, rng.uniform(0, 0.2, n), rng.uniform(0.2, 1, n))

    covered = 0
    for _ in range(200):
        reference, planted = rng.uniform(0.1, 1, 150), copies(120)
        is_copy = rng.random(300) < rate
        synthetic = np.where(is_copy, copies(300), rng.uniform(0.1, 1, 300))
        found = estimate_rate(synthetic, reference, planted, 0.95)
        assert 0 <= found.lo <= found.value <= found.hi <= 1
        covered += found.lo <= rate <= found.hi
    assert covered / 200 >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / 200)


def test_a_blind_detector_bounds_nothing():
    """Where planted copies score like everybody, the upper bound is one."""
    rng = np.random.default_rng(3)
    found = estimate_rate(rng.uniform(size=100), rng.uniform(size=100), rng.uniform(size=100) + 0.5, 0.95)
    assert found.hi == 1
    assert found.lo == 0
