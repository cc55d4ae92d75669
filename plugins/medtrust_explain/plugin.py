"""Registers the explanations; importing it loads neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Iterable

from medtrust import ExplainerSpec, MetricSpec, hookimpl
from medtrust.types import SuiteSpec

MEDTRUST_API = 1


@hookimpl
def medtrust_metrics() -> Iterable[MetricSpec]:
    """Offer the explanations that are numbers of the sets as a whole; docs/explain.md describes them."""
    yield MetricSpec(
        name="shortcut",
        version="1",
        factory="medtrust_explain.shortcut:Shortcut",
        summary="does the processing alone tell the sets apart: format, size, depth, border, levels, JPEG, spectrum?",
        title="Shortcuts left by the processing",
        pillar="explanation",
        needs=("train", "synthetic", "images"),
        direction="lower",
        range=(0.0, 1.0),
        unit="AUC",
        min_samples=40,
        min_patients=20,
        citation="arXiv:2004.07780",
    )
    yield MetricSpec(
        name="c2st",
        version="1",
        factory="medtrust_explain.c2st:TwoSampleTest",
        summary="can a small network tell synthetic images from those of real patients it never saw?",
        title="Classifier two-sample test",
        pillar="explanation",
        needs=("train", "synthetic", "images"),
        direction="lower",
        range=(0.0, 1.0),
        unit="AUC",
        min_samples=100,
        min_patients=40,
        citation="arXiv:1610.06545",
    )
    yield MetricSpec(
        name="rules",
        version="1",
        factory="medtrust_explain.rules:Rules",
        summary="at most five rules of at most three named features that tell synthetic from real",
        title="Rules that tell synthetic from real",
        pillar="explanation",
        needs=("train", "synthetic", "images", "features"),
        spaces=("radiomics",),
        direction="lower",
        range=(0.0, 1.0),
        unit="balanced accuracy",
        min_samples=100,
        min_patients=80,
        citation="arXiv:0811.1679",
    )
    yield MetricSpec(
        name="latents",
        version="1",
        factory="medtrust_explain.codes:LatentCode",
        summary="which units of an autoencoder's code are in use, what each does, which attribute it follows",
        title="Meaning of the latent code",
        pillar="explanation",
        needs=("train", "synthetic", "images", "features", "generator"),
        spaces=("radiomics",),
        direction="higher",
        range=(0.0, 1.0),
        unit="rank correlation",
        min_samples=200,
        min_patients=50,
        citation="doi:10.1007/s00521-020-05270-2",
        optional=True,
    )


@hookimpl
def medtrust_explainers() -> Iterable[ExplainerSpec]:
    """Offer functions of a score and images that say where in the image the score comes from."""
    maps = (
        ("gradcam", "Grad-CAM", "activation maps weighed by their mean gradient", "arXiv:1610.02391", True),
        ("hirescam", "HiResCAM", "activations weighed by their own gradient", "arXiv:2011.08891", False),
        (
            "layercam",
            "LayerCAM",
            "activations weighed by their positive gradient",
            "doi:10.1109/TIP.2021.3089943",
            True,
        ),
    )
    for name, title, summary, citation, optional in maps:
        yield ExplainerSpec(
            name=name,
            version="1",
            factory=f"medtrust_explain.cam:{name}",
            summary=summary,
            title=title,
            citation=citation,
            optional=optional,
        )
    yield ExplainerSpec(
        name="expected_gradients",
        version="1",
        factory="medtrust_explain.gradients:expected_gradients",
        summary="attributions of pixels that add up to the score's change from real images",
        title="Expected gradients",
        optional=True,
        citation="doi:10.1038/s42256-021-00343-w",
    )


@hookimpl
def medtrust_suites() -> Iterable[SuiteSpec]:
    """Offer `medtrust selftest --suite explain`."""
    yield SuiteSpec(
        name="explain",
        version="1",
        factory="medtrust_explain.suite:ExplainSuite",
        summary="do the maps find artefacts that were planted in real images?",
    )
