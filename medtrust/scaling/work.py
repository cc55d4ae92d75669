"""What a worker does with a shard. Everything here and everything that it is given can be pickled.

A worker never writes to disk: features go back to the process that asked, which alone keeps the feature store.
"""

from __future__ import annotations

import os
import platform
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from medtrust import __version__
from medtrust.errors import EngineError, MedtrustError
from medtrust.images.imageset import Batch, Entry, ImageSet
from medtrust.ops import info
from medtrust.rows import alike, extract_rows
from medtrust.scaling.shards import Shard
from medtrust.spaces import Opening
from medtrust.types import FeatureExtractor, Intensity, Limits

__all__ = ["Answer", "Decoded", "Order", "Place", "Refusal", "Setup", "decode", "extract", "here", "run", "settle"]

Values = npt.NDArray[np.float32]
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Place:
    """What a worker's process takes over from the one that asks, so that both compute the same bits.

    Args:
        folder: Current folder, which relative paths start from.
        threads: Threads of torch and of the native kernels.
        environ: Variables that choose kernels.
    """

    folder: str
    threads: int
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Setup:
    """What all shards of one set have in common; it is sent to each machine once.

    Args:
        key: Tells setups with other feature spaces apart, so that a process opens each network once.
        place: What the process takes over.
        set: Name of the set.
        openings: How each feature space is opened.
        intensity: Declared range.
        limits: Caps that readers enforce.
        batch_size: Images per batch.
        known: Per space, sorted pixel digests [n] of 32 bytes whose features need not be computed.
    """

    key: str
    place: Place
    set: str
    openings: Mapping[str, Opening]
    intensity: Intensity
    limits: Limits
    batch_size: int
    known: Mapping[str, npt.NDArray[np.bytes_]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Order:
    """One shard, and where its images lie. Patients stay with the process that asks."""

    shard: Shard
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Decoded:
    """A shard's images, on their way from a process that decodes to one that extracts."""

    shard: Shard
    batches: tuple[Batch, ...]
    outside: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one shard gave.

    Args:
        shard_id: Which shard.
        positions: Position in the set of each image, in the order of decoding.
        digests: Pixel digest of each.
        outside: Pixels of each beyond the declared range.
        rows: Per space, in groups of one width: which of these images were computed (their place in `positions`),
            and their features [k, d].
        worker: Node and process.
        facts: What the numbers depend on beside the images: see `here`.
    """

    shard_id: str
    positions: tuple[int, ...]
    digests: tuple[str, ...]
    outside: tuple[int, ...]
    rows: Mapping[str, tuple[tuple[tuple[int, ...], Values], ...]]
    worker: str
    facts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error on its way home: as a value, so that no engine retries it, logs it or wraps it.

    Args:
        error: The error, if medtrust raised it on purpose.
        text: What happened otherwise.
        detail: Where.
    """

    error: MedtrustError | None
    text: str = ""
    detail: str = ""

    def throw(self, what: object) -> None:
        """Raise what was raised."""
        if self.error is not None:
            raise self.error
        raise EngineError(f"{what} failed on a worker with {self.text}, at {self.detail}; please report this")


@dataclass(slots=True)
class _Process:
    """What this process has opened, so that the next shard finds it ready."""

    key: str | None = None
    extractors: dict[str, FeatureExtractor] = field(default_factory=dict)


_process = _Process()


def settle(place: Place) -> None:
    """Take over folder, threads and variables.

    Raises:
        EngineError: The folder does not exist here.
    """
    for name, value in place.environ.items():
        os.environ[name] = value
    if torch.get_num_threads() != place.threads:
        torch.set_num_threads(place.threads)
    if os.getcwd() != place.folder:
        try:
            os.chdir(place.folder)
        except OSError as error:
            raise EngineError(
                f"worker {platform.node()} does not see {place.folder} ({error.strerror}); every machine of the "
                "cluster must see the images, the weights and the current folder under the same paths"
            ) from error


def here(extractors: Mapping[str, FeatureExtractor]) -> dict[str, str]:
    """What features depend on beside the images: versions, instruction set, threads, and each space's digest."""
    native = info()
    return {
        "python": platform.python_version(),
        "medtrust": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "instruction set of torch": torch.backends.cpu.get_cpu_capability(),
        "instruction set of medtrust": str(native["isa"]),
        "matrix unit": str(native["matrix"]),
        "threads": str(torch.get_num_threads()),
        **{f"feature space {name}": extractor.digest for name, extractor in extractors.items()},
    }


def run(setup: Setup, order: Order) -> Answer | Refusal:
    """Decode a shard batch by batch and extract its features; only one batch is held at a time."""

    def work() -> Answer:
        images = _open(setup, order)
        return _answer(setup, order.shard, images.batches(setup.batch_size, workers=1), lambda: images.outside)

    return _guarded(work)


def decode(setup: Setup, order: Order) -> Decoded | Refusal:
    """Decode a shard for a process that extracts."""

    def work() -> Decoded:
        images = _open(setup, order)
        return Decoded(order.shard, tuple(images.batches(setup.batch_size, workers=1)), images.outside)

    return _guarded(work)


def extract(setup: Setup, decoded: Decoded | Refusal) -> Answer | Refusal:
    """Extract the features of a shard that another process has decoded."""
    if isinstance(decoded, Refusal):
        return decoded
    return _guarded(lambda: _answer(setup, decoded.shard, decoded.batches, lambda: decoded.outside))


def _guarded(work: Callable[[], Value]) -> Value | Refusal:
    try:
        return work()
    except MedtrustError as error:
        error.__cause__ = error.__context__ = error.__traceback__ = None  # not all of them can be pickled
        return Refusal(error)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        return Refusal(None, text, f"{os.path.basename(frame.filename)}:{frame.lineno}")


def _open(setup: Setup, order: Order) -> ImageSet:
    settle(setup.place)
    return ImageSet(setup.set, order.entries, setup.intensity, setup.limits, patients_known=True)  # type: ignore[arg-type]


def _answer(setup: Setup, shard: Shard, batches: Iterable[Batch], outside: Callable[[], Sequence[int]]) -> Answer:
    settle(setup.place)
    if _process.key != setup.key:
        _process.extractors.clear()
        for name, opening in setup.openings.items():
            _process.extractors[name] = _opened(name, opening)
        _process.key = setup.key
    found = {name: _Found(setup.known.get(name)) for name in setup.openings}
    positions: list[int] = []
    digests: list[str] = []
    for batch in batches:
        place = len(positions)
        positions += [shard.start + index for index in batch.indices]
        digests += [record.digest for record in batch.records]
        for name, rows in found.items():
            rows.take(name, _process.extractors[name], setup.intensity, place, batch)
    return Answer(
        shard.id,
        tuple(positions),
        tuple(digests),
        tuple(outside()),
        {name: tuple(rows.groups) for name, rows in found.items()},
        f"{platform.node()}/{os.getpid()}",
        here(_process.extractors),
    )


def _opened(name: str, opening: Opening) -> FeatureExtractor:
    try:
        return opening.open()
    except MedtrustError:
        raise
    except Exception as error:
        raise EngineError(
            f"worker {platform.node()} cannot open the feature space {name} ({type(error).__name__}: {error}); "
            "every machine of the cluster needs the same packages and weights"
        ) from error


class _Found:
    """The rows of one space that this shard has to compute: each distinct image once, none that is known."""

    def __init__(self, known: npt.NDArray[np.bytes_] | None) -> None:
        self._known = known if known is not None and len(known) else None
        self._seen: set[str] = set()
        self.groups: list[tuple[tuple[int, ...], Values]] = []

    def take(self, name: str, extractor: FeatureExtractor, intensity: Intensity, place: int, batch: Batch) -> None:
        wanted = []
        for offset, record in enumerate(batch.records):
            if record.digest not in self._seen:
                self._seen.add(record.digest)
                if not self._is_known(record.digest):
                    wanted.append((place + offset, record))
        for group in alike(wanted):
            values = extract_rows(name, extractor, intensity, [record for _, record in group])
            self.groups.append((tuple(where for where, _ in group), values.numpy()))

    def _is_known(self, digest: str) -> bool:
        if self._known is None:
            return False
        raw = bytes.fromhex(digest)
        at = int(np.searchsorted(self._known, np.bytes_(raw)))
        # numpy drops zero bytes at the end
        return at < len(self._known) and bytes(self._known[at]).ljust(len(raw), b"\0") == raw
