"""Registers the fidelity and diversity metrics; importing it loads neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Iterable

from medtrust import MetricSpec, hookimpl

MEDTRUST_API = 1


@hookimpl
def medtrust_metrics() -> Iterable[MetricSpec]:
    """Offer the metrics that docs/metrics/ describes, one page each."""
    yield MetricSpec(
        name="fd",
        version="1",
        factory="medtrust_fidelity.fd:FrechetDistance",
        summary="Fréchet distance of the features, corrected for its bias where the sample allows it",
        title="Fréchet distance",
        pillar="fidelity",
        needs=("train", "synthetic", "features"),
        direction="lower",
        range=(0.0, None),
        unit="feature²",
        min_samples=4,
        min_patients=4,
        citation="arXiv:1706.08500",
    )
    yield MetricSpec(
        name="kid",
        version="1",
        factory="medtrust_fidelity.kid:KernelDistance",
        summary="unbiased polynomial kernel distance of the features (KID)",
        title="Kernel distance",
        pillar="fidelity",
        needs=("train", "synthetic", "features"),
        direction="lower",
        unit="kernel",
        min_samples=4,
        min_patients=4,
        citation="arXiv:1801.01401",
    )
    yield MetricSpec(
        name="prdc",
        version="1",
        factory="medtrust_fidelity.prdc:NeighbourShares",
        summary="precision, recall, density and coverage by nearest neighbours",
        pillar="fidelity",
        needs=("train", "synthetic", "features"),
        results=("fidelity.precision", "diversity.recall", "fidelity.density", "diversity.coverage"),
        direction="higher",
        range=(0.0, None),
        unit="share",
        min_samples=20,
        min_patients=20,
        citation="arXiv:2002.09797",
    )
    yield MetricSpec(
        name="ssim_diversity",
        version="1",
        factory="medtrust_fidelity.ssim:SsimDiversity",
        summary="are pairs of synthetic images more alike than pairs of real ones?",
        title="Likeness between synthetic images",
        pillar="diversity",
        needs=("train", "synthetic", "images"),
        results=("diversity.ssim",),
        direction="lower",
        range=(-2.0, 2.0),
        unit="SSIM",
        min_samples=3,
        min_patients=3,
        citation="arXiv:1610.09585",
    )
    yield MetricSpec(
        name="intensity",
        version="1",
        factory="medtrust_fidelity.intensity:IntensityDistance",
        summary="Wasserstein distance between the pixel intensities, in physical units",
        title="Intensities",
        pillar="fidelity",
        needs=("train", "synthetic", "images"),
        direction="lower",
        range=(0.0, None),
        min_samples=4,
        min_patients=4,
        citation="doi:10.1023/A:1026543900054",
    )
