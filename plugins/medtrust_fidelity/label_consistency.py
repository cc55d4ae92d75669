"""Do synthetic images show the label that they were asked for, as far as a classifier can tell real ones?"""

from __future__ import annotations

import numpy as np
import torch

from medtrust import Insufficient, MetricInput, Result
from medtrust.types import SetData
from medtrust_fidelity.conditional import Discriminant, against_ceiling, conditions_of
from medtrust_fidelity.options import option

__all__ = ["LabelConsistency"]

_METRIC = "label_consistency"


class LabelConsistency:
    """Balanced accuracy of a classifier of real images on the labels of synthetic ones."""

    def compute(self, data: MetricInput) -> Result:
        """Fit on train; balanced accuracy on holdout is the ceiling. The option `column` names the label (label)."""
        assert data.holdout is not None  # the spec asks for it
        column = str(option(data, _METRIC, "column", "label"))
        labels = {one.name: conditions_of(one, column, _METRIC) for one in (data.train, data.holdout, data.synthetic)}
        classes = sorted(set(labels["train"]))
        if len(classes) < 2:
            raise Insufficient(
                f"the column {column!r} of train has one value, {classes[0]!r}; there is nothing to tell"
            )
        for name in ("holdout", "synthetic"):
            unknown = sorted(set(labels[name]) - set(classes))
            if unknown:
                raise Insufficient(
                    f"{name} has the label {unknown[0]!r}, which no train image has: {', '.join(classes)}"
                )
        codes = {name: torch.tensor([classes.index(label) for label in of]) for name, of in labels.items()}
        fitted = Discriminant(data.train.matrix, codes["train"], len(classes), equal=True)

        def right(one: SetData) -> np.ndarray:
            return (fitted.classify(one.matrix) == codes[one.name]).double().numpy()

        synthetic, holdout = right(data.synthetic), right(data.holdout)
        weights = tuple(_balance(codes[name]) for name in ("synthetic", "holdout"))
        result = against_ceiling(
            data, (synthetic, data.synthetic.patients), (holdout, data.holdout.patients),
            "the share of right labels", "Labels kept", {"classes": len(classes), "chance": 1 / len(classes)}, weights,  # type: ignore[arg-type]
        )  # fmt: skip
        assert result.null is not None
        assert result.null.interval is not None
        if result.null.interval.lo <= 1 / len(classes):
            raise Insufficient(
                f"the classifier tells the labels of holdout with {result.null.value:.2f}, not surely better than "
                f"chance ({1 / len(classes):.2f}): in this feature space it cannot judge the synthetic ones"
            )
        return result


def _balance(codes: torch.Tensor) -> np.ndarray:
    """Weights with which each class counts alike."""
    weights: np.ndarray = (1 / torch.bincount(codes).double())[codes].numpy()
    return weights
