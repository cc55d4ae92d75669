"""What this distribution offers. Importing this file must stay instant: no torch, no numpy, no network."""

from collections.abc import Iterable

from medtrust import MetricSpec, hookimpl

MEDTRUST_API = 1


@hookimpl
def medtrust_metrics() -> Iterable[MetricSpec]:
    """Offer the metric."""
    yield MetricSpec(
        name="edge_sharpness",
        version="1",
        factory="edge_sharpness.metric:EdgeSharpness",
        summary="difference of the mean step between neighbouring pixels",
        title="Sharpness of edges",
        pillar="fidelity",
        needs=("train", "synthetic", "images"),
        direction="lower",
        range=(0.0, 1.0),
        min_samples=4,
        min_patients=4,
        symmetric=True,  # train and synthetic may change places
        identity=0.0,  # the value for a set with itself
    )
