"""Registers the privacy metrics; importing it loads neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Iterable

from medtrust import MetricSpec, hookimpl

MEDTRUST_API = 1


@hookimpl
def medtrust_metrics() -> Iterable[MetricSpec]:
    """Offer the metrics that docs/privacy.md describes."""
    yield MetricSpec(
        name="cpm",
        version="1",
        factory="medtrust_privacy.cpm:ClosePairMembership",
        summary="are the synthetic images that come closest to a real patient closest to training patients?",
        title="Copies of training patients",
        pillar="privacy",
        needs=("train", "holdout", "synthetic", "images", "features"),
        spaces=("pixels",),
        direction="lower",
        range=(0.0, 1.0),
        unit="share",
        min_samples=20,
        min_patients=20,
        citation="arXiv:2004.05675",
    )
    yield MetricSpec(
        name="duplicates",
        version="1",
        factory="medtrust_privacy.duplicates:Duplicates",
        summary="exact and near duplicates within train and between the three sets",
        title="Duplicates",
        pillar="privacy",
        needs=("train", "synthetic", "features"),
        results=("privacy.duplicates", "privacy.near_duplicates"),
        spaces=("phash",),
        direction="lower",
        range=(0.0, 1.0),
        unit="share",
        min_samples=1,
        citation="doi:10.1093/biomet/26.4.404",
    )
    yield MetricSpec(
        name="copy_rate",
        version="1",
        factory="medtrust_privacy.rates:CopyRate",
        summary="how many synthetic images are closer to train than any holdout patient, and what share are copies",
        pillar="privacy",
        needs=("train", "holdout", "synthetic", "images", "features"),
        results=("privacy.extreme_count", "privacy.copy_rate"),
        spaces=("pixels",),
        direction="lower",
        range=(0.0, 1.0),
        unit="share",
        min_samples=20,
        min_patients=20,
        citation="arXiv:2104.08279",
    )
    yield MetricSpec(
        name="membership",
        version="1",
        factory="medtrust_privacy.membership:Membership",
        summary="can a holder of the synthetic images tell training patients from others?",
        title="Membership inference",
        pillar="privacy",
        needs=("train", "holdout", "synthetic", "images", "features"),
        spaces=("pixels",),
        direction="lower",
        range=(0.0, 1.0),
        unit="AUC",
        min_samples=20,
        min_patients=20,
        citation="arXiv:2302.12580",
    )
