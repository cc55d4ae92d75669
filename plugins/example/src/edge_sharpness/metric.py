"""The metric: are the edges of synthetic images as sharp as those of real ones?"""

from collections import defaultdict

import numpy as np

from medtrust import Estimate, Insufficient, Interval, MetricInput, Null, Resolution, Result, stats
from medtrust.types import SetData

POWER = 0.8


class EdgeSharpness:
    """Absolute difference of the mean step between neighbouring pixels, between patients, as a share of the range."""

    def compute(self, data: MetricInput) -> Result:
        """Answer with an estimate, its interval, real against real, and what could have been seen."""
        width = data.intensity.hi - data.intensity.lo
        if width <= 0:
            raise Insufficient(f"the declared range {data.intensity.lo} to {data.intensity.hi} is empty")
        train = steps(data.train) / width
        value, error, dof = gap(train, steps(data.synthetic) / width)
        spread = stats.t_quantile(data.level, dof) * error
        visible = stats.min_detectable(error, data.level, dof, POWER)
        null = None
        if data.holdout is not None:
            null = Null("train against holdout", gap(train, steps(data.holdout) / width)[0])
        return Result(
            estimate=Estimate(value, "of the range", "lower"),
            interval=Interval(max(0.0, value - spread), value + spread, data.level, "t of patient means", dof + 2),
            null=null,
            resolution=Resolution(visible, POWER, f"A difference below {visible:.3g} could not have been seen."),
            facts={"train": float(train.mean()), "patients": len(train)},
        )


def steps(images: SetData) -> np.ndarray:
    """Mean step of each patient: the patient, not the image, is what varies independently."""
    of_patient: dict[str, list[float]] = defaultdict(list)
    for record in images.images:
        pixels = record.pixels.astype(np.float64)
        right, down = (np.abs(np.diff(pixels, axis=axis)) for axis in (-1, -2))
        of_patient[record.patient].append(float(right.mean() + down.mean()) / 2)
    return np.array([np.mean(of_patient[patient]) for patient in sorted(of_patient)])


def gap(a: np.ndarray, b: np.ndarray) -> tuple[float, float, int]:
    """Absolute difference of two means, its standard error, and the degrees of freedom."""
    error = np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    return float(abs(a.mean() - b.mean())), float(error), len(a) + len(b) - 2
