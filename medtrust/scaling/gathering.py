"""Put the answers of many workers together into what one process would have found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from medtrust.errors import EngineError, PluginError
from medtrust.extraction import Survey
from medtrust.progress import Progress
from medtrust.rows import SpaceRows
from medtrust.scaling.ledger import Ledger, Proof
from medtrust.scaling.shards import MOST_IMAGES, Shard, cut
from medtrust.scaling.work import Answer, Order, Place, Refusal, Setup, here
from medtrust.types import FeatureExtractor, ImageHeader, Intensity

if TYPE_CHECKING:
    from medtrust.cache import FeatureStore
    from medtrust.images import ImageSet
    from medtrust.images.imageset import Entry
    from medtrust.spaces import Opening

__all__ = ["gather", "stripped"]

_SHARDS_EACH = 4  # of a small set per worker, so that none waits long for the last one
Ask = Callable[[Setup, Iterable[Order]], AbstractContextManager[Iterator[Answer | Refusal]]]


def gather(
    images: ImageSet,
    extractors: Mapping[str, FeatureExtractor],
    openings: Mapping[str, Opening],
    intensity: Intensity,
    store: FeatureStore | None,
    ask: Ask,
    place: Place,
    *,
    batch_size: int,
    workers: int,
    progress: Progress,
) -> tuple[Survey, Proof]:
    """Survey a set by asking others to decode and extract.

    Args:
        images: The set; what decoding shows is entered there, so that nothing is decoded again here.
        extractors: Feature spaces by name, as this process would compute them.
        openings: How the workers open the same spaces.
        intensity: Declared range.
        store: Where features are kept between runs; only this process reads and writes it.
        ask: Sends orders and yields the answers in the order of the orders.
        place: What workers take over from this process.
        batch_size: Images per batch.
        workers: How many will answer; a small set is cut so that each has a few shards.
        progress: Where to report.

    Raises:
        MedtrustError: What one process would have raised for the same image.
        EngineError: An answer is missing, doubled, or computed with other versions or another instruction set.
    """
    shards = cut(images, batch_size, most_images=min(MOST_IMAGES, -(-len(images) // (_SHARDS_EACH * workers))))
    ledger = Ledger(shards)
    spaces = [SpaceRows(name, extractor, intensity, store, len(images)) for name, extractor in extractors.items()]
    known = {space.name: _sorted(store.digests(space.key)) for space in spaces} if store is not None else {}
    setup = Setup(
        repr(sorted(openings.items())), place, images.name, openings, intensity, images.limits, batch_size, known
    )
    facts = here(extractors) | {"threads": str(place.threads)}
    digests: list[str] = []
    with progress.stage(f"reading {images.name}", len(images)) as stage:
        try:
            with ask(setup, (_order(images, shard) for shard in shards)) as answers:
                for shard, answer in zip(shards, answers, strict=True):
                    whole = _checked(shard, answer, facts)
                    ledger.enter(whole.shard_id, whole.positions, whole.digests)
                    images.learn(shard.where, whole.digests, whole.outside)
                    lost = [space for space in spaces if not _place(space, images, shard, whole)]
                    if lost:  # another process removed rows from the store after the digests were sent
                        again = replace(setup, known={})
                        with ask(again, [_order(images, shard)]) as more:
                            for answer_again in more:
                                whole = _checked(shard, answer_again, facts)
                        for space in lost:
                            _place(space, images, shard, whole)
                    for space in spaces:
                        space.close(shard.where, whole.digests)
                    digests += whole.digests
                    stage.advance(len(shard))
        finally:
            for space in spaces:
                space.flush()
    for sentence in store.take_notices() if store is not None else ():
        progress.say(sentence)
    proof = ledger.close()
    features = {space.name: space.matrix(tuple(digests), images.patients) for space in spaces}
    return Survey(tuple(digests), features, {space.name: space.extracted for space in spaces}), proof


def _sorted(digests: Sequence[bytes]) -> npt.NDArray[np.bytes_]:
    return np.sort(np.array(digests, dtype="S32"))


def _order(images: ImageSet, shard: Shard) -> Order:
    return Order(shard, tuple(stripped(entry) for entry in images.entries(shard.where)))


def stripped(entry: Entry) -> Entry:
    """An image's whereabouts without its patient and without what its header calls private."""
    header: ImageHeader = entry.header
    public = {key: value for key, value in header.attributes.items() if not key.startswith("phi.")}
    return replace(entry, patient="", header=replace(header, patient=None, attributes=public))


def _checked(shard: Shard, answer: Answer | Refusal, facts: Mapping[str, str]) -> Answer:
    if isinstance(answer, Refusal):
        answer.throw(shard)
        raise AssertionError("a refusal raises")
    for name, value in facts.items():
        theirs = answer.facts.get(name)
        if theirs != value:
            raise EngineError(
                f"worker {answer.worker} has {name} {theirs}, this process {value}: their numbers may differ in the "
                "last digits. Install the same versions everywhere; MEDTRUST_CPU, MEDTRUST_MATRIX and "
                "ATEN_CPU_CAPABILITY bring unlike processors to one instruction set"
            )
    return answer


def _place(space: SpaceRows, images: ImageSet, shard: Shard, answer: Answer) -> bool:
    """Enter a shard's rows; False where the store no longer has a row that it had."""
    for places, values in answer.rows[space.name]:
        for where, row in zip(places, torch.tensor(values), strict=True):
            digest = answer.digests[where]
            if digest not in space.rows:
                space.keep(shard.start + where, images.names[shard.start + where], digest, row, computed=True)
            elif space.values is not None and not torch.equal(space.values[space.rows[digest]], row):
                raise PluginError(
                    f"feature space {space.name} gives {images.names[shard.start + where]} other features than the "
                    "same pixels elsewhere: a row depends on the images beside it, or on chance; report it to its "
                    "authors"
                )
    rest = {digest: where for where, digest in reversed(list(enumerate(answer.digests))) if digest not in space.rows}
    if rest and space.store is None:
        raise EngineError(f"{shard} came back without the features of {len(rest)} images in the space {space.name}")
    for digest, row in zip(rest, space.store.lookup(space.key, list(rest)) if space.store else (), strict=True):
        if row is None:
            return False
        where = shard.start + rest[digest]
        space.keep(where, images.names[where], digest, row)
    return True
