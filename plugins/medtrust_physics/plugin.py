"""Registers the physics metrics; importing it loads neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from medtrust import GeneratorSpec, MetricSpec, hookimpl

MEDTRUST_API = 1


def _spec(name: str, where: str, title: str, summary: str, unit: str, citation: str) -> MetricSpec:
    facts: dict[str, Any] = {"needs": ("train", "synthetic"), "direction": "lower", "range": (0.0, None)}
    return MetricSpec(
        name=name, version="1", factory=f"medtrust_physics.{where}", title=title, summary=summary, pillar="physics",
        unit=unit, citation=citation, min_samples=8, min_patients=8, optional=True, **facts,
    )  # fmt: skip


@hookimpl
def medtrust_metrics() -> Iterable[MetricSpec]:
    """Offer the metrics; each belongs to one modality, so each is run only when it is named in --metrics."""
    yield _spec(
        "noise_shape", "noise:NoiseShape", "Shape of the noise spectrum",
        "has the noise in flat regions the spectrum that the scanner gives it?", "share", "doi:10.1118/1.4718596",
    )  # fmt: skip
    yield _spec(
        "rayleigh_background", "background:RayleighBackground", "Noise of the background",
        "is the air around a magnitude MR image Rayleigh noise, with a mean of 1.91 standard deviations?", "ratio",
        "doi:10.1002/mrm.1910340618",
    )  # fmt: skip
    yield _spec(
        "tissue_hu", "tissues:TissueHu", "Hounsfield units of the tissues",
        "do air, lung, fat, soft tissue and bone lie at the Hounsfield units of real scans?", "HU",
        "doi:10.1148/rg.2020190185",
    )  # fmt: skip
    yield _spec(
        "stain_rank", "stain:StainRank", "Rank of the optical density",
        "does light pass through two stains, so that optical densities lie in a plane?", "share",
        "doi:10.1109/ISBI.2009.5193250",
    )  # fmt: skip
    yield _spec(
        "signal_residual", "signal:SignalResidual", "Residual of the spin-echo equation",
        "do the contrasts of one slice follow from one map each of proton density, T1 and T2?", "share",
        "doi:10.1002/mrm.1910140217",
    )  # fmt: skip
    yield MetricSpec(
        name="scan_residual", version="1", factory="medtrust_physics.rescanning:ScanResidual", pillar="physics",
        title="Images against their scanner", needs=("generator",), unit="reduced χ²", range=(0.0, None), min_samples=1,
        summary="do images differ from further scans of the same tissue as a scan does, or were they altered after it?",
        citation="Bevington and Robinson 2003, section 4.4", optional=True,
    )  # fmt: skip


@hookimpl
def medtrust_generators() -> Iterable[GeneratorSpec]:
    """Offer the generators that end in a scanner; `flow` on the same images is their control."""
    yield GeneratorSpec(
        name="mr-physics", version="2", factory="medtrust_physics.mr:MrPhysics", family="hybrid", trainable=True,
        summary="a flow over proton density, T1 and T2, then the signal equation and noise in k-space",
    )  # fmt: skip
    yield GeneratorSpec(
        name="ct-physics", version="2", factory="medtrust_physics.ct:CtPhysics", family="hybrid", trainable=True,
        summary="a flow over Hounsfield units, then projections, photon counts and filtered back-projection",
    )  # fmt: skip
