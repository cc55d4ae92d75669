"""Self-test suites: what one is given, and what it answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from medtrust.types.images import ImageRecord, Intensity
from medtrust.types.protocols import FeatureExtractor
from medtrust.types.specs import Spec

if TYPE_CHECKING:
    from medtrust.progress import Progress

__all__ = ["Suite", "SuiteInput", "SuiteRow", "SuiteSpec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteSpec(Spec):
    """A self-test suite, run by `medtrust selftest --suite NAME`."""


@dataclass(frozen=True, slots=True)
class SuiteInput:
    """What a suite may look at.

    Args:
        train: Real images; an `ImageSet`, with `patients`.
        holdout: Real images of other patients, or None.
        synthetic: A generator's images, or None.
        intensity: Declared range of all sets.
        spaces: Feature spaces that the user chose, open, by name.
        store: Feature store for `medtrust.extraction.survey`, or None.
        seed: Root seed.
        progress: Where to report.
        options: Options of the suite by name.
    """

    train: Sequence[ImageRecord]
    holdout: Sequence[ImageRecord] | None
    synthetic: Sequence[ImageRecord] | None
    intensity: Intensity
    spaces: Mapping[str, FeatureExtractor]
    store: Any
    seed: int
    progress: Progress
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SuiteRow:
    """One thing that a suite tested.

    Args:
        name: What was tested, such as a feature space or a detector.
        status: ok, failed, or not_run where it could not be tested.
        detail: One sentence.
        facts: Figures, JSON-ready.
    """

    name: str
    status: Literal["ok", "failed", "not_run"]
    detail: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Suite(Protocol):
    """What `SuiteSpec.factory` names: a class that is made without arguments."""

    def run(self, data: SuiteInput) -> Iterable[SuiteRow]:
        """Test, and answer row by row; raise `Insufficient` with a sentence where nothing can be tested."""
        ...
