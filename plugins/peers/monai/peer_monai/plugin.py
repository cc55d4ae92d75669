"""MONAI's numbers as metrics: offered here, computed in `metric`."""

from collections.abc import Iterable

from medtrust import MetricSpec, hookimpl

MEDTRUST_API = 1


@hookimpl
def medtrust_metrics() -> Iterable[MetricSpec]:
    """Offer FID in whatever feature space the user chose."""
    yield MetricSpec(
        name="monai",
        version="1",
        factory="peer_monai.metric:Monai",
        summary="FID as MONAI computes it from these features",
        pillar="fidelity",
        needs=("train", "synthetic", "features"),
        results=("fidelity.monai_fid",),
        direction="lower",
        min_samples=8,
        requires=("monai",),
        citation="arXiv:1706.08500",
        optional=True,
    )
