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
