"""The privacy suite of `medtrust selftest`: planted copies and copy-free faults, on the user's own images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from medtrust.errors import Insufficient
from medtrust.seeding import derive_seed
from medtrust.stats import LIGHT_EDITS, edit_image, pixel_embedding
from medtrust.types import (
    FeatureMatrix,
    ImageHeader,
    ImageRecord,
    Intensity,
    MetricInput,
    Result,
    SetData,
    SuiteInput,
    SuiteRow,
)
from medtrust_privacy.cpm import ClosePairMembership
from medtrust_privacy.membership import Membership
from medtrust_privacy.rates import CopyRate
from medtrust_privacy.verdict import Copying

__all__ = ["PrivacySuite"]

PLANTED, ALARM, MIN_PATIENTS = 0.1, 0.01, 60
_DETECTORS = {
    "privacy.cpm": ClosePairMembership,
    "privacy.copying": Copying,
    "privacy.extreme_count": CopyRate,
    "privacy.copy_rate": CopyRate,
    "privacy.membership": Membership,
}


class PrivacySuite:
    """Three parts of the real patients play train, holdout and a generator; then the generator is made to fail.

    Copy-free: fresh real images, half their spread, and added noise. With copies: a tenth are edited train images.
    A detector holds if it stays quiet on the copy-free sets, finds the copies, and passes its self-test.
    """

    def run(self, data: SuiteInput) -> Iterable[SuiteRow]:
        """Audit every played generator with every detector.

        Raises:
            Insufficient: Fewer than 60 patients, or images of several sizes.
        """
        records = [*data.train, *(data.holdout or ())]
        patients = np.array([record.patient for record in records])
        names = np.unique(patients)
        if len(names) < MIN_PATIENTS:
            raise Insufficient(f"needs {MIN_PATIENTS} patients to play train, holdout and generator; got {len(names)}")
        if len({record.pixels.shape for record in records}) > 1:
            raise Insufficient("the images differ in size; the suite mixes them, so bring them to one size")
        rng = np.random.default_rng(derive_seed(data.seed, "privacy suite"))
        sides = np.array_split(rng.permutation(names), 3)
        parts = [[r for r, patient in zip(records, patients, strict=True) if patient in set(side)] for side in sides]
        answers: dict[str, dict[str, Result]] = {}
        for kind in ("fresh real", "half the spread", "noisy", "copies"):
            given = _audit(parts, kind, data.intensity, rng, data.seed)
            answers[kind] = {}
            for name, detector in _DETECTORS.items():
                found = detector().compute(given)
                answers[kind][name] = found if isinstance(found, Result) else found[name]
        return [_row(name, {kind: found[name] for kind, found in answers.items()}) for name in _DETECTORS]


def _audit(
    parts: Sequence[Sequence[ImageRecord]], kind: str, intensity: Intensity, rng: np.random.Generator, seed: int
) -> MetricInput:
    train, holdout, fresh = parts
    images = np.stack([np.asarray(record.pixels, dtype=np.float64) for record in fresh])
    if kind == "half the spread":
        images = images.mean(0) + 0.5 * (images - images.mean(0))
    elif kind == "noisy":
        images = images + rng.normal(0, 0.1 * (intensity.hi - intensity.lo), images.shape)
    elif kind == "copies":
        for at, source in enumerate(rng.permutation(len(train))[: max(1, round(PLANTED * len(images)))]):
            images[at] = edit_image(train[int(source)].pixels, LIGHT_EDITS[at % len(LIGHT_EDITS)], rng)
    header = ImageHeader(images.shape[1:], "float64", intensity=intensity)
    made = [ImageRecord(image, f"sample-{i}", f"sample-{i}", header, f"{kind}-{i}") for i, image in enumerate(images)]
    sets = {
        name: _set(name, rows, intensity)
        for name, rows in (("train", train), ("holdout", holdout), ("synthetic", made))
    }
    options = {"effect": PLANTED}
    return MetricInput(
        sets["train"], sets["synthetic"], sets["holdout"], intensity, seed=seed, space="pixels", options=options
    )


def _set(name: Any, records: Sequence[ImageRecord], intensity: Intensity) -> SetData:
    patients, digests = tuple(r.patient for r in records), tuple(r.digest for r in records)
    images = (torch.from_numpy(np.asarray(r.pixels, np.float64))[None] for r in records)
    rows = torch.cat([pixel_embedding(image, intensity) for image in images])
    return SetData(name, records, patients, digests, FeatureMatrix(rows, patients, digests, "pixels", ""))


def _alarm(result: Result) -> bool:
    if result.test is not None:
        return result.test.p_adj <= ALARM
    return result.interval is not None and result.interval.lo > 0


def _row(name: str, found: dict[str, Result]) -> SuiteRow:
    wrong = [kind for kind, result in found.items() if kind != "copies" and _alarm(result)]
    missed = not _alarm(found["copies"])
    quiet = found["fresh real"].selftest
    problems = [f"it raised an alarm on {kind}" for kind in wrong]
    if missed:
        problems.append(f"it missed {PLANTED:.0%} lightly edited copies")
    if quiet is not None and quiet.status == "failed":
        problems.append(f"its own self-test fails: {quiet.detail}")
    facts: dict[str, Any] = {
        "p": {kind: result.test.p_adj for kind, result in found.items() if result.test is not None},
        "resolution": found["fresh real"].resolution.min_detectable if found["fresh real"].resolution else None,
        "size": quiet.size if quiet else None,
        "power": quiet.power if quiet else None,
    }
    detail = "; ".join(problems) or "quiet on three copy-free sets, found the planted copies"
    return SuiteRow(name, "failed" if problems else "ok", detail, facts)
