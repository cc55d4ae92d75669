"""The rows of one feature space over one set, and what an extractor must keep to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from medtrust.cache import FeatureStore, space_key
from medtrust.errors import DataError, PluginError
from medtrust.types import FeatureExtractor, FeatureMatrix, ImageRecord, Intensity

__all__ = ["SpaceRows", "alike", "extract_rows"]

SHARD_ROWS = 512  # new rows that are written together: what a kill can cost


class SpaceRows:
    """The rows of one feature space over one set, each distinct image once, in one matrix that is allotted once.

    Args:
        name: Name of the space.
        extractor: The space.
        intensity: Declared range of the set.
        store: Where features are kept between runs; None keeps nothing.
        n: Images of the set.
    """

    def __init__(
        self, name: str, extractor: FeatureExtractor, intensity: Intensity, store: FeatureStore | None, n: int
    ) -> None:
        self.name, self.extractor, self.intensity, self.store, self.n = name, extractor, intensity, store, n
        self.digest = extractor.digest
        self.key = space_key(self.digest, intensity)
        self.values: torch.Tensor | None = None
        self.rows: dict[str, int] = {}  # where the features of a digest are
        self.pending: list[str] = []
        self.extracted = 0

    def take(self, indices: Sequence[int], records: Sequence[ImageRecord]) -> None:
        """Find or compute the rows of one batch."""
        new = {record.digest: (i, record) for i, record in zip(indices, records, strict=True)}
        new = {digest: place for digest, place in new.items() if digest not in self.rows}
        if self.store is not None and new:
            for digest, row in zip(tuple(new), self.store.lookup(self.key, list(new)), strict=True):
                if row is not None:
                    i, record = new.pop(digest)
                    self.keep(i, record.name, digest, row)
        for group in alike(new.values()):
            found = extract_rows(self.name, self.extractor, self.intensity, [record for _, record in group])
            for (i, record), row in zip(group, found, strict=True):
                self.keep(i, record.name, record.digest, row, computed=True)
        self.close(indices, [record.digest for record in records])

    def keep(self, index: int, name: str, digest: str, row: torch.Tensor, *, computed: bool = False) -> None:
        """Put one row in its place.

        Args:
            index: Position of the image in the set.
            name: Its name, for errors.
            digest: Its pixel digest.
            row: [d] float32.
            computed: The store does not have it yet.

        Raises:
            DataError: Another width than the rows before it.
        """
        if self.values is None:
            self.values = torch.empty(self.n, len(row))
        if len(row) != (columns := self.values.shape[1]):
            raise DataError(
                f"{name} gives {len(row)} features in the space {self.name}, the images before it {columns}; "
                "bring all images to one size, or choose another feature space"
            )
        self.values[index] = row
        self.rows[digest] = index
        if computed:
            self.pending.append(digest)
            self.extracted += 1

    def close(self, indices: Sequence[int], digests: Sequence[str]) -> None:
        """End a batch whose distinct images all have their rows: fill in the repeated ones, write what has gathered."""
        if self.values is not None:
            for i, digest in zip(indices, digests, strict=True):
                if self.rows[digest] != i:
                    self.values[i] = self.values[self.rows[digest]]
        if len(self.pending) >= SHARD_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write new rows to the store."""
        if self.store is not None and self.pending:
            assert self.values is not None  # what is pending was kept
            self.store.add(self.key, self.pending, self.values[[self.rows[digest] for digest in self.pending]])
        self.pending = []

    def matrix(self, digests: tuple[str, ...], patients: tuple[str, ...]) -> FeatureMatrix:
        """The features of the whole set."""
        values = self.values if self.values is not None else torch.zeros(0, len(self.extractor.names))
        return FeatureMatrix(values, patients, digests, self.name, self.digest, tuple(self.extractor.names))


def alike(places: Iterable[tuple[int, ImageRecord]]) -> list[list[tuple[int, ImageRecord]]]:
    """Group images that can be stacked: those of one shape and dtype."""
    groups: dict[tuple[object, ...], list[tuple[int, ImageRecord]]] = {}
    for i, record in places:
        groups.setdefault((record.pixels.shape, record.pixels.dtype), []).append((i, record))
    return list(groups.values())


def extract_rows(
    name: str, extractor: FeatureExtractor, intensity: Intensity, records: Sequence[ImageRecord]
) -> torch.Tensor:
    """Compute the features of images of one shape and dtype, and hold the extractor to its contract.

    Args:
        name: Name of the space, for errors.
        extractor: The space.
        intensity: Declared range.
        records: At least one image.

    Returns:
        [n, d] float32 on the CPU.

    Raises:
        DataError: A feature is not finite.
        PluginError: The extractor returned something other than [n, d] features.
    """
    pixels = np.stack([record.pixels for record in records])
    native = torch.from_numpy(pixels.astype(pixels.dtype.newbyteorder("="), copy=False))
    with torch.no_grad():
        values = extractor.extract(native, intensity)
    if not isinstance(values, torch.Tensor) or values.ndim != 2 or len(values) != len(records):
        shape = list(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
        raise PluginError(f"feature space {name} must return [{len(records)}, d] features, it returned {shape}")
    if extractor.names and len(extractor.names) != values.shape[1]:
        raise PluginError(f"feature space {name} names {len(extractor.names)} columns and returns {values.shape[1]}")
    values = values.to("cpu", torch.float32)
    bad = (~torch.isfinite(values).all(dim=1)).nonzero()
    if len(bad):
        raise DataError(
            f"{records[int(bad[0])].name} has no finite features in the space {name}; "
            "look for NaN or infinite pixels, and take the image out or repair it"
        )
    return values
