"""Protocols: what a feature space and a metric must provide, and what they are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from medtrust.types.images import ImageRecord, Intensity, SetName
from medtrust.types.results import Result

if TYPE_CHECKING:
    import torch

    Embed = Callable[[torch.Tensor], torch.Tensor]

__all__ = [
    "Demand",
    "FeatureExtractor",
    "FeatureMatrix",
    "Metric",
    "MetricInput",
    "SetData",
]


@dataclass(frozen=True, slots=True)
class FeatureMatrix:
    """Features of one image set in one feature space.

    Args:
        values: [N, d] float32, row i belongs to image i of the set.
        patients: Patient of each row.
        digests: Pixel digest of each row.
        space: Name of the feature space, such as "radiomics".
        space_digest: Digest of the extractor's weights, version and preprocessing.
        names: Name of each column, where columns have one.
    """

    values: torch.Tensor
    patients: tuple[str, ...]
    digests: tuple[str, ...]
    space: str
    space_digest: str
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.patients)


@runtime_checkable
class FeatureExtractor(Protocol):
    """What a feature-space plugin provides; `FeatureSpec.factory` is called with the options and returns one."""

    names: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Hexadecimal digest of weights, version and preprocessing: the cache key of this space."""
        ...

    def extract(self, images: torch.Tensor, intensity: Intensity) -> torch.Tensor:
        """Map images [N, C, H, W] (native dtype, physical unit) to features [N, d] float32.

        Row i must depend on image i and `intensity` alone, whatever the batch around it.
        """
        ...


@dataclass(frozen=True, slots=True)
class SetData:
    """One image set as a metric sees it.

    Args:
        name: train, holdout or synthetic.
        images: Lazily decoded records; indexing or iterating decodes.
        patients: Patient of each image.
        digests: SHA-256 of each image's canonical pixels.
        features: The features this metric asked for; an empty-space matrix is never passed, None means none asked.
        names: Stable name of each image inside its set; empty where the caller knows none.
        attributes: Per image, what its manifest row or header says (label, site, sex …); empty where nothing is known.
    """

    name: SetName
    images: Sequence[ImageRecord]
    patients: tuple[str, ...]
    digests: tuple[str, ...]
    features: FeatureMatrix | None = None
    names: tuple[str, ...] = ()
    attributes: tuple[Mapping[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.patients)

    @property
    def matrix(self) -> torch.Tensor:
        """Features [N, d] as float64, the precision statistics are computed in.

        Raises:
            ValueError: The metric's spec does not list "features" among its needs.
        """
        if self.features is None:
            raise ValueError(f"no features of {self.name}: add 'features' to the metric's needs")
        return self.features.values.double()


@dataclass(frozen=True, slots=True)
class Demand:
    """What the policy asks of a test, so that its resolution and self-test speak of the gate that will be applied.

    Args:
        alpha: A p-value below this raises the gate's alarm; None where no gate looks at a p-value.
        effect: The smallest effect that must have been visible; None where the policy names none.
    """

    alpha: float | None = None
    effect: float | None = None


@dataclass(frozen=True, slots=True)
class MetricInput:
    """Everything a metric may look at. `seed` is already derived for this metric: use it as it is.

    Args:
        train: What the generator was fitted on.
        synthetic: What it made.
        holdout: Real images it never saw, or None.
        intensity: Declared range of all sets.
        level: Confidence level of intervals.
        seed: Root of the metric's own draws.
        space: Feature space of `SetData.features`.
        options: Options of the metric's plugin.
        demand: What the policy asks.
        embed: Maps images [N, C, H, W], in the unit of `intensity`, to features [N, d] as those of the sets, scaling
            included: for images that a metric edits itself. None where the metric asked for no features.
        by_space: For a metric that asked for its spaces together, one input per space; empty otherwise.
        generator: The generator that made `synthetic`; None where it is a folder or the metric does not need it.
        subgroups: Attributes that images are grouped by, for a metric whose needs list "subgroups"; empty otherwise.
    """

    train: SetData
    synthetic: SetData
    holdout: SetData | None
    intensity: Intensity
    level: float = 0.95
    seed: int = 0
    space: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    demand: Demand = field(default_factory=Demand)
    embed: Embed | None = None
    by_space: Mapping[str, MetricInput] = field(default_factory=dict)
    generator: Any = None
    subgroups: tuple[str, ...] = ()

    @property
    def alpha(self) -> float:
        """Level at which tests of this metric are judged: the policy's, else 1 - `level`."""
        return 1 - self.level if self.demand.alpha is None else self.demand.alpha


@runtime_checkable
class Metric(Protocol):
    """What a metric plugin provides; `MetricSpec.factory` is called without arguments and returns one."""

    def compute(self, data: MetricInput) -> Result | Mapping[str, Result | Sequence[Result]]:
        """Answer the question, or raise `Insufficient` with a sentence.

        Returns:
            One Result, or one per id that the spec's `results` declares; or several of an id that differ in `subgroup`.
        """
        ...
