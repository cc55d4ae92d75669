"""Membership inference: the area under the curve, its error, the bound on epsilon, and planted members."""

import numpy as np
import pytest
from privacy_sets import make_audit

from medtrust.errors import ConfigError, Insufficient
from medtrust_privacy.membership import Membership, auc_with_error, claimed_privacy, epsilon_lower_bound


def test_auc_equals_counting_pairs_and_its_error_the_spread():
    """The area is the share of pairs in the right order, and the standard error matches repeated draws."""
    rng = np.random.default_rng(0)
    members, others = rng.integers(0, 9, 40) / 3, rng.integers(1, 10, 31) / 3
    pairs = others[None] - members[:, None]
    assert auc_with_error(members, others)[0] == pytest.approx((pairs > 0).mean() + 0.5 * (pairs == 0).mean())
    drawn = np.array([auc_with_error(rng.normal(-0.5, 1, 60), rng.normal(0, 1, 45)) for _ in range(800)])
    assert drawn[:, 1].mean() == pytest.approx(drawn[:, 0].std(), rel=0.1)


def test_epsilon_is_bounded_only_by_real_leaks():
    """No leak gives zero in nearly all cases; a leak of half the members gives a bound below the truth."""
    rng = np.random.default_rng(1)
    nothing = [epsilon_lower_bound(rng.normal(size=300), rng.normal(size=300), 0.95, i) for i in range(100)]
    assert np.mean(np.array(nothing) > 0) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 100)
    members = np.r_[np.full(150, -9.0), rng.normal(size=150)]
    leak = epsilon_lower_bound(members, rng.normal(size=300), 0.95, 0)
    assert 1 < leak < np.log(0.5 / (1 / 301)) + 1


def test_members_of_a_clean_generator_cannot_be_told():
    """Without copies the area stays near one half, and low false positive rates are refused for want of patients."""
    data, _ = make_audit(31)
    result = Membership().compute(data)
    assert result.interval.lo <= 0.5
    assert abs(result.estimate.value - 0.5) < 0.15
    assert result.test.p > 0.05
    assert result.facts["epsilon_lower_bound"] == 0
    assert result.facts["members"] == 150
    assert result.facts["non_members"] == 75
    assert "needs 100 non-members" in result.facts["tpr_at_fpr_1_percent"]
    assert result.selftest.size <= 0.09
    assert result.selftest.status == "failed"
    assert "notices" in result.selftest.detail


def test_a_generator_that_copies_most_patients_gives_them_away():
    """With a copy of two thirds of the members the attack succeeds and the self-test stands."""
    data, _ = make_audit(32, copies=100, effect=0.3)
    result = Membership().compute(data)
    assert result.estimate.value > 0.65
    assert result.interval.lo > 0.5
    assert result.test.p <= 1e-4
    assert result.selftest.status == "ok", result.selftest.detail
    assert result.facts["epsilon_lower_bound"] > 0
    assert result == Membership().compute(data)


def test_low_false_positive_rates_are_reported_where_patients_suffice():
    """With 110 non-members a rate of one per cent is estimated, with its interval; one per mille is refused."""
    data, _ = make_audit(33, copies=60, n_train=80, n_holdout=220)
    facts = Membership().compute(data).facts
    assert facts["tpr_at_fpr_1_percent_lo"] <= facts["tpr_at_fpr_1_percent"] <= facts["tpr_at_fpr_1_percent_hi"]
    assert facts["tpr_at_fpr_1_percent"] > 0.3
    assert "needs 1000" in facts["tpr_at_fpr_0.1_percent"]


def test_too_few_holdout_patients_are_refused():
    """The holdout is split in two, so it needs twenty patients."""
    data, _ = make_audit(34, n_holdout=15, samples=40)
    with pytest.raises(Insufficient, match="20 holdout patients"):
        Membership().compute(data)


CLAIM = {"epsilon": 0.5, "delta": 1e-6, "unit": "patient", "accountant": "RDP", "claimed_by": "the model card"}


def test_a_claim_of_differential_privacy_is_recorded_and_held_against_the_attack():
    """The fields travel into the report; a generator that leaks more than was claimed is told so."""
    quiet, loud = make_audit(31, dp=CLAIM)[0], make_audit(32, copies=140, effect=0.3, dp=CLAIM)[0]
    facts = Membership().compute(quiet).facts
    assert {f"claimed_{name}": facts[f"claimed_{name}"] for name in ("epsilon", "delta", "unit", "accountant")} == {
        "claimed_epsilon": 0.5, "claimed_delta": 1e-6, "claimed_unit": "patient", "claimed_accountant": "RDP",
    }  # fmt: skip
    assert facts["claimed_by"] == "the model card"
    assert facts["delta"] == 1e-6
    assert any("does not contradict" in note for note in Membership().compute(quiet).notes)
    found = Membership().compute(loud)
    assert found.facts["epsilon_lower_bound"] > 0.5
    assert any("attack contradicts it" in note for note in found.notes)


@pytest.mark.parametrize(
    "change", [{"epsilon": -1}, {"delta": 1.0}, {"unit": ""}, {"epsilon": True}, {"claimed_by": 3}, {"more": 1}]
)
def test_half_a_claim_is_refused(change):
    """A claim with a wrong, missing or unknown field names what is wanted."""
    data, _ = make_audit(31, dp={**CLAIM, **change})
    with pytest.raises(ConfigError, match="dp"):
        claimed_privacy(data)
    with pytest.raises(ConfigError, match="accountant"):
        claimed_privacy(make_audit(31, dp={"epsilon": 1.0})[0])
