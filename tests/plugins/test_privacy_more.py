"""The combined verdict, the usual numbers, pixel-level copies and residual risk."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from privacy_sets import fields, make_audit, make_set

from medtrust.errors import Insufficient
from medtrust.gate.decide import decide
from medtrust.gate.policy import Gate
from medtrust.stats import clopper_pearson
from medtrust_privacy.pixelwise import PixelCopies, cliques
from medtrust_privacy.risk import ResidualRisk, residual_risk, wilson
from medtrust_privacy.usual import UsualNumbers
from medtrust_privacy.verdict import Copying

EFFECT = 0.08


def in_two_spaces(data):
    """The audit in the pixel space and in one of its own: 6 x 6 block means."""

    def coarse(images):
        return torch.nn.functional.adaptive_avg_pool2d(images.double(), 6).flatten(1).float() / 50

    def moved(each):
        images = torch.from_numpy(np.stack([record.pixels for record in each.images]))
        return replace(each, features=replace(each.features, values=coarse(images), space="coarse"))

    other = replace(
        data, train=moved(data.train), holdout=moved(data.holdout), synthetic=moved(data.synthetic),
        space="coarse", embed=coarse,
    )  # fmt: skip
    return replace(data, by_space={"pixels": data, "coarse": other})


@pytest.fixture(scope="module")
def clean():
    return make_audit(3, effect=EFFECT)[0]


@pytest.fixture(scope="module")
def copied():
    return make_audit(4, copies=20, effect=EFFECT)[0]


def test_the_combined_verdict_corrects_for_every_declared_test(clean, copied):
    """Two tests in each of two spaces: the adjusted p is Holm's, and copies are found all the same."""
    quiet = Copying().compute(in_two_spaces(clean))
    assert quiet.facts["declared_tests"] == 4
    assert quiet.facts["alarms"] == "none"
    assert quiet.test.p_adj == pytest.approx(min(1.0, 4 * min(v for k, v in quiet.facts.items() if k.startswith("p_"))))
    assert quiet.selftest.status == "ok", quiet.selftest.detail
    assert quiet.selftest.size <= 0.09
    loud = Copying().compute(in_two_spaces(copied))
    assert loud.test.p_adj <= 0.01
    assert "cpm[pixels]" in loud.facts["alarms"]
    assert loud.estimate.value > 0


def test_the_usual_numbers_count_in_no_gate(clean):
    """Each stands beside the holdout's and that of a copy-free fault, fails on the fault, and decides nothing."""
    found = UsualNumbers().compute(clean)
    assert set(found) == {f"privacy.{n}" for n in ("ct", "authenticity", "dcr", "nndr", "fld_gap")}
    for name, result in found.items():
        assert result.interval.lo <= result.estimate.value <= result.interval.hi, name
        assert "fidelity with copying" in result.diagnostic
        for op, threshold in (("<=", 1e9), (">=", 1e9)):
            gate = Gate(name, name, "estimate", op, threshold, "point", "fail", 0.95)
            finding = decide(gate, result)
            assert finding.verdict == "INCONCLUSIVE"
            assert "diagnostic" in finding.why[0]
    for name in ("ct", "authenticity"):
        assert found[f"privacy.{name}"].selftest.status == "failed", name


def test_a_gate_still_decides_on_the_same_number_without_the_mark(clean):
    """The mark alone is what keeps a diagnostic from counting."""
    result = replace(UsualNumbers().compute(clean)["privacy.nndr"], diagnostic="", selftest=None)
    assert decide(Gate("g", "privacy.nndr", "estimate", "<=", 1e9, "point", "fail", 0.95), result).verdict == "PASS"


def test_pixel_level_copies_are_found(clean, copied):
    """Correlation and tiles are quiet without copies and find ten per cent; planted cliques are found."""
    quiet, loud = PixelCopies().compute(clean), PixelCopies().compute(copied)
    for name in ("privacy.max_ncc", "privacy.tile_l2"):
        assert quiet[name].test.p > 0.05
        assert loud[name].test.p <= 0.01, name
        assert loud[name].facts["count"] >= 5
    assert quiet["privacy.cliques"].estimate.value == 0
    assert quiet["privacy.cliques"].selftest.status == "ok"


def test_one_image_made_many_times_is_a_clique(clean):
    """Twelve edited copies of one image are one clique with its nearest train image; nine are none."""
    rng = np.random.default_rng(5)
    images = np.stack([record.pixels for record in clean.synthetic.images])
    for count, expected in ((12, 1), (9, 0)):
        noisy = clean.train.images[7].pixels[None] + rng.normal(0, 1, (count, *images.shape[1:]))
        mixed = np.concatenate([images, noisy.clip(0, 255).round().astype(np.uint8)])
        synthetic = make_set("synthetic", mixed, [f"s{i}" for i in range(len(mixed))])
        found = PixelCopies().compute(replace(clean, synthetic=synthetic))["privacy.cliques"]
        assert found.facts["cliques"] == expected
        assert found.estimate.value == pytest.approx(expected * count / len(mixed))
        if expected:
            assert found.evidence[0].pictures[1].sources == (("train", 7),)


def test_cliques_are_groups_within_reach_of_each_other():
    """A chain of near rows is no clique, a ball is."""
    chain = torch.arange(30, dtype=torch.float64)[:, None]
    assert cliques(chain, 1.0) == []
    ball = torch.cat([chain + 100, torch.linspace(0, 0.9, 11, dtype=torch.float64)[:, None]])
    assert [sorted(group) for group in cliques(ball, 1.0)] == [list(range(30, 41))]
    assert cliques(chain[:5], 9.0) == []


def test_images_of_several_sizes_are_refused(clean):
    """Pixels can only be compared at one size."""
    holdout = make_set("holdout", fields(np.random.default_rng(0), 40)[:, :, :18], [f"h{i}" for i in range(40)])
    features = replace(holdout.features, values=torch.rand(40, clean.train.features.values.shape[1]))
    with pytest.raises(Insufficient, match="size"):
        PixelCopies().compute(replace(clean, holdout=replace(holdout, features=features)))


def test_wilson_and_residual_risk():
    """Wilson's bounds solve their equation; equal success is no risk, and the bounds cover repeated draws."""
    lo, hi = wilson(9, 40, 0.95)
    for bound in (lo, hi):
        assert (9 / 40 - bound) ** 2 == pytest.approx(1.959964**2 * bound * (1 - bound) / 40)
    assert residual_risk(20, 20, 100, 0.95)[0] == 0
    assert residual_risk(60, 20, 100, 0.95)[0] == pytest.approx(0.5)
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        _, low, high = residual_risk(rng.binomial(150, 0.3), rng.binomial(150, 0.1), 150, 0.95)
        covered += low <= 0.2 / 0.9 <= high
    assert covered / 1000 >= clopper_pearson(950, 1000, 0.99)[0]


def test_residual_risk_sees_a_generator_that_copies_most_patients():
    """Where most patients were copied the attack gains; where nobody was, the interval holds zero."""
    risky = ResidualRisk().compute(make_audit(32, copies=110, effect=0.3)[0])
    assert risky.interval.lo > 0.2
    assert risky.facts["success_on_train"] > risky.facts["success_on_holdout"] + 0.2
    assert risky.facts["success_on_planted_copies"] >= 0.8
    calm = ResidualRisk().compute(make_audit(33)[0])
    assert calm.interval.lo <= 0 <= calm.interval.hi
    assert calm.selftest.size <= 0.09
    with pytest.raises(Insufficient, match="50 patients"):
        ResidualRisk().compute(make_audit(34, n_holdout=30)[0])


def test_an_attack_no_better_than_guessing_shows_nothing():
    """Samples without any likeness to patients make the attack blind, and the self-test says so."""
    data, _ = make_audit(35)
    rng = np.random.default_rng(1)
    noise = make_set(
        "synthetic", rng.integers(0, 256, (200, 1, 20, 24)).astype(np.uint8), [f"s{i}" for i in range(200)]
    )
    result = ResidualRisk().compute(replace(data, synthetic=noise))
    assert result.selftest.status == "failed"
    assert "no better than guessing" in result.selftest.detail
