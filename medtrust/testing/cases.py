"""Image sets in memory, on which metrics are checked: smooth random fields, some patients with two images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from medtrust.images import digest
from medtrust.types import ImageHeader, ImageRecord, Intensity, SetData, SetName

__all__ = ["Case", "Images", "make_case"]

Array = np.ndarray[Any, Any]
SIDE = 24


def _fields(rng: np.random.Generator, n: int) -> Array:
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(rng.normal(size=(n, 1, SIDE, SIDE)), (0, 0, 1.5, 1.5))
    noise /= noise.std(axis=(1, 2, 3), keepdims=True)
    levels = 128 + 35 * noise + rng.normal(0, 10, (n, 1, 1, 1)) + rng.normal(0, 3, noise.shape)
    fields: Array = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return fields


@dataclass(frozen=True, slots=True)
class Images:
    """What images a contribution is checked on; by default smooth random fields [1, 24, 24] of 8 bits.

    Args:
        draw: Draws n independent images [n, C, H, W] in the unit of `intensity`; the same generator state gives the
            same images.
        intensity: Their declared range.
        attributes: Further facts of image i of a set, such as a label.
        modality: DICOM modality code, or None.
    """

    draw: Callable[[np.random.Generator, int], Array] = _fields
    intensity: Intensity = field(default_factory=lambda: Intensity(0.0, 255.0, "level"))
    attributes: Callable[[int], Mapping[str, str]] = lambda i: {"group": "ab"[i % 2]}
    modality: str | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """train, holdout and synthetic as a metric sees them, without features."""

    sets: Mapping[SetName, SetData]
    images: Images

    def array(self, name: SetName) -> Array:
        """Pixels of a set, [N, C, H, W]."""
        return np.stack([record.pixels for record in self.sets[name].images])

    def with_synthetic(self, pixels: Array) -> Case:
        """The same real sets beside other synthetic images."""
        return replace(self, sets={**self.sets, "synthetic": _set("synthetic", pixels, None, self.images)})

    def noisy(self, seed: int, share: float = 0.25) -> Case:
        """The same case with synthetic images under white noise of `share` of the range they use."""
        pixels = self.array("synthetic")
        spread = float(pixels.max()) - float(pixels.min())
        noise = np.random.default_rng(seed).normal(0, share * spread, pixels.shape)
        intensity = self.images.intensity
        worse = np.clip(pixels + noise, intensity.lo, intensity.hi)
        if np.issubdtype(pixels.dtype, np.integer):
            limits = np.iinfo(pixels.dtype)
            worse = np.clip(np.rint(worse), limits.min, limits.max)
        return self.with_synthetic(worse.astype(pixels.dtype))

    def copied(self) -> Case:
        """The same real sets, with the images of train as the synthetic ones."""
        train = self.sets["train"]
        return replace(self, sets={**self.sets, "synthetic": replace(train, name="synthetic")})

    def swapped(self) -> Case:
        """The same case with train and synthetic in each other's place."""
        train, synthetic = self.sets["train"], self.sets["synthetic"]
        swapped: dict[SetName, SetData] = {
            "train": replace(synthetic, name="train"),
            "synthetic": replace(train, name="synthetic"),
        }
        return replace(self, sets={**self.sets, **swapped})

    def shuffled(self) -> Case:
        """The same sets, each in another order: the odd rows, then the even ones."""
        orders = {name: np.r_[1 : len(one) : 2, 0 : len(one) : 2] for name, one in self.sets.items()}
        return replace(self, sets={name: _ordered(one, orders[name]) for name, one in self.sets.items()})

    def own(self) -> Case:
        """The same sets with pixels of their own, so that what writes into them harms no other check."""
        sets = {
            name: one if isinstance(one.images, _Decoding) else replace(one, images=list(_Decoding(one.images)))
            for name, one in self.sets.items()
        }
        return replace(self, sets=sets)

    def lazy(self) -> Case:
        """The same sets as the host hands them over: each access decodes anew."""
        return replace(self, sets={name: replace(one, images=_Decoding(one.images)) for name, one in self.sets.items()})

    def shortened(self, n: int) -> Case:
        """The first n images of each set."""
        return replace(self, sets={name: _ordered(one, np.arange(min(n, len(one)))) for name, one in self.sets.items()})

    def without_holdout(self) -> Case:
        """The same case as an audit without --holdout sees it."""
        return replace(self, sets={name: one for name, one in self.sets.items() if name != "holdout"})


class _Decoding(Sequence[ImageRecord]):
    """A sequence that answers every access with fresh arrays, as a set on disk does."""

    def __init__(self, records: Sequence[ImageRecord]) -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        record = self._records[index]
        return replace(record, pixels=record.pixels.copy())

    def __iter__(self) -> Iterator[ImageRecord]:
        return (self[i] for i in range(len(self)))


def make_case(images: Images, n: int, patients: int, seed: int) -> Case:
    """Draw the three sets.

    Args:
        images: What they look like.
        n: Images in each set, at least.
        patients: Patients in each real set, at least.
        seed: Another seed gives other images of the same kind.
    """
    sets: dict[SetName, SetData] = {}
    people = max(patients, -(-3 * n // 4))
    for place, name in enumerate(("train", "holdout")):
        owners = [f"{name}-{i}" for i in range(people)]
        owners += owners[: people // 3]
        rng = np.random.default_rng((seed, place))
        sets[name] = _set(name, images.draw(rng, len(owners)), owners, images)  # type: ignore[index, arg-type]
    synthetic = images.draw(np.random.default_rng((seed, 2)), len(sets["train"]))
    sets["synthetic"] = _set("synthetic", synthetic, None, images)
    return Case(sets, images)


def _set(name: SetName, pixels: Array, owners: Sequence[str] | None, images: Images) -> SetData:
    header = ImageHeader(
        tuple(pixels.shape[1:]), pixels.dtype.name, intensity=images.intensity, modality=images.modality
    )
    records = []
    for i, one in enumerate(pixels):
        told = replace(header, attributes=dict(images.attributes(i)))
        owner = owners[i] if owners else f"{name}-{i}"
        one = np.ascontiguousarray(one)
        records.append(ImageRecord(one, f"{i:05d}.png", owner, told, digest(one, images.intensity)))
    return _of(name, records)


def _of(name: SetName, records: Sequence[ImageRecord]) -> SetData:
    return SetData(
        name,
        records,
        tuple(r.patient for r in records),
        tuple(r.digest for r in records),
        names=tuple(r.name for r in records),
        attributes=tuple(r.header.attributes for r in records),
    )


def _ordered(one: SetData, order: Array) -> SetData:
    return _of(one.name, [one.images[int(i)] for i in order])
