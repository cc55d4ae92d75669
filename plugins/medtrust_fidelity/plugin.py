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
    yield MetricSpec(
        name="spectrum",
        version="1",
        factory="medtrust_fidelity.spectrum:PowerSpectrum",
        summary="difference of the average radial power spectra: blur, sharpening, checkerboards",
        title="Power spectrum",
        pillar="fidelity",
        needs=("train", "synthetic", "images"),
        direction="lower",
        range=(0.0, None),
        unit="dB",
        min_samples=6,
        min_patients=3,
        citation="doi:10.1364/JOSAA.4.002379",
    )
    yield from _on_request()


def _on_request() -> Iterable[MetricSpec]:
    """Offer what runs where it is named, or under `--metrics optional`."""
    yield MetricSpec(
        name="fd_infinity",
        version="1",
        factory="medtrust_fidelity.fd_views:FrechetInfinity",
        summary="Fréchet distance extrapolated to infinitely many images (FD∞)",
        title="Fréchet distance at infinitely many images",
        pillar="fidelity",
        needs=("train", "synthetic", "features"),
        direction="lower",
        range=(0.0, None),
        unit="feature²",
        min_samples=16,
        min_patients=16,
        citation="arXiv:1911.07023",
        optional=True,
    )
    yield MetricSpec(
        name="fd_ratio",
        version="1",
        factory="medtrust_fidelity.fd_views:FrechetRatio",
        summary="Fréchet distance of real from real over that of train from synthetic",
        title="Fréchet ratio",
        pillar="fidelity",
        needs=("train", "synthetic", "features"),
        direction="higher",
        range=(0.0, None),
        unit="ratio",
        min_samples=8,
        min_patients=8,
        citation="arXiv:1706.08500",
        optional=True,
    )
    yield MetricSpec(
        name="mmd",
        version="1",
        factory="medtrust_fidelity.mmd:GaussianDistance",
        summary="unbiased Gaussian-kernel distance of the features, as CMMD has it",
        title="Gaussian kernel distance",
        pillar="fidelity",
        needs=("train", "synthetic", "features"),
        direction="lower",
        unit="kernel",
        min_samples=4,
        min_patients=4,
        citation="arXiv:2401.09603",
        optional=True,
    )
    yield MetricSpec(
        name="clipped",
        version="1",
        factory="medtrust_fidelity.clipped:ClippedShares",
        summary="clipped density and coverage: shares that fall linearly with the share of bad samples",
        pillar="fidelity",
        needs=("train", "synthetic", "features"),
        results=("fidelity.clipped_density", "diversity.clipped_coverage"),
        direction="higher",
        range=(0.0, 1.0),
        unit="share",
        min_samples=20,
        min_patients=20,
        citation="arXiv:2507.01761",
        optional=True,
    )
    yield MetricSpec(
        name="vendi",
        version="1",
        factory="medtrust_fidelity.scores:VendiScore",
        summary="effective number of different images, beside that of as many real ones",
        title="Vendi score",
        pillar="diversity",
        needs=("train", "synthetic", "features"),
        direction="higher",
        range=(1.0, None),
        unit="effective images",
        min_samples=8,
        min_patients=4,
        citation="arXiv:2210.02410",
        optional=True,
    )
    yield MetricSpec(
        name="inception_score",
        version="1",
        factory="medtrust_fidelity.scores:InceptionScore",
        summary="are classes clear and varied? only in feature spaces of class logits",
        title="Inception Score",
        pillar="fidelity",
        needs=("train", "synthetic", "features"),
        direction="higher",
        range=(1.0, None),
        unit="effective classes",
        min_samples=8,
        min_patients=4,
        citation="arXiv:1606.03498",
        optional=True,
    )
    yield MetricSpec(
        name="frd",
        version="1",
        factory="medtrust_fidelity.frd:RadiomicsDistance",
        summary="Fréchet distance of the radiomics features, whichever spaces the audit compares in",
        title="Radiomics Fréchet distance",
        pillar="fidelity",
        needs=("train", "synthetic", "features"),
        spaces=("radiomics",),
        direction="lower",
        range=(0.0, None),
        unit="feature²",
        min_samples=4,
        min_patients=4,
        citation="arXiv:2412.01496",
        optional=True,
    )
    yield MetricSpec(
        name="noise_spectrum",
        version="1",
        factory="medtrust_fidelity.spectrum:NoiseSpectrum",
        summary="difference of the average noise power spectra in the flattest patches",
        title="Noise power spectrum",
        pillar="fidelity",
        needs=("train", "synthetic", "images"),
        direction="lower",
        range=(0.0, None),
        unit="dB",
        min_samples=6,
        min_patients=3,
        citation="doi:10.1118/1.2188816",
        optional=True,
    )
    yield MetricSpec(
        name="paired",
        version="1",
        factory="medtrust_fidelity.paired:PairedLikeness",
        summary="SSIM, MS-SSIM, PSNR, NCC and MAE of synthetic images and the real ones they shall equal",
        pillar="fidelity",
        needs=("train", "synthetic", "images"),
        results=tuple(f"fidelity.paired_{name}" for name in ("ssim", "ms_ssim", "psnr", "ncc", "mae")),
        min_samples=3,
        min_patients=3,
        citation="doi:10.1109/TIP.2003.819861",
        optional=True,
    )
