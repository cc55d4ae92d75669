"""Conditional metrics: a faithful generator stays at the ceiling, a shuffled condition does not, gaps are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from test_fidelity import GREY, compute, set_of

from medtrust import FeatureMatrix, ImageHeader, Insufficient, MetricInput
from medtrust.errors import ConfigError
from medtrust.types import ImageRecord, SetData
from medtrust_fidelity.conditional import Discriminant
from medtrust_fidelity.text_consistency import _mirrored, _negated
from medtrust_generators.captions import describe

N = 60


def labelled(
    name: Any, labels: list[str], rng: np.random.Generator, apart: float = 2.0, column: str = "label"
) -> SetData:
    codes = np.array([["benign", "malignant", "other"].index(label) for label in labels])
    values = rng.normal(size=(len(labels), 5))
    values[:, :3] += apart * np.eye(3)[codes]
    data = set_of(name, torch.from_numpy(values))
    return replace(data, attributes=tuple({column: label} for label in labels))


def labels_audit(shuffle: bool = False, apart: float = 2.0, **options: Any) -> MetricInput:
    rng = np.random.default_rng(4)
    drawn = [rng.choice(["benign", "malignant", "other"], n, p=[0.6, 0.3, 0.1]).tolist() for n in (150, 120, 150)]
    train, holdout, synthetic = (
        labelled(name, labels, rng, apart)
        for name, labels in zip(("train", "holdout", "synthetic"), drawn, strict=True)
    )
    if shuffle:
        order = rng.permutation(len(synthetic))
        synthetic = replace(synthetic, attributes=tuple(synthetic.attributes[i] for i in order))
    return MetricInput(train, synthetic, holdout, GREY, seed=2, space="x", options={"label_consistency": options})


def test_labels_that_are_kept_reach_the_ceiling_and_shuffled_ones_fall_to_chance():
    kept = compute("label_consistency", labels_audit())["fidelity.label_consistency"]
    lost = compute("label_consistency", labels_audit(shuffle=True))["fidelity.label_consistency"]
    assert kept.interval.hi > kept.null.interval.lo
    assert kept.facts["short_of_ceiling"] < kept.resolution.min_detectable
    assert lost.interval.hi < lost.null.interval.lo
    assert lost.facts["short_of_ceiling"] > lost.resolution.min_detectable
    assert lost.estimate.value == pytest.approx(1 / 3, abs=0.12)


def test_a_classifier_that_knows_nothing_judges_nothing():
    with pytest.raises(Insufficient, match="better than chance"):
        compute("label_consistency", labels_audit(apart=0.0))


def test_labels_that_are_missing_or_unknown_are_refused():
    data = labels_audit()
    with pytest.raises(Insufficient, match="have no 'grade'"):
        compute("label_consistency", labels_audit(column="grade"))
    rows = ({"label": "metastasis"}, *data.synthetic.attributes[1:])
    with pytest.raises(Insufficient, match="metastasis"):
        compute("label_consistency", replace(data, synthetic=replace(data.synthetic, attributes=rows)))
    alone = tuple({"label": "benign"} for _ in data.train.attributes)
    with pytest.raises(Insufficient, match="one value"):
        compute("label_consistency", replace(data, train=replace(data.train, attributes=alone)))


def test_the_discriminant_is_that_of_scikit_learn():
    """With many rows the shrinking fades, and the two agree on where the border lies."""
    peer = pytest.importorskip("sklearn.discriminant_analysis").LinearDiscriminantAnalysis()
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 3, 4000)
    rows = rng.normal(size=(4000, 4)) @ rng.normal(size=(4, 4)) + 2 * rng.normal(size=(3, 4))[codes]
    ours = Discriminant(torch.from_numpy(rows), torch.from_numpy(codes), 3, equal=False)
    theirs = peer.fit(rows, codes).predict(rows)
    assert np.mean(ours.classify(torch.from_numpy(rows)).numpy() == theirs) > 0.99


def images_of(name: str, pixels: list[np.ndarray], attributes: list[dict[str, str]] | None = None) -> SetData:
    attributes = attributes or [{} for _ in pixels]
    records = [
        ImageRecord(p, f"{name}-{i}.png", f"{name}{i}", ImageHeader(p.shape, p.dtype.name, attributes=a), "")
        for i, (p, a) in enumerate(zip(pixels, attributes, strict=True))
    ]
    names = tuple(record.name for record in records)
    patients = tuple(record.patient for record in records)
    return SetData(name, records, patients, names, None, names, tuple(attributes))  # type: ignore[arg-type]


def organ(rng: np.random.Generator, side: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """A bright disc at a random place, and its mask."""
    y, x = np.mgrid[:side, :side]
    cy, cx = rng.uniform(7, side - 7, 2)
    mask = (np.hypot(y - cy, x - cx) < rng.uniform(4, 6)).astype(np.uint8)
    return (60 + 90 * mask + rng.normal(0, 12, mask.shape)).clip(0, 255).astype(np.uint8)[None], mask


@pytest.fixture
def masks_audit(tmp_path):
    def make(shuffle: bool = False, without: str = "") -> MetricInput:
        rng, sets, folders = np.random.default_rng(8), {}, {}
        for name in ("train", "holdout", "synthetic"):
            pairs = [organ(rng) for _ in range(24)]
            folders[name] = tmp_path / name
            folders[name].mkdir(exist_ok=True)
            order = np.roll(np.arange(24), 1) if shuffle and name == "synthetic" else np.arange(24)
            for i, j in enumerate(order):
                np.save(folders[name] / f"{name}-{i}.npy", pairs[j][1])
            sets[name] = images_of(name, [image for image, _ in pairs])
        if without:
            (folders[without] / f"{without}-3.npy").unlink()
        options = {"mask_consistency": {"masks": {name: str(folder) for name, folder in folders.items()}}}
        return MetricInput(sets["train"], sets["synthetic"], sets["holdout"], GREY, seed=2, options=options)

    return make


def test_masks_that_are_kept_reach_the_real_dice(masks_audit):
    kept, lost = compute("mask_consistency", masks_audit()), compute("mask_consistency", masks_audit(shuffle=True))
    dice = kept["fidelity.mask_dice"]
    assert dice.null.value > 0.8
    assert dice.facts["short_of_ceiling"] < dice.resolution.min_detectable
    assert kept["fidelity.mask_swap"].interval.lo > 0.2
    assert lost["fidelity.mask_dice"].interval.hi < lost["fidelity.mask_dice"].null.interval.lo
    assert lost["fidelity.mask_swap"].interval.lo < 0.1


def test_masks_that_are_missing_are_refused(masks_audit):
    data = masks_audit()
    with pytest.raises(Insufficient, match="where the masks are"):
        compute("mask_consistency", replace(data, options={}))
    with pytest.raises(Exception, match=r"holdout-3\.png has no"):
        compute("mask_consistency", masks_audit(without="holdout"))


def spots(n: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Grey images, a dark spot in half of them, left, right or in the centre."""
    found = []
    for _ in range(n):
        image = rng.normal(rng.uniform(90, 170), rng.choice([2, 6, 14]), (1, 12, 24))
        if rng.random() < 0.5:
            image[:, 3:9, (start := rng.choice([1, 9, 17])) : start + 6] -= 60
        found.append(image.clip(0, 255).astype(np.uint8))
    return found


def captions_audit(shuffle: bool = False, **options: Any) -> MetricInput:
    rng, sets = np.random.default_rng(3), {}
    for name, n in (("train", 90), ("holdout", N), ("synthetic", N)):
        images = spots(n, rng)
        told = describe([image.astype(np.float32) for image in images])
        if shuffle and name == "synthetic":
            told = [told[i] for i in rng.permutation(n)]
        sets[name] = images_of(name, images, [{"caption": sentence} for sentence in told])
    return MetricInput(
        sets["train"], sets["synthetic"], sets["holdout"], GREY, seed=1, options={"text_consistency": options}
    )


def test_captions_that_are_kept_are_told_from_shuffled_flipped_and_negated_ones():
    kept, lost = (
        compute("text_consistency", captions_audit()),
        compute("text_consistency", captions_audit(shuffle=True)),
    )
    for name in ("text_match", "text_negation", "text_laterality"):
        good, bad = kept[f"fidelity.{name}"], lost[f"fidelity.{name}"]
        assert good.interval.hi > good.null.interval.lo, name
        assert good.estimate.value > 0.85, name
        assert bad.interval.hi < bad.null.interval.lo, name
    assert lost["fidelity.text_match"].estimate.value == pytest.approx(0.5, abs=0.12)


def blind(images, captions, train):
    """A scorer that looks at no image."""
    return np.ones((len(images), len(captions)))


def test_the_scorer_can_be_anybodys():
    found = compute("text_consistency", captions_audit(scorer="test_fidelity_conditional:blind"))
    assert found["fidelity.text_match"].estimate.value == 0.5
    with pytest.raises(ConfigError, match=r"package\.module:function"):
        compute("text_consistency", captions_audit(scorer="nowhere:scores"))
    data = captions_audit()
    with pytest.raises(Insufficient, match="have no 'report'"):
        compute("text_consistency", captions_audit(column="report"))
    plain = replace(data.synthetic, attributes=tuple({"caption": "a dark smooth image"} for _ in range(N)))
    flat = replace(data.holdout, attributes=plain.attributes)
    assert data.holdout
    found = {**__import__("medtrust_fidelity.text_consistency", fromlist=["x"]).TextConsistency().compute(
        replace(data, synthetic=plain, holdout=flat)
    )}  # fmt: skip
    assert {result.status for result in found.values()} == {"insufficient"}


def test_flips():
    assert _mirrored("a spot on the Left, not right") == "a spot on the right, not left"
    assert _negated("a dark image with a spot") == "a dark image without a spot"
    assert _negated("without a spot") == "with a spot"
    assert _negated("no effusion") == "effusion"
    assert _negated("there is a mass") == "there is not a mass"
    assert isinstance(labels_audit().train.features, FeatureMatrix)
