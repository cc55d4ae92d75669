"""Registers the privacy metrics; importing it loads neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Iterable

from medtrust import MetricSpec, hookimpl
from medtrust.types import SuiteSpec

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
        spaces_option="embeddings",
        direction="lower",
        range=(0.0, 1.0),
        unit="share",
        min_samples=20,
        min_patients=20,
        citation="arXiv:2004.05675",
        mergeable=(("privacy.cpm", "enrichment counts by site"),),
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
        spaces_option="embeddings",
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
        spaces_option="embeddings",
        direction="lower",
        range=(0.0, 1.0),
        unit="AUC",
        min_samples=20,
        min_patients=20,
        citation="arXiv:2302.12580",
    )
    yield MetricSpec(
        name="copying",
        version="1",
        factory="medtrust_privacy.verdict:Copying",
        summary="the combined verdict: every declared copy test in every declared embedding, corrected together",
        title="Copying, all tests together",
        pillar="privacy",
        needs=("train", "holdout", "synthetic", "images", "features"),
        spaces=("pixels",),
        spaces_option="embeddings",
        together=True,
        direction="lower",
        range=(0.0, 1.0),
        unit="share",
        min_samples=20,
        min_patients=20,
        citation="arXiv:2004.05675",
    )
    yield MetricSpec(
        name="diagnostics",
        version="1",
        factory="medtrust_privacy.usual:UsualNumbers",
        summary="C_T, authenticity, DCR, NNDR and FLD gap: shown because others report them, never a proof",
        pillar="privacy",
        needs=("train", "holdout", "synthetic", "features"),
        results=("privacy.ct", "privacy.authenticity", "privacy.dcr", "privacy.nndr", "privacy.fld_gap"),
        spaces=("pixels",),
        spaces_option="embeddings",
        min_samples=50,
        min_patients=20,
        citation="arXiv:2004.05675",
        mergeable=(("privacy.ct", "rank sums by site"),),
    )
    yield MetricSpec(
        name="pixel_copies",
        version="1",
        factory="medtrust_privacy.pixelwise:PixelCopies",
        summary="correlation and worst tile of the closest pairs, and cliques of samples that are nearly one image",
        pillar="privacy",
        needs=("train", "holdout", "synthetic", "images", "features"),
        results=("privacy.max_ncc", "privacy.tile_l2", "privacy.cliques"),
        spaces=("pixels",),
        direction="lower",
        range=(0.0, 1.0),
        unit="share",
        min_samples=20,
        min_patients=20,
        citation="arXiv:2301.13188",
    )
    yield MetricSpec(
        name="residual_risk",
        version="1",
        factory="medtrust_privacy.risk:ResidualRisk",
        summary="how much better an attacker completes a training image from the samples than an unseen one",
        title="Residual risk of inference",
        pillar="privacy",
        needs=("train", "holdout", "synthetic", "images", "features"),
        spaces=("pixels",),
        direction="lower",
        range=(-1.0, 1.0),
        unit="risk",
        min_samples=20,
        min_patients=50,
        citation="arXiv:2211.10459",
    )
    yield MetricSpec(
        name="whitebox",
        version="1",
        factory="medtrust_privacy.whitebox:WhiteBox",
        summary="membership of training images from the inside of the generator: SimA, PIA, reconstruction",
        pillar="privacy",
        needs=("train", "holdout", "synthetic", "images", "generator"),
        results=("privacy.sima", "privacy.pia", "privacy.reconstruction"),
        direction="lower",
        range=(0.0, 1.0),
        unit="AUC",
        min_samples=20,
        min_patients=20,
        citation="arXiv:2305.18355",
    )


@hookimpl
def medtrust_suites() -> Iterable[SuiteSpec]:
    """Offer the test of the copy detectors on the user's own images."""
    yield SuiteSpec(
        name="privacy",
        version="1",
        factory="medtrust_privacy.suite:PrivacySuite",
        summary="do the copy detectors find planted copies, and leave copy-free faults alone, on these images?",
    )
