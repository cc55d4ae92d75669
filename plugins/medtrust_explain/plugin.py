"""Registers the explanations; importing it loads neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Iterable

from medtrust import MetricSpec, hookimpl

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
