"""One decoding pass over an image set that feeds every feature space, and the scaling of what comes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from medtrust.cache import FeatureStore
from medtrust.errors import DataError
from medtrust.progress import Progress, QuietProgress
from medtrust.rows import SpaceRows
from medtrust.types import FeatureExtractor, FeatureMatrix, ImageRecord, Intensity, SetName

__all__ = ["Embedder", "Scaling", "Survey", "standardise", "survey"]

CONSTANT_SCALE = 0.01  # the spread that a column gets which is constant in train but not in another set
_RESOLUTION = 4 * float(np.finfo(np.float32).eps)


class Batch(Protocol):
    """Some decoded images and where in the set they belong."""

    @property
    def indices(self) -> Sequence[int]:
        """Position of each record in its set."""
        ...

    @property
    def records(self) -> Sequence[ImageRecord]:
        """The decoded images."""
        ...


class Decodable(Protocol):
    """An image set, as far as a survey needs one."""

    @property
    def name(self) -> str:
        """train, holdout or synthetic."""
        ...

    def __len__(self) -> int: ...

    def batches(self, size: int, *, workers: int) -> Iterable[Batch]:
        """Decode every image once, `size` at a time."""
        ...


@dataclass(frozen=True, slots=True)
class Survey:
    """What one pass over a set found.

    Args:
        digests: Pixel digest of each image.
        features: Per space, the features of the set.
        extracted: Per space, how many images had to be computed because the store did not have them.
    """

    digests: tuple[str, ...]
    features: Mapping[str, FeatureMatrix]
    extracted: Mapping[str, int]


def survey(
    images: Decodable,
    extractors: Mapping[str, FeatureExtractor],
    intensity: Intensity,
    store: FeatureStore | None = None,
    *,
    batch_size: int = 64,
    workers: int = 1,
    progress: Progress | None = None,
) -> Survey:
    """Decode each image once and collect its features in every space.

    Pixels that the store has seen, or that occur twice in the set, are not extracted again. New rows are written every
    few hundred images and whenever the pass ends, for whatever reason.

    Args:
        images: The set.
        extractors: Feature spaces by name; none gives the digests alone.
        intensity: Declared range of the set.
        store: Where features are kept between runs; None keeps nothing.
        batch_size: Images decoded and extracted together; it changes no value.
        workers: Decoding processes or threads, as the set understands them.
        progress: Where to report.

    Raises:
        DataError: A feature is not finite, or the images' sizes do not fit one space.
        PluginError: An extractor returned something other than [N, d] features.
    """
    progress = progress or QuietProgress()
    spaces = [SpaceRows(name, extractor, intensity, store, len(images)) for name, extractor in extractors.items()]
    digests: list[str | None] = [None] * len(images)
    patients = [""] * len(images)
    with progress.stage(f"reading {images.name}", len(images)) as stage:
        try:
            for batch in images.batches(batch_size, workers=workers):
                for index, record in zip(batch.indices, batch.records, strict=True):
                    digests[index], patients[index] = record.digest, record.patient
                for space in spaces:
                    space.take(batch.indices, batch.records)
                stage.advance(len(batch.records))
        finally:
            for space in spaces:
                space.flush()
    for sentence in store.take_notices() if store is not None else ():
        progress.say(sentence)
    whole = tuple(digest for digest in digests if digest is not None)
    if len(whole) != len(images):
        raise DataError(f"{len(images) - len(whole)} of the {len(images)} images of {images.name} were not decoded")
    features = {space.name: space.matrix(whole, tuple(patients)) for space in spaces}
    return Survey(whole, features, {space.name: space.extracted for space in spaces})


@dataclass(frozen=True, slots=True)
class Scaling:
    """The columns of a space that are kept, and the mean and spread they are given by train.

    Args:
        mean: [d] float64.
        scale: [d] float64, positive.
        kept: [d] bool.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    kept: torch.Tensor

    @classmethod
    def of(cls, matrices: Mapping[SetName, FeatureMatrix]) -> Scaling:
        """Learn the scaling, see `standardise`.

        Raises:
            DataError: train is empty or missing.
        """
        if "train" not in matrices or not len(matrices["train"]):
            raise DataError("features can only be standardised by a train set of at least one image")
        train = matrices["train"].values.double()
        mean, sd = train.mean(dim=0), train.std(dim=0, correction=0)
        largest = train.abs().amax(dim=0)
        constant = sd <= _RESOLUTION * largest
        everything = torch.cat([matrix.values.double() for matrix in matrices.values()])
        kept = ~(constant & ((everything - mean).abs() <= _RESOLUTION * largest).all(dim=0))
        return cls(mean, torch.where(constant, torch.full_like(sd, CONSTANT_SCALE), sd), kept)

    def apply(self, values: torch.Tensor) -> torch.Tensor:
        """Scale features [N, d] to [N, d'] float32."""
        return ((values.double() - self.mean) / self.scale)[:, self.kept].float()


def standardise(matrices: Mapping[SetName, FeatureMatrix]) -> dict[SetName, FeatureMatrix]:
    """Give every column the mean 0 and the standard deviation 1 that it has in train.

    The synthetic set has no say in the scale, so a generator cannot shrink its own distance. Columns that are constant
    over all sets are left out; which ones shows in `names`. A column that is constant in train and varies elsewhere is
    kept, divided by `CONSTANT_SCALE`: that a generator invents variation is news.

    Args:
        matrices: train and any others, in one space.

    Returns:
        The same sets, values [N, d'] float32.

    Raises:
        DataError: train is empty or missing.
    """
    scaling = Scaling.of(matrices)
    kept = scaling.kept.tolist()
    out: dict[SetName, FeatureMatrix] = {}
    for name, matrix in matrices.items():
        names = tuple(c for c, keep in zip(matrix.names, kept, strict=True) if keep) if matrix.names else ()
        out[name] = replace(matrix, values=scaling.apply(matrix.values), names=names)
    return out


@dataclass(frozen=True, slots=True)
class Embedder:
    """The map from further images to features like those of the sets: for images that a metric edits itself.

    Args:
        extractor: The feature space.
        intensity: Declared range of the sets.
        scaling: As given to the sets; None where the space is not standardised.
    """

    extractor: FeatureExtractor
    intensity: Intensity
    scaling: Scaling | None = None

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Map images [N, C, H, W], in the unit of the sets, to features [N, d] float32."""
        with torch.no_grad():
            values = self.extractor.extract(images, self.intensity).to("cpu", torch.float32)
        return values if self.scaling is None else self.scaling.apply(values)
