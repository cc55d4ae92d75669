"""A set of images that decodes lazily, in parallel, in a fixed order, and remembers only what headers hold."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from medtrust.errors import DataError, MedtrustError, PluginError
from medtrust.images.describe import describe_set
from medtrust.images.digests import digest
from medtrust.progress import Progress, QuietProgress
from medtrust.types import ImageHeader, ImageReader, ImageRecord, Intensity, Limits, SetName

__all__ = ["Batch", "Entry", "ImageSet"]

Item = TypeVar("Item")
Value = TypeVar("Value")

_CHUNK = 16  # images one task decodes: few enough to stay small, enough that the thread pool costs nothing


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one image of a set lies and who reads it."""

    path: Path
    name: str
    patient: str
    header: ImageHeader
    reader: ImageReader
    format: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive images of one shape and dtype.

    Args:
        indices: Position of each image in the set.
        records: The decoded images.
    """

    indices: tuple[int, ...]
    records: tuple[ImageRecord, ...]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def pixels(self) -> npt.NDArray[Any]:
        """All images as one array [N, C, H, W] in the set's unit."""
        return np.stack([record.pixels for record in self.records])


class _Store:
    """The entries of a set and what decoding them has shown so far; subsets share it."""

    def __init__(self, entries: Sequence[Entry], intensity: Intensity, limits: Limits) -> None:
        self.entries = tuple(entries)
        self.intensity = intensity
        self.limits = limits
        self.digests: list[str | None] = [None] * len(self.entries)
        self.outside = np.zeros(len(self.entries), np.int64)
        self.lock = threading.Lock()

    def decode(self, row: int) -> ImageRecord:
        entry = self.entries[row]
        pixels = self._read(entry)
        found = digest(pixels, self.intensity)
        self.learn(row, found, _count_outside(pixels, self.intensity))
        return ImageRecord(pixels, entry.name, entry.patient, entry.header, found)

    def learn(self, row: int, found: str, outside: int) -> None:
        with self.lock:
            known = self.digests[row]
            self.digests[row], self.outside[row] = found, outside
        if known not in (None, found):
            entry = self.entries[row]
            raise DataError(f"{entry.path}: the pixels of {entry.name} changed since they were first read; run again.")

    def _read(self, entry: Entry) -> npt.NDArray[Any]:
        try:
            pixels = entry.reader.read(entry.path, entry.header, self.limits)
        except MedtrustError:
            raise
        except Exception as error:
            raise PluginError(
                f"{entry.path}: the reader of format {entry.format!r} failed with {type(error).__name__}: {error}."
            ) from error
        header = entry.header
        if pixels.shape != tuple(header.shape) or pixels.dtype != np.dtype(header.dtype):
            raise PluginError(
                f"{entry.path}: the reader of format {entry.format!r} announced {header.dtype} {list(header.shape)} "
                f"for {entry.name} but returned {pixels.dtype} {list(pixels.shape)}."
            )
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise DataError(
                f"{entry.path}: {entry.name} holds pixels that are not numbers (NaN or infinite); repair or remove it."
            )
        return pixels


class ImageSet(Sequence[ImageRecord]):
    """Images of one role in an audit; indexing and iterating decode. Made by `open_set`.

    Args:
        name: train, holdout or synthetic.
        entries: Where each image lies.
        intensity: The declared range that all images share.
        limits: Caps that readers enforce.
        patients_known: Every patient comes from the data or the user, none from a guess.
        skipped: Files in the folder that are not images.
        notes: Sentences that a reader of the report should know.
    """

    def __init__(
        self,
        name: SetName,
        entries: Sequence[Entry],
        intensity: Intensity,
        limits: Limits,
        *,
        patients_known: bool,
        skipped: int = 0,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.name: SetName = name
        self.patients_known = patients_known
        self.skipped = skipped
        self.notes = notes
        self._store = _Store(entries, intensity, limits)
        self._rows: Sequence[int] = range(len(entries))

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> ImageRecord: ...
    @overload
    def __getitem__(self, index: slice) -> ImageSet: ...
    def __getitem__(self, index: int | slice) -> ImageRecord | ImageSet:
        if isinstance(index, slice):
            return self.take(range(len(self))[index])
        return self._store.decode(self._rows[index])

    def __repr__(self) -> str:
        return f"ImageSet({self.name}: {len(self)} images)"

    @property
    def intensity(self) -> Intensity:
        """The declared range that every image of the set shares."""
        return self._store.intensity

    @property
    def limits(self) -> Limits:
        """Caps that readers enforce."""
        return self._store.limits

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Name of each image: its path below the root, with `#index` where a file holds several."""
        return tuple(self._store.entries[row].name for row in self._rows)

    @cached_property
    def patients(self) -> tuple[str, ...]:
        """Patient of each image."""
        return tuple(self._store.entries[row].patient for row in self._rows)

    @cached_property
    def headers(self) -> tuple[ImageHeader, ...]:
        """What the file declared of each image."""
        return tuple(self._store.entries[row].header for row in self._rows)

    @cached_property
    def modality(self) -> str | None:
        """DICOM modality code, several joined by "+", None where no file names one."""
        found = sorted({header.modality for header in self.headers if header.modality})
        return "+".join(found) or None

    @cached_property
    def private_values(self) -> Mapping[str, str]:
        """Kind of each value that must never reach a report: patients, file names, and what headers call private."""
        found: dict[str, str] = {}
        for name, patient, header in zip(self.names, self.patients, self.headers, strict=True):
            if self.name != "synthetic":
                found[PurePosixPath(name.partition("#")[0]).with_suffix("").as_posix()] = "file name"
                found.update({patient: "patient"} if self.patients_known else {})
            found.update({header.patient: "patient"} if header.patient else {})
            tags = header.attributes.items()
            found.update({value: key.removeprefix("phi.") for key, value in tags if key.startswith("phi.")})
        return found

    @property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each image's canonical pixels; decodes whatever was not decoded before."""
        self.inspect()
        return tuple(str(self._store.digests[row]) for row in self._rows)

    @property
    def outside(self) -> tuple[int, ...]:
        """How many pixels of each image lie outside the declared range; decodes what was not decoded before."""
        self.inspect()
        return tuple(int(self._store.outside[row]) for row in self._rows)

    def take(self, indices: Iterable[int]) -> ImageSet:
        """Choose images, in the given order; what decoding shows is shared with this set.

        Args:
            indices: Positions in this set.

        Returns:
            A set of the same name.
        """
        chosen = ImageSet.__new__(ImageSet)
        chosen.name, chosen.patients_known = self.name, self.patients_known
        chosen.skipped, chosen.notes, chosen._store = self.skipped, self.notes, self._store
        chosen._rows = [self._rows[int(index)] for index in indices]
        return chosen

    def batches(self, size: int, *, workers: int | None = None, progress: Progress | None = None) -> Iterator[Batch]:
        """Decode the set in order; a batch ends where the shape or the dtype changes.

        Args:
            size: Most images in one batch.
            workers: Decoding threads; None for one per core, 1 for none beside the caller's.
            progress: Where to report.

        Yields:
            Batches whose content and order do not depend on `workers`.
        """
        threads = workers if workers is not None else min(8, os.cpu_count() or 1)
        chunks = [part for batch in self.cuts(size) for part in _parts(batch)]
        held: list[ImageRecord] = []
        with (progress or QuietProgress()).stage(f"reading {self.name}", len(self)) as stage:
            for (indices, last), records in zip(chunks, _in_order(self._decode, chunks, threads), strict=True):
                stage.advance(len(records))
                held += records
                if last:
                    start = indices.stop - len(held)
                    yield Batch(tuple(range(start, indices.stop)), tuple(held))
                    held = []

    def cuts(self, size: int) -> Iterator[range]:
        """Cut the set into the batches of `batches`: consecutive images of one shape and dtype, at most `size`."""
        if size < 1:
            raise ValueError("a batch holds at least one image")
        start = 0
        for index in range(1, len(self) + 1):
            if index == len(self) or index - start == size or self._kind(index) != self._kind(start):
                yield range(start, index)
                start = index

    def entries(self, where: range) -> tuple[Entry, ...]:
        """Where some images lie, and who reads them: what another process needs to decode them."""
        return tuple(self._store.entries[self._rows[index]] for index in where)

    def learn(self, where: range, digests: Sequence[str], outside: Sequence[int]) -> None:
        """Take over what decoding has shown to another process, so that it is not decoded here as well.

        Args:
            where: Positions in this set.
            digests: Pixel digest of each.
            outside: How many pixels of each lie outside the declared range.

        Raises:
            DataError: A digest differs from what this process has seen.
        """
        for index, found, count in zip(where, digests, outside, strict=True):
            self._store.learn(self._rows[index], found, count)

    def inspect(self, *, workers: int | None = None, progress: Progress | None = None) -> None:
        """Decode every image that was not decoded yet, so that digests and counts are known."""
        unseen = [index for index, row in enumerate(self._rows) if self._store.digests[row] is None]
        for _ in self.take(unseen).batches(_CHUNK, workers=workers, progress=progress) if unseen else ():
            pass

    def describe(self) -> dict[str, Any]:
        """Sum the set up for the report; decodes what was not decoded before, names no path and no patient."""
        return describe_set(self)

    def _kind(self, index: int) -> tuple[tuple[int, ...], str]:
        header = self._store.entries[self._rows[index]].header
        return tuple(header.shape), header.dtype

    def _decode(self, chunk: tuple[range, bool]) -> list[ImageRecord]:
        return [self[index] for index in chunk[0]]


def _parts(batch: range) -> Iterator[tuple[range, bool]]:
    """Cut one batch into tasks, the last of which is marked."""
    for start in range(batch.start, batch.stop, _CHUNK):
        stop = min(start + _CHUNK, batch.stop)
        yield range(start, stop), stop == batch.stop


def _in_order(work: Callable[[Item], Value], items: Iterable[Item], threads: int) -> Iterator[Value]:
    """Map with a bounded number of tasks ahead, results in the order of the items."""
    if threads <= 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="medtrust-decode")
    ahead: deque[Future[Value]] = deque()
    try:
        for item in items:
            ahead.append(pool.submit(work, item))
            if len(ahead) > 2 * threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _count_outside(pixels: npt.NDArray[Any], intensity: Intensity) -> int:
    if not pixels.size or (intensity.lo <= pixels.min() and pixels.max() <= intensity.hi):
        return 0
    return int(np.count_nonzero((pixels < intensity.lo) | (pixels > intensity.hi)))
