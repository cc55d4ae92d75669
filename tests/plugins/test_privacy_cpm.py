"""The copy test as a metric: verdicts, evidence, self-test and refusals."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from privacy_sets import LEVELS, fields, make_audit, make_set

from medtrust.errors import ConfigError, DataError, Insufficient
from medtrust.types import Demand, MetricInput
from medtrust_privacy.cpm import ClosePairMembership

EFFECT = 0.06


def run(data):
    return ClosePairMembership().compute(data)


@pytest.fixture(scope="module")
def clean():
    data, _ = make_audit(3, effect=EFFECT)
    return data, run(data)


@pytest.fixture(scope="module")
def copied():
    data, sources = make_audit(4, copies=20, effect=EFFECT)
    return data, sources, run(data)


def test_a_clean_generator_raises_no_alarm(clean):
    """Without copies the test keeps quiet, its self-test passes, and every part of the answer is there."""
    _, result = clean
    assert result.test.p > 0.05
    assert result.test.family == "copying"
    assert result.null.value == pytest.approx(0.5)
    assert result.interval.lo <= result.estimate.value <= result.interval.hi
    assert result.selftest.status == "ok", result.selftest.detail
    assert result.selftest.size <= 0.09
    assert result.selftest.power >= 0.8
    assert 0 < result.resolution.min_detectable <= EFFECT
    assert f"{100 * result.resolution.min_detectable:.3g} %" in result.resolution.sentence
    assert result.facts["flagged_samples"] == 0
    assert result.facts["power_background"] == "the audited synthetic images"
    assert not any("suspected" in item.title for item in result.evidence)


def test_copies_are_found_and_shown(copied):
    """Ten per cent copies are found; the evidence points at them and at what they were copied from."""
    _, sources, result = copied
    assert result.test.p <= 0.001
    assert result.estimate.value > 0.8 > result.null.interval.hi
    assert result.selftest.status == "ok", result.selftest.detail
    assert result.facts["power_background"] == "real images"
    assert 1 <= len(result.evidence) <= 12
    right = 0
    for item in result.evidence:
        synthetic, train = item.pictures[0].sources[0], item.pictures[1].sources[0]
        right += synthetic[1] < len(sources) and train == ("train", sources[synthetic[1]])
    assert right >= 10
    assert [item.rank for item in result.evidence] == list(range(1, len(result.evidence) + 1))


def test_evidence_names_its_pictures_and_facts(copied):
    """Each pair shows the sample, its nearest train and holdout images, and a difference, with finite facts."""
    data, _, result = copied
    sizes = {"train": len(data.train), "holdout": len(data.holdout), "synthetic": len(data.synthetic)}
    for item in result.evidence:
        assert {picture.role for picture in item.pictures} == {"synthetic", "train", "holdout", "difference"}
        assert item.pictures[1].role == item.facts["matched_set"]
        assert item.pictures[-1].sources == (item.pictures[0].sources[0], item.pictures[1].sources[0])
        assert all(0 <= index < sizes[name] for picture in item.pictures for name, index in picture.sources)
        assert 0 <= item.facts["rho"] < 1.5
        assert 0 < item.facts["conformal_p"] <= 1
    assert result.evidence[0].facts["rho"] <= result.evidence[-1].facts["rho"] or result.facts["flagged_samples"]


def test_same_input_same_answer(clean):
    """The seed of the input decides everything that is drawn."""
    data, result = clean
    assert run(data) == result


def test_real_images_that_nobody_copied_from_train_do_not_accuse_the_generator():
    """A generator that copies holdout patients, whom it cannot know, is no evidence against it."""
    data, _ = make_audit(5, copies=20, effect=EFFECT)
    swapped = replace(data, train=replace(data.holdout, name="train"), holdout=replace(data.train, name="holdout"))
    assert run(swapped).test.p > 0.5


def test_a_test_without_power_fails_its_own_selftest():
    """Where two per cent copies cannot be seen, the self-test says so instead of letting the audit pass."""
    data, _ = make_audit(6, n_train=40, n_holdout=25, samples=60)
    result = run(data)
    assert result.selftest.status == "failed"
    assert "copies" in result.selftest.detail
    assert result.resolution.min_detectable > 0.02


def test_a_small_audit_that_finds_copies_is_not_silenced_by_its_lack_of_power():
    """Too small to see two per cent, but large enough to see thirty: the finding stands."""
    data, _ = make_audit(10, copies=18, n_train=40, n_holdout=40, samples=60)
    result = run(data)
    assert result.test.p <= 0.01
    assert result.selftest.power < 0.8
    assert result.selftest.status == "ok", result.selftest.detail


def test_a_holdout_from_elsewhere_fails_the_selftest():
    """When train and holdout differ, closeness to train proves nothing, and the self-test says so."""
    data, _ = make_audit(7, holdout_bias=6.0, effect=EFFECT)
    result = run(data)
    assert result.selftest.status == "failed"
    assert "not a random split" in result.selftest.detail


def test_unbalanced_splits_are_commented():
    """A small holdout is named as the reason for a coarse resolution."""
    data, _ = make_audit(8, n_train=180, n_holdout=40, samples=120)
    result = run(data)
    assert result.null.value == pytest.approx(180 / 220)
    assert any("holdout of as many patients" in note for note in result.notes)
    assert result.facts["closest_needed_to_reject"] >= 14


def with_images(data, name, images):
    """Replace the images of one set."""
    old = getattr(data, name)
    return replace(data, **{name: make_set(name, images, old.patients[: len(images)])})


def test_refusals_are_sentences(clean):
    """No holdout, broken features, collapsed or identical sets and hopeless splits are refused, never passed."""
    data, _ = clean
    rng = np.random.default_rng(9)
    with pytest.raises(Insufficient, match="holdout"):
        run(replace(data, holdout=None))
    broken = data.synthetic.features.values.clone()
    broken[7] = float("nan")
    features = replace(data.synthetic.features, values=broken)
    with pytest.raises(Insufficient, match="1 images of synthetic have features that are not finite"):
        run(replace(data, synthetic=replace(data.synthetic, features=features)))
    for name in ("train", "holdout", "synthetic"):
        same = np.repeat(fields(rng, 1), 60, axis=0)
        with pytest.raises(Insufficient, match=f"{name} holds 1"):
            run(with_images(data, name, same))
    near_one = np.repeat(data.train.images[3].pixels[None], 200, axis=0)
    near_one[:, 0, 0, 0] = np.arange(200)
    with pytest.raises(Insufficient, match="only 1 patients"):
        run(with_images(data, "synthetic", near_one))
    lonely = replace(data, holdout=make_set("holdout", fields(rng, 30), ["one"] * 30))
    with pytest.raises(Insufficient, match=r"to show anything|no outcome could"):
        run(lonely)


def test_patient_overlap_is_an_error(clean):
    """A patient in train and holdout stops the metric."""
    data, _ = clean
    patients = (data.train.patients[0], *data.holdout.patients[1:])
    features = replace(data.holdout.features, patients=patients)
    with pytest.raises(DataError, match="both train and holdout"):
        run(replace(data, holdout=replace(data.holdout, patients=patients, features=features)))


@pytest.mark.parametrize("options", [{"effect": 0}, {"effect": "2%"}, {"fdr": 1.5}, {"effect": True}])
def test_wrong_options_are_refused(clean, options):
    """Options that are no shares are refused by name."""
    data, _ = clean
    with pytest.raises(ConfigError, match=next(iter(options))):
        run(replace(data, options=options))


def test_features_of_another_layout_are_judged_without_views(clean):
    """A replaced pixel space still gets an answer, and the planted copies tell that it finds nothing."""
    data, _ = clean

    def other(images, intensity):
        gen = torch.Generator().manual_seed(int(images.sum()) % 1000)
        return torch.randn(len(images), 17, generator=gen)

    def embedded(name):
        old = getattr(data, name)
        return make_set(name, np.stack([record.pixels for record in old.images]), old.patients, other)

    foreign = MetricInput(embedded("train"), embedded("synthetic"), embedded("holdout"), LEVELS, seed=1, space="pixels")
    with pytest.raises(DataError, match="columns"):
        run(foreign)


def test_registering_imports_neither_torch_nor_numpy():
    """Listing the privacy metrics stays instant."""
    code = (
        "import sys, medtrust_privacy.plugin as p; specs = list(p.medtrust_metrics());"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules; print(*(s.name for s in specs))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"cpm", "duplicates"} <= set(done.stdout.split())


def test_the_resolution_is_that_of_the_policys_gate():
    """A gate at 1 % sees less than one at 5 %, and the self-test looks for the effect that the policy names."""
    data, _ = make_audit(5)
    at = {alpha: run(replace(data, demand=Demand(alpha=alpha, effect=0.08))) for alpha in (0.05, 0.0005)}
    assert [at[alpha].facts["alpha"] for alpha in at] == list(at)
    assert at[0.0005].resolution.min_detectable >= at[0.05].resolution.min_detectable
    assert at[0.0005].facts["power_at_3_percent"] < at[0.05].facts["power_at_3_percent"]
    assert at[0.0005].facts["closest_needed_to_reject"] > at[0.05].facts["closest_needed_to_reject"]
    assert "at 8.0% lightly edited copies" in at[0.05].selftest.detail
