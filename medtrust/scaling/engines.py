"""The engines by name, and the one that needs nothing: this process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from medtrust.errors import ConfigError
from medtrust.scaling.ledger import Proof, content_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from medtrust.cache import FeatureStore
    from medtrust.extraction import Survey
    from medtrust.images import ImageSet
    from medtrust.progress import Progress
    from medtrust.spaces import Opening
    from medtrust.types import FeatureExtractor, Intensity

__all__ = ["ENGINES", "Engine", "LocalEngine", "make_engine"]

ENGINES = ("local", "ray")


class Engine(Protocol):
    """Where an audit decodes, extracts and searches. It is open inside a `with` block."""

    def __enter__(self) -> Self:
        """Start or join what is needed."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what was started, whatever happened."""
        ...

    def survey(
        self,
        images: ImageSet,
        extractors: Mapping[str, FeatureExtractor],
        openings: Mapping[str, Opening],
        intensity: Intensity,
        store: FeatureStore | None,
        *,
        batch_size: int,
        progress: Progress,
    ) -> Survey:
        """Decode each image once and collect its features in every space; see `medtrust.extraction.survey`."""
        ...

    def searching(self) -> AbstractContextManager[None]:
        """Answer searches for neighbours inside the block."""
        ...

    def facts(self) -> dict[str, Any]:
        """What run.json says of the engine, with the proof that every image of each set was counted once."""
        ...


class LocalEngine:
    """Threads of this process.

    Args:
        workers: Decoding threads; as many as there are cores, up to 8, when not given.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or min(8, os.cpu_count() or 1)
        self._proofs: dict[str, Proof] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def survey(
        self,
        images: ImageSet,
        extractors: Mapping[str, FeatureExtractor],
        openings: Mapping[str, Opening],
        intensity: Intensity,
        store: FeatureStore | None,
        *,
        batch_size: int,
        progress: Progress,
    ) -> Survey:
        """Decode each image once and collect its features in every space; see `medtrust.extraction.survey`."""
        from medtrust.extraction import survey

        found = survey(
            images, extractors, intensity, store, batch_size=batch_size, workers=self.workers, progress=progress
        )
        self._proofs[images.name] = Proof(len(images), 1, content_of(found.digests))
        return found

    @contextmanager
    def searching(self) -> Iterator[None]:
        """Leave searches to the kernels."""
        yield

    def facts(self) -> dict[str, Any]:
        """What run.json says of the engine."""
        return {"name": "local", "workers": self.workers, "counted": told(self._proofs)}


def told(proofs: Mapping[str, Proof]) -> dict[str, Any]:
    """Proofs as plain data."""
    return {
        name: {"images": proof.images, "shards": proof.shards, "content_sha256": proof.content}
        for name, proof in proofs.items()
    }


def make_engine(
    name: str, *, address: str | None = None, workers: int | None = None, offline: bool = False, device: str = "cpu"
) -> Engine:
    """Choose an engine and find every error that can be found before it starts.

    Args:
        name: local or ray.
        address: Of a running Ray cluster, `HOST:PORT`; a private one is started on this machine when not given.
        workers: Decoding threads of local, worker processes of ray.
        offline: No connection may leave this machine.
        device: Where networks run; on cuda, Ray's workers decode and extract in different processes.

    Raises:
        ConfigError: An unknown name, an address without ray, one that nothing answers at, one that `offline` forbids,
            or Ray is not installed.
    """
    if name not in ENGINES:
        raise ConfigError(f"engine {name!r} is not known; choose one of {', '.join(ENGINES)}")
    if name == "local":
        if address is not None:
            raise ConfigError("--ray-address is given and the engine is local; add --engine ray, or leave it out")
        return LocalEngine(workers)
    from medtrust.scaling.ray_engine import RayEngine

    return RayEngine(address, workers, offline=offline, split=device != "cpu")
