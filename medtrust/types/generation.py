"""Generators: what one declares of its images, what it must be able to do, and what it may offer beyond that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from medtrust.types.images import ImageRecord, Intensity

if TYPE_CHECKING:
    import numpy as np
    import torch

    from medtrust.progress import Progress

__all__ = [
    "Caps",
    "ConditionKind",
    "ConditionSpec",
    "Decoder",
    "Denoiser",
    "Encoder",
    "Generator",
    "GeneratorFactory",
    "ImageSpec",
    "SampleBatch",
    "Scanner",
    "Trainable",
]

ConditionKind = Literal["none", "label", "multilabel", "text", "mask", "image", "tabular"]


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """What a generator declares of every image it makes; an audit holds it against what comes out.

    Args:
        shape: [C, H, W]; -1 where a length varies from image to image.
        dtype: numpy name of the pixel type.
        range: Smallest and largest value that an image can hold, in `unit`.
        unit: "HU" for CT, "level" for grey or colour levels of a stored image, "a.u." otherwise.
        window: Display window (lo, hi) in `unit`; None where none is known.
        spacing_mm: Pixel spacing, slowest axis first; None where unknown.
        modality: DICOM modality code (CT, MR, DX …) or None.
        channels: Name of each channel, such as ("red", "green", "blue"); empty where they have none.
    """

    shape: tuple[int, ...]
    dtype: str
    range: tuple[float, float]
    unit: str
    window: tuple[float, float] | None = None
    spacing_mm: tuple[float, ...] | None = None
    modality: str | None = None
    channels: tuple[str, ...] = ()

    @property
    def intensity(self) -> Intensity:
        """What pixel values mean."""
        return Intensity(float(self.range[0]), float(self.range[1]), self.unit, self.window)


@dataclass(frozen=True, slots=True)
class ConditionSpec:
    """What a generator can be asked for.

    Args:
        kind: none; label (one of `classes`), multilabel (some of them, a tuple), text (a sentence), mask or image
            (an array of `shape`), tabular (a mapping from the names in `classes` to numbers).
        classes: Names of the classes, of a mask's values from 0 on, or of a table's columns.
        required: There is no sampling without a condition.
        shape: [C, H, W] of a mask or image.
    """

    kind: ConditionKind = "none"
    classes: tuple[str, ...] = ()
    required: bool = False
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Caps:
    """What a generator is able to do; claims that can be checked are checked.

    Args:
        family: gan, vae, diffusion, hybrid, conditional, folder or other.
        seedable: The same seed gives the same bytes.
        batch_invariant: Sample i has the same bytes whatever batch it is drawn in.
        latent: Length of the latent code; None where there is none.
        steps: Network evaluations per image; None where that says nothing.
        differentiable: `decode` or `denoise` carry gradients.
        likelihood: "exact", "bound" (a lower bound) or "none".
        trust: What was run to open it: data (weights only), graph (a computation graph) or code.
        ancestors: On whose images its weights were fitted before its own training set, one line for each set: a
            generator can hand out copies of those patients too.
    """

    family: str = "other"
    seedable: bool = True
    batch_invariant: bool = True
    latent: int | None = None
    steps: int | None = None
    differentiable: bool = False
    likelihood: Literal["exact", "bound", "none"] = "none"
    trust: Literal["data", "graph", "code"] = "data"
    ancestors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SampleBatch:
    """Images from a generator.

    Args:
        pixels: [N, C, H, W] in the unit of the generator's `spec`.
        seeds: Seed of each sample.
        meta: Further facts, such as `nfe` (network evaluations per image), `wall_s` and `device`.
        condition: Condition of each sample, where there is one: N values, or an array [N, ...].
    """

    pixels: np.ndarray[Any, Any]
    seeds: tuple[int, ...]
    meta: Mapping[str, float | int | str] = field(default_factory=dict)
    condition: Sequence[Any] | None = None


@runtime_checkable
class Generator(Protocol):
    """What a generator plugin provides; a class that derives from it gets the defaults of `conditions` and `caps`.

    Sample i depends on (seed, first + i, condition i) alone, whatever the batch. One that cannot keep this says so in
    `caps`.
    """

    spec: ImageSpec
    conditions: ConditionSpec = ConditionSpec()
    caps: Caps = Caps()

    def sample(
        self, n: int, *, seed: int, condition: Sequence[Any] | None = None, first: int = 0, **opts: Any
    ) -> SampleBatch:
        """Draw samples first … first + n - 1.

        Args:
            n: How many.
            seed: Seed of the whole series, 0..2^63 - 1.
            condition: Condition of each of these n samples, as `conditions` says; None leaves the choice to the
                generator, which then answers what it chose in `SampleBatch.condition`.
            first: Position of the first sample in the series.
            opts: Options of this generator.
        """
        ...


@runtime_checkable
class Encoder(Protocol):
    """A generator that maps images to codes."""

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map images [N, C, H, W], in the unit of `spec`, to mean and log variance of their codes, [N, d] each."""
        ...


@runtime_checkable
class Decoder(Protocol):
    """A generator that maps codes to images."""

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Map codes [N, d] float32 to images [N, C, H, W] float32 in the unit of `spec`."""
        ...


@runtime_checkable
class Denoiser(Protocol):
    """A diffusion or flow model whose network can be asked at any noise level.

    Attributes:
        prediction: What `denoise` returns: "epsilon", "v", "x0", "flow" (noise - clean) or "edm" (the raw network).
    """

    prediction: str

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Map images [N, C, H, W], in the unit of `spec`, to the clean x that the network works on."""
        ...

    def noise_level(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return alpha and sigma at the times t: x_t = alpha x + sigma noise."""
        ...

    def denoise(self, x_t: torch.Tensor, t: torch.Tensor, condition: Sequence[Any] | None = None) -> torch.Tensor:
        """Evaluate the network once at x_t [N, C, H, W] float32 and t [N]; the answer is what `prediction` says."""
        ...


@runtime_checkable
class Scanner(Protocol):
    """A generator that ends in a model of the scanner, and can scan the same tissue again."""

    def rescan(self, n: int, *, seed: int, repeat: int, first: int = 0) -> SampleBatch:
        """Scan what samples first … first + n - 1 of the series `seed` show once more.

        Args:
            n: How many.
            seed: Seed of the series, as for `sample`.
            repeat: Number of the scan, from 1 on; each has noise of its own.
            first: Position of the first.
        """
        ...


@runtime_checkable
class Trainable(Protocol):
    """A factory that can fit a generator on images."""

    def train(
        self,
        images: Sequence[ImageRecord],
        intensity: Intensity,
        out: Path,
        *,
        seed: int,
        progress: Progress,
        options: Mapping[str, str],
    ) -> Path:
        """Fit on `images` and write a checkpoint folder (safetensors and a JSON card) to `out`."""
        ...


class GeneratorFactory(Protocol):
    """What `GeneratorSpec.factory` names: a class that opens a checkpoint; one that can fit is `Trainable` too."""

    def open(self, path: Path | None, options: Mapping[str, str], device: str) -> Generator:
        """Load a checkpoint safely."""
        ...
