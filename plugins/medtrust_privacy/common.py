"""What every privacy metric needs: refusals in words, the views of the pixel space, patient-level reference scores."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from medtrust.errors import ConfigError, DataError, Insufficient
from medtrust.stats import clopper_pearson, conformal_p, copy_score, pixel_views
from medtrust.stats.copying import Views
from medtrust.stats.embedding import PIXEL_SIDE
from medtrust.types import FeatureMatrix, Interval, MetricInput, SetData

__all__ = [
    "AgainstTrain",
    "Trio",
    "interval_of_share",
    "patient_codes",
    "patient_minimum",
    "effect_option",
    "share_option",
]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
MIN_DISTINCT = 10


class Trio:
    """Train, holdout and synthetic with features that a copy test can work on.

    Args:
        data: Input of the metric; needs features of all three sets.

    Raises:
        Insufficient: No holdout, features that are not finite, or a set that holds hardly any different images.
        DataError: The features are not the pixel embedding of the images.
    """

    def __init__(self, data: MetricInput) -> None:
        if data.holdout is None:
            raise Insufficient("needs a holdout set: real images of patients whom the generator never saw")
        self.train, self.holdout, self.synthetic = (
            _checked(each) for each in (data.train, data.holdout, data.synthetic)
        )
        self.views = _views(data.train)

    def against_train(self, seed: int) -> AgainstTrain:
        """Score synthetic and holdout images against train alone; `seed` chooses one image of each holdout patient."""
        queries = torch.cat([self.synthetic.values, self.holdout.values])
        codes, _ = patient_codes(self.train)
        score = copy_score(queries, self.train.values, codes, views=self.views).score
        synthetic, holdout = score[: len(self.synthetic)], score[len(self.synthetic) :]
        own, _ = patient_codes(self.holdout)
        order = np.random.default_rng(seed).permutation(len(own))
        single = holdout[order[np.unique(own[order], return_index=True)[1]]]
        smallest = patient_minimum(holdout, self.holdout)
        return AgainstTrain(synthetic, smallest, single, conformal_p(synthetic, smallest))


@dataclass(frozen=True, slots=True)
class AgainstTrain:
    """Copy scores against train.

    Args:
        synthetic: [m] score of each synthetic image.
        smallest: [N_H] smallest score of each holdout patient.
        single: [N_H] score of one random image of each holdout patient.
        p: [m] conformal p-value: the chance that a patient whom the generator never saw has a score this small.
    """

    synthetic: Floats
    smallest: Floats
    single: Floats
    p: Floats


def _checked(data: SetData) -> FeatureMatrix:
    if data.features is None:
        raise ValueError(f"no features of {data.name}: add 'features' to the metric's needs")
    broken = int((~torch.isfinite(data.features.values).all(dim=1)).sum())
    if broken:
        raise Insufficient(f"{broken} images of {data.name} have features that are not finite: look for broken pixels")
    distinct = len(set(data.digests))
    if distinct < MIN_DISTINCT:
        raise Insufficient(f"needs {MIN_DISTINCT} different images in each set; {data.name} holds {distinct}")
    return data.features


def _views(train: SetData) -> Views:
    """Make the views of the pixel space from the shape of its images."""
    assert train.features is not None
    channels, height, width = train.images[0].pixels.shape
    shape = (channels, min(height, PIXEL_SIDE), min(width, PIXEL_SIDE))
    columns = train.features.values.shape[1]
    if columns != shape[0] * shape[1] * shape[2]:
        raise DataError(
            f"feature space {train.features.space} has {columns} columns, but copies are planted in medtrust's own "
            f"pixel embedding {shape}: disable the plugin that replaces it"
        )
    return partial(pixel_views, shape=shape)


def patient_codes(features: FeatureMatrix) -> tuple[npt.NDArray[np.int64], int]:
    """Number the patients 0 … G - 1 in order of first appearance; returns [n] codes and G."""
    return _numbered(features.patients)


def patient_minimum(scores: Floats, features: FeatureMatrix) -> Floats:
    """Take the smallest score of each patient [G]."""
    codes, count = patient_codes(features)
    smallest = np.full(count, np.inf)
    np.minimum.at(smallest, codes, scores)
    return smallest


def interval_of_share(hits: Bools, patients: tuple[str, ...], level: float) -> tuple[float, Interval]:
    """Estimate a share of images when images of one patient hang together.

    Args:
        hits: [n] whether each image counts.
        patients: [n] patient of each image.
        level: Confidence level.

    Returns:
        The share, and its Clopper-Pearson interval at the effective sample size (by patient).
    """
    codes, units = _numbered(patients)
    share = float(hits.mean())
    excess = np.zeros(units)
    np.add.at(excess, codes, hits - share)
    variance = float((excess**2).sum()) * units / max(1, units - 1) / len(hits) ** 2
    effective = min(float(units), max(1.0, share * (1 - share) / variance)) if variance > 0 else float(units)
    own = units == len(hits)
    if own:
        effective = float(units)
    lo, hi = clopper_pearson(share * effective, effective, level)
    method = "Clopper-Pearson" if own else "Clopper-Pearson at the effective sample size by patient"
    return share, Interval(lo, hi, level, method, units, "image" if own else "patient")


def _numbered(patients: tuple[str, ...]) -> tuple[npt.NDArray[np.int64], int]:
    numbers: dict[str, int] = {}
    codes = np.array([numbers.setdefault(name, len(numbers)) for name in patients], dtype=np.int64)
    return codes, len(numbers)


def share_option(data: MetricInput, name: str, default: float) -> float:
    """Read an option that is a share.

    Raises:
        ConfigError: It is not a number strictly between 0 and 1.
    """
    value = data.options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        raise ConfigError(f"privacy option {name} is {value!r}; give a number between 0 and 1, such as {default}")
    return float(value)


def effect_option(data: MetricInput) -> float:
    """Read the share of copies that a self-test must find: the option `effect`, else what the policy asks, else 2 %."""
    return share_option(data, "effect", 0.02 if data.demand.effect is None else data.demand.effect)
