"""Features in, MONAI's number out."""

from monai.metrics.fid import FIDMetric

from medtrust import Estimate, MetricInput, Result

NOTE = "The peer's number as it stands: it has no interval, so no gate that judges by intervals can pass it."


class Monai:
    """FID of the features."""

    def compute(self, data: MetricInput) -> Result:
        """Ask MONAI."""
        value = FIDMetric()(data.synthetic.matrix, data.train.matrix)
        return Result(Estimate(float(value), "feature²"), notes=(NOTE,))
