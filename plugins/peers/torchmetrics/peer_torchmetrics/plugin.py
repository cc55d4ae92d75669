"""torchmetrics' numbers as metrics: offered here, computed in `metric`."""

from collections.abc import Iterable

from medtrust import MetricSpec, hookimpl

MEDTRUST_API = 1


@hookimpl
def medtrust_metrics() -> Iterable[MetricSpec]:
    """Offer FID and KID in whatever feature space the user chose."""
    yield MetricSpec(
        name="torchmetrics",
        version="1",
        factory="peer_torchmetrics.metric:Torchmetrics",
        summary="FID and KID as torchmetrics computes them from these features",
        pillar="fidelity",
        needs=("train", "synthetic", "features"),
        results=("fidelity.tm_fid", "fidelity.tm_kid"),
        direction="lower",
        min_samples=8,
        requires=("torchmetrics", "torch_fidelity"),
        citation="arXiv:1706.08500",
        optional=True,
    )
