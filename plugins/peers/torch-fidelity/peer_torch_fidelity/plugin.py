"""torch-fidelity's numbers as metrics: offered here, computed in `metric`."""

from collections.abc import Iterable

from medtrust import MetricSpec, hookimpl

MEDTRUST_API = 1


@hookimpl
def medtrust_metrics() -> Iterable[MetricSpec]:
    """Offer FID, KID, precision and recall in whatever feature space the user chose."""
    yield MetricSpec(
        name="torch_fidelity",
        version="1",
        factory="peer_torch_fidelity.metric:TorchFidelity",
        summary="FID, KID, precision and recall as torch-fidelity computes them from these features",
        pillar="fidelity",
        needs=("train", "synthetic", "features"),
        results=("fidelity.tf_fid", "fidelity.tf_kid", "fidelity.tf_precision", "diversity.tf_recall"),
        min_samples=8,
        requires=("torch_fidelity",),
        citation="arXiv:1706.08500",
        optional=True,
    )
