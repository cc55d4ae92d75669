"""Cut an image set into shards: consecutive batches that one worker takes at a time."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from medtrust.images import ImageSet

__all__ = ["Shard", "cut"]

MOST_IMAGES = 256  # what a killed worker costs, and what an answer holds
MOST_BYTES = 64 * 2**20  # of decoded pixels


@dataclass(frozen=True, slots=True)
class Shard:
    """Some consecutive images of a set.

    Args:
        set: Name of the set.
        number: Position among the shards of the set.
        start: First image.
        stop: One past the last image.
        id: SHA-256 of all this and of the images' names, shapes and types.
    """

    set: str
    number: int
    start: int
    stop: int
    id: str

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def where(self) -> range:
        """Positions of its images in the set."""
        return range(self.start, self.stop)

    def __str__(self) -> str:
        return f"shard {self.number} of {self.set} (images {self.start} to {self.stop - 1})"


def cut(
    images: ImageSet, batch_size: int, *, most_images: int = MOST_IMAGES, most_bytes: int = MOST_BYTES
) -> list[Shard]:
    """Cut a set where batches end anyway, so that each worker sees the batches of a run in one process.

    Args:
        images: The set; nothing is decoded.
        batch_size: Images per batch.
        most_images: A shard is closed before it would hold more, but holds at least one batch.
        most_bytes: The same for its decoded pixels.

    Returns:
        Shards in the order of the images, which hold each of them once.
    """
    shards: list[Shard] = []
    start = stop = size = 0
    for batch in images.cuts(batch_size):
        header = images.headers[batch.start]
        bytes_here = len(batch) * math.prod(header.shape) * np.dtype(header.dtype).itemsize
        if stop > start and (batch.stop - start > most_images or size + bytes_here > most_bytes):
            shards.append(_shard(images, len(shards), start, stop))
            start, size = batch.start, 0
        stop, size = batch.stop, size + bytes_here
    if stop > start:
        shards.append(_shard(images, len(shards), start, stop))
    return shards


def _shard(images: ImageSet, number: int, start: int, stop: int) -> Shard:
    state = hashlib.sha256(json.dumps([images.name, number, start, stop]).encode())
    for index in range(start, stop):
        header = images.headers[index]
        fact = json.dumps([images.names[index], header.index, list(header.shape), header.dtype])
        state.update(fact.encode("utf-8", "surrogateescape") + b"\n")
    return Shard(images.name, number, start, stop, state.hexdigest())
