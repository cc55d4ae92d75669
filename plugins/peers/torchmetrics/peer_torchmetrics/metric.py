"""Features in, torchmetrics' numbers out."""

from collections.abc import Mapping

import torch
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from medtrust import Estimate, MetricInput, Result

NOTE = "The peer's number as it stands: it has no interval, so no gate that judges by intervals can pass it."


class Rows(torch.nn.Module):
    """Stands where torchmetrics has its network: what comes in are features already."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.num_features = columns

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return features [N, d] as they are."""
        return rows


class Torchmetrics:
    """FID, and KID in one subset of all rows."""

    def compute(self, data: MetricInput) -> Mapping[str, Result]:
        """Ask torchmetrics."""
        real, made = data.train.matrix, data.synthetic.matrix
        size = min(len(real), len(made))
        torch.manual_seed(data.seed % 2**63)  # KID draws its subset from the global state, which the host guards
        answers = {}
        for name, metric in (
            ("fid", FrechetInceptionDistance(feature=Rows(real.shape[1])).set_dtype(torch.float64)),
            ("kid", KernelInceptionDistance(feature=Rows(real.shape[1]), subsets=1, subset_size=size)),
        ):
            metric.update(real, real=True)
            metric.update(made, real=False)
            found = metric.compute()
            value = float(found[0] if isinstance(found, tuple) else found)
            answers[f"fidelity.tm_{name}"] = Result(
                Estimate(value, "feature²" if name == "fid" else "kernel"), notes=(NOTE,)
            )
        return answers
