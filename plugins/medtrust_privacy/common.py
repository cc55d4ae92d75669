"""What every privacy metric needs: refusals in words, the views of the pixel space, patient-level reference scores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from medtrust.errors import ConfigError, DataError, Insufficient
from medtrust.stats import (
    DEFAULT_SEARCH,
    SEARCHES,
    clopper_pearson,
    conformal_p,
    copy_score,
    image_versions,
    pixel_embedding,
    pixel_views,
)
from medtrust.stats.copying import Views
from medtrust.stats.embedding import PIXEL_SIDE
from medtrust.stats.linking import keep_one_of_linked
from medtrust.types import FeatureMatrix, Interval, MetricInput, SetData

__all__ = [
    "AgainstTrain",
    "Trio",
    "interval_of_share",
    "patient_codes",
    "patient_minimum",
    "effect_option",
    "search_option",
    "share_option",
]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
MIN_DISTINCT = 10


class Trio:
    """Train, holdout and synthetic with features that a copy test can work on, each person once.

    Patients who share an image are linked, and one of each linked group stays (`keep_one_of_linked`). Where the search
    for copies is widened by the option `search`, the pixel space makes the further versions from its rows; any other
    space embeds further versions of the images as more images of the same patients.

    Args:
        data: Input of the metric; needs features of all three sets. Option `search`: what else a copy may have
            undergone, any of `SEARCHES`.

    Raises:
        Insufficient: No holdout, features that are not finite, or a set that holds hardly any different images.
        DataError: The features are not the pixel embedding of the images, and nothing can embed edited images.
        ConfigError: The option names an unknown search.
    """

    def __init__(self, data: MetricInput) -> None:
        if data.holdout is None:
            raise Insufficient("needs a holdout set: real images of patients whom the generator never saw")
        train, holdout, self.synthetic = (_checked(each) for each in (data.train, data.holdout, data.synthetic))
        self.data, self.search = data, search_option(data)
        shape = _pixel_shape(data.train)
        self.views: Views | None = partial(pixel_views, shape=shape, kinds=self.search) if shape else None
        if shape is None and data.embed is None:
            raise DataError(
                f"feature space {train.space} has {train.values.shape[1]} columns, which is not medtrust's own pixel "
                "embedding, and there is no way to embed edited copies in it: run it through an audit"
            )
        self.linked = keep_one_of_linked(train, holdout, data.seed, near=shape is not None)
        self.index = {"train": self.linked.train, "holdout": self.linked.holdout}
        self.train, self.holdout = _rows_of(train, self.index["train"]), _rows_of(holdout, self.index["holdout"])
        if shape is None and self.search:
            self.train = self._widened(self.train, data.train, "train")
            self.holdout_versions = self._widened(self.holdout, data.holdout, "holdout")
        else:
            self.holdout_versions = self.holdout

    def image(self, name: str, row: int) -> int:
        """Index in its set of the image that a row of `train` or `holdout_versions` was made of."""
        index = self.index[name]
        return int(index[row % len(index)])

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Embed further images [N, C, H, W] as the sets are embedded."""
        if self.data.embed is not None:
            return self.data.embed(images)
        return pixel_embedding(images, self.data.intensity)

    def _widened(self, features: FeatureMatrix, data: SetData, name: str) -> FeatureMatrix:
        """Add a row for each further version of each image, version by version."""
        rows: list[torch.Tensor] = []
        for index in self.index[name].tolist():
            image = torch.from_numpy(np.ascontiguousarray(data.images[index].pixels, dtype=np.float64))[None]
            rows.append(self.embed(torch.cat(list(image_versions(image, self.search)))))
        versions = torch.stack(rows, dim=1)  # [V, n, d]
        times = len(versions) + 1
        return replace(
            features,
            values=torch.cat([features.values, versions.flatten(0, 1).to(features.values.dtype)]),
            patients=features.patients * times,
            digests=features.digests * times,
        )

    def refuse_few_patients(self) -> None:
        """Refuse sets whose holdout cannot serve as a reference sample.

        Raises:
            Insufficient: Fewer than ten patients in train or holdout.
        """
        for name, features in (("train", self.train), ("holdout", self.holdout)):
            count = patient_codes(features)[1]
            if count < MIN_DISTINCT:
                raise Insufficient(f"needs {MIN_DISTINCT} patients to compare with; {name} has {count}")

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


def _pixel_shape(train: SetData) -> tuple[int, int, int] | None:
    """Shape of the rows of medtrust's own pixel embedding; None where the features are of another space."""
    assert train.features is not None
    if train.features.space != "pixels":
        return None
    channels, height, width = train.images[0].pixels.shape
    shape = (channels, min(height, PIXEL_SIDE), min(width, PIXEL_SIDE))
    return shape if train.features.values.shape[1] == shape[0] * shape[1] * shape[2] else None


def _rows_of(features: FeatureMatrix, rows: npt.NDArray[np.int64]) -> FeatureMatrix:
    if len(rows) == len(features):
        return features
    keep = rows.tolist()
    return replace(
        features,
        values=features.values[torch.from_numpy(rows)],
        patients=tuple(features.patients[i] for i in keep),
        digests=tuple(features.digests[i] for i in keep),
    )


def search_option(data: MetricInput) -> tuple[str, ...]:
    """Read what else a copy may have undergone: the option `search`, else mirror and crops in the pixel space alone.

    Raises:
        ConfigError: It is no list of known searches.
    """
    asked = data.options.get("search")
    if asked is None:
        return DEFAULT_SEARCH if data.space in ("", "pixels") else ()
    if not isinstance(asked, (list, tuple)) or not all(kind in SEARCHES for kind in asked):
        raise ConfigError(f"privacy option search is {asked!r}; give a list of any of {', '.join(SEARCHES)}")
    chosen = (*DEFAULT_SEARCH, *asked) if data.space in ("", "pixels") else tuple(asked)
    return tuple(kind for kind in SEARCHES if kind in chosen)


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
