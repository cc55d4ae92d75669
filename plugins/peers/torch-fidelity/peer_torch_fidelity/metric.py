"""Features in, torch-fidelity's numbers out."""

from collections.abc import Mapping

from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from medtrust import Estimate, MetricInput, Result

NOTE = "The peer's number as it stands: it has no interval, so no gate that judges by intervals can pass it."


class TorchFidelity:
    """FID, KID in one subset of all rows, and improved precision and recall with 3 neighbours."""

    def compute(self, data: MetricInput) -> Mapping[str, Result]:
        """Ask torch-fidelity."""
        real, made = data.train.matrix, data.synthetic.matrix
        size = min(len(real), len(made))
        fid = fid_statistics_to_metric(fid_features_to_statistics(made), fid_features_to_statistics(real), False)
        kid = kid_features_to_metric(made, real, kid_subsets=1, kid_subset_size=size, verbose=False)
        prc = prc_features_to_metric(made, real, verbose=False)
        return {
            "fidelity.tf_fid": answer(fid["frechet_inception_distance"], "feature²", "lower"),
            "fidelity.tf_kid": answer(kid["kernel_inception_distance_mean"], "kernel", "lower"),
            "fidelity.tf_precision": answer(prc["precision"], "share", "higher"),
            "diversity.tf_recall": answer(prc["recall"], "share", "higher"),
        }


def answer(value: float, unit: str, direction: str) -> Result:
    """A result without an interval, which says so."""
    return Result(Estimate(float(value), unit, "lower" if direction == "lower" else "higher"), notes=(NOTE,))
