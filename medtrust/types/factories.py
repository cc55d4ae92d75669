"""What each spec's `factory` names, as a protocol: mypy tells an author whose code does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from medtrust.types.images import ImageReader
    from medtrust.types.protocols import FeatureExtractor, Metric
    from medtrust.types.suites import Suite

__all__ = ["FeatureFactory", "MetricFactory", "ReaderFactory", "ReportRenderer", "SuiteFactory"]


class MetricFactory(Protocol):
    """What `MetricSpec.factory` names: a class, say, that is made without arguments."""

    def __call__(self) -> Metric:
        """Make the metric."""
        ...


class FeatureFactory(Protocol):
    """What `FeatureSpec.factory` names; where the spec names a weight file, it is called with `weights` as well."""

    def __call__(self, *, device: str) -> FeatureExtractor:
        """Make the extractor; `device` is cpu or cuda."""
        ...


class ReaderFactory(Protocol):
    """What `FormatSpec.factory` names."""

    def __call__(self) -> ImageReader:
        """Make the reader."""
        ...


class SuiteFactory(Protocol):
    """What `SuiteSpec.factory` names."""

    def __call__(self) -> Suite:
        """Make the suite."""
        ...


class ReportRenderer(Protocol):
    """What `ReportFormat.factory` names: a pure function."""

    def __call__(self, report: Mapping[str, Any], folder: Path, /) -> bytes:
        """Render the report's plain data; `folder` holds its evidence pictures."""
        ...
