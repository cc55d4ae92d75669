"""What metrics are given: each set with its features, by image and, where the audit asks for it, by volume."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch

from medtrust.errors import ConfigError, DataError, SafetyError
from medtrust.extraction import Embedder, Scaling, Survey, standardise
from medtrust.types import FeatureMatrix, ImageRecord, Intensity, Result, SetData, SetName

if TYPE_CHECKING:
    from medtrust.images import ImageSet

__all__ = [
    "VOLUME_FEATURES",
    "Inputs",
    "Volumes",
    "by_image",
    "by_volume",
    "check_volume_features",
    "describe_volumes",
    "shareable",
]

VOLUME_FEATURES = {
    "mean": "the mean of its slices' features",
    "mean-sd": "the mean and the standard deviation of its slices' features",
}


@dataclass(frozen=True, slots=True)
class Inputs:
    """The sets as metrics see them, row by row.

    Args:
        sets: Sets by name.
        features: Per feature space and set, a row for each image, or for each volume.
        embed: Per space, the map from further images to such rows; empty by volume.
        shown: By volume, the image of the set that stands for each row in pictures; empty by image.
        note: What a row is, where it is no image.
    """

    sets: Mapping[SetName, SetData]
    features: Mapping[str, Mapping[SetName, FeatureMatrix]]
    embed: Mapping[str, Embedder] = field(default_factory=dict)
    shown: Mapping[SetName, Sequence[int]] = field(default_factory=dict)
    note: str = ""

    def in_images(self, result: Result) -> Result:
        """Point a result's pictures at images of the sets, and say what its rows are."""
        if not self.shown:
            return result
        evidence = tuple(
            replace(
                item,
                pictures=tuple(
                    replace(p, sources=tuple((name, self.shown[name][row]) for name, row in p.sources))
                    for p in item.pictures
                ),
            )
            for item in result.evidence
        )
        return replace(result, evidence=evidence, notes=(*result.notes, self.note))


def by_image(
    sets: Mapping[SetName, ImageSet],
    surveys: Mapping[SetName, Survey],
    extractors: Mapping[str, Any],
    intensity: Intensity,
) -> Inputs:
    """Give metrics one row per image.

    Args:
        sets: Image sets.
        surveys: What reading them found.
        extractors: Feature spaces by name.
        intensity: Declared range.
    """
    data = {
        name: SetData(
            name,
            images,
            images.patients,
            surveys[name].digests,
            names=images.names,
            attributes=tuple(shareable(header.attributes) for header in images.headers),
        )
        for name, images in sets.items()
    }
    raw = {space: {name: survey.features[space] for name, survey in surveys.items()} for space in extractors}
    embed = {
        space: Embedder(extractor, intensity, Scaling.of(raw[space]) if _scaled(extractor) else None)
        for space, extractor in extractors.items()
    }
    return Inputs(data, _scale_all(raw, extractors), embed)


def by_volume(
    sets: Mapping[SetName, ImageSet],
    surveys: Mapping[SetName, Survey],
    extractors: Mapping[str, Any],
    how: str,
) -> Inputs:
    """Give metrics one row per volume, made of the rows of its slices, and each volume as one image [C, D, H, W].

    Args:
        sets: Image sets whose images are slices of volumes.
        surveys: What reading them found, slice by slice.
        extractors: Feature spaces by name.
        how: A key of `VOLUME_FEATURES`.

    Raises:
        DataError: An image belongs to no volume, or a volume to two patients.
    """
    stacks = {name: Volumes(images, surveys[name].digests) for name, images in sets.items()}
    data = {
        name: SetData(
            name,
            stack,
            stack.patients,
            stack.digests,
            names=stack.names,
            attributes=tuple(shareable(sets[name].headers[rows[0]].attributes) for rows in stack.rows),
        )
        for name, stack in stacks.items()
    }
    raw = {
        space: {name: _aggregate(survey.features[space], stacks[name], how) for name, survey in surveys.items()}
        for space in extractors
    }
    shown = {name: [rows[len(rows) // 2] for rows in stack.rows] for name, stack in stacks.items()}
    note = f"a row is a volume and its features are {VOLUME_FEATURES[how]}"
    return Inputs(data, _scale_all(raw, extractors), {}, shown, note)


def describe_volumes(data: Mapping[str, dict[str, Any]], volumes: Inputs | None) -> dict[str, Any]:
    """Add to each set's description how many volumes it holds and what their features are; nothing without volumes."""
    if volumes is None:
        return dict(data)
    counts = {str(name): len(each) for name, each in volumes.sets.items()}
    return {name: _with_volumes(each, counts[name], volumes.note) for name, each in data.items()}


def _with_volumes(described: dict[str, Any], count: int, note: str) -> dict[str, Any]:
    made = f"{described['n_images']} slices make up {count} volumes; where a metric takes volumes {note}. "
    notes = [*described["notes"], made + "Other metrics, and the check of feature spaces, look at slices."]
    return {**described, "n_volumes": count, "notes": notes}


def check_volume_features(how: str | None) -> str | None:
    """Check `--volumes`.

    Raises:
        ConfigError: There is no such way to sum slices up.
    """
    if how is not None and how not in VOLUME_FEATURES:
        raise ConfigError(f"volumes {how!r} is unknown; use {' or '.join(VOLUME_FEATURES)}, or leave it out")
    return how


class Volumes(Sequence[ImageRecord]):
    """Slices of a set put together to the volumes that they are from; indexing decodes.

    Args:
        images: The slices.
        digests: Pixel digest of each slice.

    Raises:
        DataError: An image belongs to no volume, or a volume to two patients.
    """

    def __init__(self, images: ImageSet, digests: Sequence[str]) -> None:
        rows: dict[tuple[str, str], list[int]] = {}
        for index, (name, header) in enumerate(zip(images.names, images.headers, strict=True)):
            series = header.attributes.get("series")
            if series is None:
                raise DataError(
                    f"{name} of {images.name} belongs to no volume; leave --volumes out, or give every set as volumes"
                )
            rows.setdefault((name.rpartition("/")[0], series), []).append(index)
        self.images, self.rows = images, tuple(tuple(each) for each in rows.values())
        for each in self.rows:
            if len({images.patients[index] for index in each}) > 1:
                raise DataError(
                    f"{images.names[each[0]]} of {images.name} is of a volume whose slices have several patients; "
                    "a volume has one"
                )
        self.patients = tuple(images.patients[each[0]] for each in self.rows)
        self.names = tuple(self._name(each) for each in self.rows)
        self.digests = tuple(
            hashlib.sha256("\n".join(digests[index] for index in each).encode()).hexdigest() for each in self.rows
        )

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> ImageRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ImageRecord]: ...
    def __getitem__(self, index: int | slice) -> ImageRecord | Sequence[ImageRecord]:
        if isinstance(index, slice):
            return [self[each] for each in range(len(self))[index]]
        rows = self.rows[index]
        headers = [self.images.headers[row] for row in rows]
        if len({(tuple(header.shape), header.dtype) for header in headers}) > 1:
            raise DataError(f"the slices of {self.names[index]} differ in shape or type, so they are no volume")
        channels, height, width = headers[0].shape
        most = self.images.limits.max_pixels
        if len(rows) * height * width > most:
            raise SafetyError(
                f"{self.names[index]} has {len(rows)} x {height} x {width} pixels, more than {most}; take fewer by "
                "--slices z:STEP"
            )
        pixels = np.stack([self.images[row].pixels for row in rows], axis=1)
        header = replace(headers[0], shape=(channels, len(rows), height, width), index=0)
        return ImageRecord(pixels, self.names[index], self.patients[index], header, self.digests[index])

    def _name(self, rows: Sequence[int]) -> str:
        """The file's name where one file holds the volume, else the name of its first slice."""
        files = {self.images.names[row].partition("#")[0] for row in rows}
        return files.pop() if len(files) == 1 else self.images.names[rows[0]]


def _aggregate(matrix: FeatureMatrix, stack: Volumes, how: str) -> FeatureMatrix:
    values = matrix.values.double()
    parts = [values[list(rows)] for rows in stack.rows]
    columns = [torch.stack([part.mean(0) for part in parts])]
    names = matrix.names
    if how == "mean-sd":
        columns.append(torch.stack([part.std(0, correction=0) for part in parts]))
        names = (*names, *(f"{name}, sd over slices" for name in names))
    return replace(
        matrix,
        values=torch.cat(columns, dim=1).float(),
        patients=stack.patients,
        digests=stack.digests,
        space_digest=hashlib.sha256(f"{matrix.space_digest}\n{how}".encode()).hexdigest(),
        names=names,
    )


def _scaled(extractor: Any) -> bool:
    return bool(getattr(extractor, "standardise", False))


def _scale_all(
    raw: Mapping[str, Mapping[SetName, FeatureMatrix]], extractors: Mapping[str, Any]
) -> dict[str, Mapping[SetName, FeatureMatrix]]:
    return {space: standardise(each) if _scaled(extractors[space]) else each for space, each in raw.items()}


def shareable(attributes: Mapping[str, str]) -> Mapping[str, str]:
    """What a metric may learn of an image: everything but what names the patient."""
    return {key: value for key, value in attributes.items() if not key.startswith("phi.")}
