"""Duplicates are linked before any test, the search can be widened, any space will do, and bad input gets a reason."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from privacy_sets import LEVELS, fields, make_audit, make_set, patients_images

from medtrust.errors import ConfigError, Insufficient
from medtrust.stats import copy_test, edit_image
from medtrust.stats.linking import keep_one_of_linked
from medtrust.types import MetricInput
from medtrust_privacy.common import Trio
from medtrust_privacy.cpm import ClosePairMembership
from medtrust_privacy.membership import Membership
from medtrust_privacy.pixelwise import PixelCopies
from medtrust_privacy.rates import CopyRate
from medtrust_privacy.risk import ResidualRisk
from medtrust_privacy.usual import UsualNumbers
from medtrust_privacy.verdict import Copying

METRICS = (ClosePairMembership, CopyRate, Membership, Copying, UsualNumbers, PixelCopies, ResidualRisk)


def duplicated(seed, people=60, shared=20, **options):
    """Train and holdout in which images of `shared` patients occur again under other names, on either side."""
    rng = np.random.default_rng(seed)
    train, train_names = patients_images(rng, people, "t")
    holdout, holdout_names = patients_images(rng, people, "h")
    base = train[:shared].astype(float)
    encoded = [np.clip(base + rng.normal(0, 1, base.shape), 0, 255).round().astype(np.uint8) for _ in range(3)]
    train[:shared], again = encoded[0], encoded[1]
    train = np.concatenate([train, train[: shared // 2]])
    train_names += [f"again{i}" for i in range(shared // 2)]
    holdout = np.concatenate([holdout, again, again[shared // 2 :]])
    holdout_names += [f"other{i}" for i in range(shared)] + [f"again{i}" for i in range(shared // 2, shared)]
    synthetic = np.concatenate([fields(rng, 80), encoded[2]])
    return MetricInput(
        train=make_set("train", train, train_names),
        holdout=make_set("holdout", holdout, holdout_names),
        synthetic=make_set("synthetic", synthetic, [f"s{i}" for i in range(len(synthetic))]),
        intensity=LEVELS,
        seed=seed,
        space="pixels",
        options=options,
    )


def test_linked_patients_keep_one_of_each_group():
    """Equal pixels and another encoding link patients; the kept one is of either set, and nobody else leaves."""
    data = duplicated(1)
    kept = keep_one_of_linked(data.train.features, data.holdout.features, 1, near=True)
    assert kept.left_out == 40
    assert kept.across == 20
    names = [data.train.patients[i] for i in kept.train] + [data.holdout.patients[i] for i in kept.holdout]
    for i in range(20):
        group = {f"t{i}", f"again{i}", f"other{i}"}
        assert len(group & set(names)) == 1
    assert {f"t{i}" for i in range(20, 60)} <= set(names)
    from_train = [
        len(keep_one_of_linked(data.train.features, data.holdout.features, seed, near=True).train) for seed in range(30)
    ]
    assert len(set(from_train)) > 5
    exact = keep_one_of_linked(data.train.features, data.holdout.features, 1, near=False)
    assert exact.left_out == 20
    assert exact.across == 0


def test_images_that_are_in_all_three_sets_accuse_nobody():
    """Samples that repeat images of both sets point at train as often as at holdout, and the report counts them."""
    result = ClosePairMembership().compute(duplicated(2, effect=0.3))
    assert result.facts["linked_patients_left_out"] == 40
    assert result.facts["linked_across_train_and_holdout"] == 20
    assert any("share an image" in note for note in result.notes)
    p = []
    for seed in range(40):
        data = duplicated(seed, people=30, shared=12)
        sets = Trio(data)
        p.append(copy_test(sets.train, sets.holdout, sets.synthetic, seed=seed, views=sets.views, draws=499).p)
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 40)


def turned(seed, search):
    """An audit in which a tenth of the samples are train images turned by up to ten degrees."""
    data, _ = make_audit(seed, effect=0.1, **({"search": search} if search else {}))
    rng = np.random.default_rng(seed)
    images = np.stack([record.pixels for record in data.synthetic.images])
    for at in range(20):
        images[at] = edit_image(data.train.images[at].pixels, "rotate", rng).round().astype(np.uint8)
    return replace(data, synthetic=make_set("synthetic", images, data.synthetic.patients))


def test_rotated_copies_are_found_when_asked_for():
    """With the search for rotations the copies score far lower, the planted ones are turned too, and all are found."""
    plain = ClosePairMembership().compute(turned(51, None))
    asked = ClosePairMembership().compute(turned(51, ["rotations"]))
    assert asked.test.p <= 0.01
    assert asked.facts["auc_rotate"] > 0.95
    assert "auc_rotate" not in plain.facts
    assert asked.evidence[5].facts["rho"] < plain.evidence[5].facts["rho"]
    with pytest.raises(ConfigError, match="search"):
        ClosePairMembership().compute(turned(51, ["spins"]))


def coarse(images):
    """A space of its own: block means."""
    return torch.nn.functional.adaptive_avg_pool2d(images.double(), (5, 6)).flatten(1).float()


@pytest.mark.parametrize("search", [None, ["mirror", "flips"]])
def test_copies_are_planted_in_any_space(search):
    """A space that can embed images gets the whole answer, with augmented references where they are asked for."""
    options = {"effect": 0.1} | ({"search": search} if search else {})
    data, _ = make_audit(
        52, copies=20, embed=lambda images, _: coarse(torch.from_numpy(images)), space="coarse", **options
    )
    if search:
        images = np.stack([record.pixels for record in data.synthetic.images])
        images[:20] = images[:20, :, ::-1]
        data = replace(data, synthetic=make_set(
            "synthetic", images, data.synthetic.patients, lambda i, _: coarse(torch.from_numpy(i)), "coarse"
        ))  # fmt: skip
    result = ClosePairMembership().compute(replace(data, embed=coarse))
    assert result.test.p <= 0.01
    assert result.selftest.auc > 0.9
    first = result.evidence[0].pictures
    assert first[0].sources[0][1] < 20
    assert all(index < len(data.train) for p in first for name, index in p.sources if name == "train")


def spoiled(kind):
    """A clean audit with one thing wrong."""
    data, _ = make_audit(53, n_train=60, n_holdout=60, samples=60)
    rng = np.random.default_rng(0)
    if kind == "no holdout":
        return replace(data, holdout=None)
    if kind == "one patient":
        return replace(data, holdout=make_set("holdout", fields(rng, 60), ["one"] * 60))
    if kind == "identical":
        return replace(data, synthetic=make_set("synthetic", np.repeat(fields(rng, 1), 60, 0), data.synthetic.patients))
    if kind == "nan":
        features = data.train.features
        values = features.values.clone()
        values[3, 4] = torch.nan
        return replace(data, train=replace(data.train, features=replace(features, values=values)))
    few, _ = make_audit(54, n_train=4, n_holdout=4, samples=11)
    return few


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["no holdout", "one patient", "identical", "nan", "few"])
def test_bad_input_gets_a_reason_and_never_a_pass(metric, kind):
    """Every metric refuses with a sentence, or answers with a self-test that keeps its gate from passing."""
    try:
        answer = metric().compute(spoiled(kind))
    except Insufficient as refusal:
        reason = str(refusal)
        answer = {}
    else:
        reason = ""
    assert answer or len(reason) > 20
    for name, result in (answer if isinstance(answer, dict) else {"": answer}).items():
        stopped = result.diagnostic or (result.selftest and result.selftest.status == "failed")
        assert stopped or result.status != "ok", (name, result.selftest)
