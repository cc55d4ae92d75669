"""The frozen dataclasses that travel through an audit, and the protocols that plugins fill in.

Importing this module imports neither torch nor numpy, so that listing plugins stays instant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch

    from medtrust.progress import Progress

SetName = Literal["train", "holdout", "synthetic"]
Pillar = Literal["fidelity", "diversity", "privacy", "explanation", "equity", "utility", "physics"]
Direction = Literal["lower", "higher", "none"]
Status = Literal["ok", "insufficient", "error", "skipped"]

PILLARS: tuple[Pillar, ...] = (
    "fidelity", "diversity", "privacy", "explanation", "equity", "utility", "physics",
)  # fmt: skip

# --------------------------------------------------------------------------------------------- images


@dataclass(frozen=True, slots=True)
class Intensity:
    """What pixel values mean: the declared physical range, its unit, and the display window if one is known.

    Args:
        lo: Smallest value that the acquisition can produce, in `unit`.
        hi: Largest value that the acquisition can produce, in `unit`.
        unit: "HU" for CT, "level" for grey or colour levels of a stored image, "a.u." otherwise.
        window: Display window (lo, hi) in `unit`; None where the file names none.
    """

    lo: float
    hi: float
    unit: str
    window: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps that a reader enforces before it allocates anything."""

    max_file_bytes: int = 2 * 1024**3
    max_pixels: int = 256 * 1024**2
    max_frames: int = 20_000
    max_inflate_ratio: float = 200.0
    max_inflated_bytes: int = 4 * 1024**3


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What a file says of one of its images before any pixel is decoded.

    Args:
        shape: [C, H, W], or [C, D, H, W] for a volume kept whole.
        dtype: numpy name of the pixel type that `ImageReader.read` returns: uint8, uint16, int16, float32 …
        index: Which image of the file (frame, slice, row).
        intensity: Declared range; None when the file leaves it open, so that the user must say.
        patient: Patient identifier as stored in the file; None where the file names none.
        modality: DICOM modality code (CT, MR, DX …) or None.
        spacing_mm: Pixel spacing, slowest axis first; None where unknown.
        attributes: Any further facts by name (label, site, sex, age, series …).
        order: Sort key inside one series, such as the position along the slice normal.
    """

    shape: tuple[int, ...]
    dtype: str
    index: int = 0
    intensity: Intensity | None = None
    patient: str | None = None
    modality: str | None = None
    spacing_mm: tuple[float, ...] | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    order: tuple[str | float, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One decoded image with everything that is known of it.

    Args:
        pixels: [C, H, W] in the declared unit; never rescaled, clipped or cast to fewer bits.
        name: Stable name inside its set: the path below the set's root, and `#index` where a file holds several.
        patient: Statistical unit this image belongs to.
        header: What the file declared.
        digest: SHA-256 of the canonical pixels, hexadecimal.
    """

    pixels: np.ndarray[Any, Any]
    name: str
    patient: str
    header: ImageHeader
    digest: str


@runtime_checkable
class ImageReader(Protocol):
    """What a file-format plugin provides; `FormatSpec.factory` returns one."""

    def scan(self, path: Path, limits: Limits) -> Sequence[ImageHeader]:
        """List the images of a file from its headers, without decoding pixels.

        Raises:
            DataError: The file is not readable as this format.
            SafetyError: The file exceeds `limits`.
        """
        ...

    def read(self, path: Path, header: ImageHeader, limits: Limits) -> np.ndarray[Any, Any]:
        """Decode one image to `header.shape`, in the unit of `header.intensity`, without losing a level."""
        ...


# ------------------------------------------------------------------------------------------- features


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


# -------------------------------------------------------------------------------------------- results


@dataclass(frozen=True, slots=True)
class Estimate:
    """A point estimate with its unit and the direction in which it is better."""

    value: float
    unit: str = ""
    direction: Direction = "none"


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval estimate, and what was resampled or counted to get it."""

    lo: float
    hi: float
    level: float
    method: str
    n_units: int
    unit: str = "patient"


@dataclass(frozen=True, slots=True)
class TestOutcome:
    """A hypothesis test: its statistic, its p-value, and the p-value adjusted within its family."""

    statistic: float
    p: float
    p_adj: float
    family: str
    __test__ = False  # not a test case, whatever pytest makes of the name


@dataclass(frozen=True, slots=True)
class Null:
    """What the same number is when real is compared with real."""

    reference: str
    value: float
    interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class Resolution:
    """The smallest effect that this sample size could have shown, at the stated power."""

    min_detectable: float
    power: float
    sentence: str


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Did the detector find what was planted, and leave alone what was clean, on this audit's own data?"""

    status: Literal["ok", "failed", "not_run"]
    detail: str
    auc: float | None = None
    size: float | None = None
    power: float | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of an evidence item.

    A metric names `sources`, (set name, image index) pairs: one source shows that image, two show their absolute
    difference. A metric that draws its own picture gives `png` and says whether real pixels can be seen in it. The host
    fills `name`, `path` and `sha256`, and leaves the picture out when the evidence policy forbids it.
    """

    role: str
    alt: str
    sources: tuple[tuple[SetName, int], ...] = ()
    png: bytes | None = None
    contains_real: bool = False
    name: str = ""
    path: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Something a reader can look at, such as a synthetic image beside its nearest training image.

    Args:
        kind: "pair", "curve", "heat map" …
        title: One line.
        rank: 1 is the most telling.
        facts: Numbers and short texts to print with it.
        pictures: Pictures, in the order to show them.
    """

    kind: str
    title: str
    rank: int
    facts: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """The answer to one question. Metrics fill the answer; the host fills the identity (id, pillar, metric …).

    A result without an interval is shown but cannot pass a gate in `ci` mode.
    """

    estimate: Estimate | None = None
    interval: Interval | None = None
    test: TestOutcome | None = None
    null: Null | None = None
    resolution: Resolution | None = None
    selftest: SelfTest | None = None
    evidence: tuple[Evidence, ...] = ()
    facts: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    status: Status = "ok"
    reason: str = ""
    id: str = ""
    pillar: str = ""
    title: str = ""
    metric: str = ""
    metric_version: str = ""
    features: str = ""
    citation: str = ""
    subgroup: str = ""


@dataclass(frozen=True, slots=True)
class SetData:
    """One image set as a metric sees it.

    Args:
        name: train, holdout or synthetic.
        images: Lazily decoded records; indexing or iterating decodes.
        patients: Patient of each image.
        digests: SHA-256 of each image's canonical pixels.
        features: The features this metric asked for; an empty-space matrix is never passed, None means none asked.
    """

    name: SetName
    images: Sequence[ImageRecord]
    patients: tuple[str, ...]
    digests: tuple[str, ...]
    features: FeatureMatrix | None = None

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
class MetricInput:
    """Everything a metric may look at. `seed` is already derived for this metric: use it as it is."""

    train: SetData
    synthetic: SetData
    holdout: SetData | None
    intensity: Intensity
    level: float = 0.95
    seed: int = 0
    space: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Metric(Protocol):
    """What a metric plugin provides; `MetricSpec.factory` is called without arguments and returns one."""

    def compute(self, data: MetricInput) -> Result | Mapping[str, Result]:
        """Answer the question, or raise `Insufficient` with a sentence.

        Returns:
            One Result, or one per id that the spec's `results` declares.
        """
        ...


# ----------------------------------------------------------------------------------------- generators


@dataclass(frozen=True, slots=True)
class SampleBatch:
    """Images from a generator.

    Args:
        pixels: [N, C, H, W] in the unit of `intensity`.
        seeds: Seed of each sample.
        meta: Further facts, such as the number of network evaluations.
    """

    pixels: np.ndarray[Any, Any]
    seeds: tuple[int, ...]
    meta: Mapping[str, float | int | str] = field(default_factory=dict)


@runtime_checkable
class Generator(Protocol):
    """What a generator plugin provides: sample i depends on (seed, first + i) alone, whatever the batch."""

    intensity: Intensity

    def sample(self, n: int, *, seed: int, first: int = 0) -> SampleBatch:
        """Draw samples first … first + n - 1."""
        ...


class GeneratorFactory(Protocol):
    """What `GeneratorSpec.factory` names: a class that opens a checkpoint and, if it can, trains one."""

    def open(self, path: Path | None, options: Mapping[str, str], device: str) -> Generator:
        """Load a checkpoint safely."""
        ...

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


# ---------------------------------------------------------------------------------------------- specs


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What every kind of plugin contribution declares.

    Args:
        name: Short name; the full name is `<distribution>/<name>`.
        version: Version of this contribution, recorded in the report.
        factory: Lazy "package.module:attribute", imported when first used.
        summary: One line for `medtrust plugins list`.
        requires: Importable packages that the factory needs beyond medtrust's own dependencies.
        extra: The extra, as in `pip install medtrust[extra]`, that brings `requires`.
    """

    name: str
    version: str
    factory: str
    summary: str = ""
    requires: tuple[str, ...] = ()
    extra: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatSpec(Spec):
    """A file format: which suffixes and first bytes it reads."""

    suffixes: tuple[str, ...]
    magic: tuple[tuple[int, bytes], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSpec(Spec):
    """A feature space. `weights` names the weight file it needs (see `--weights NAME=PATH`), empty for none."""

    weights: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec(Spec):
    """A metric.

    Args:
        pillar: The question it belongs to.
        needs: Any of train, holdout, synthetic, images, features.
        results: Ids it returns, "<pillar>.<name>"; empty means the one id made of pillar and name.
        spaces: Feature spaces it computes in; empty means every space the user chose, and the id gets "[space]".
        direction: Which way is better.
        range: Smallest and largest possible value; None where unbounded.
        unit: Unit of the estimate.
        min_samples: Images needed in each set it needs; fewer gives status "insufficient".
        min_patients: Patients needed in each real set it needs.
        deterministic: The same input and seed give the same bits.
        citation: DOI or arXiv id of the method.
        title: Heading in the report.
        optional: Ran only when it is named in `--metrics`.
    """

    pillar: Pillar
    needs: tuple[str, ...] = ("train", "synthetic")
    results: tuple[str, ...] = ()
    spaces: tuple[str, ...] = ()
    direction: Direction = "none"
    range: tuple[float | None, float | None] = (None, None)
    unit: str = ""
    min_samples: int = 2
    min_patients: int = 1
    deterministic: bool = True
    citation: str = ""
    title: str = ""
    optional: bool = False

    @property
    def result_ids(self) -> tuple[str, ...]:
        """Ids without the feature space."""
        return self.results or (f"{self.pillar}.{self.name}",)


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorSpec(Spec):
    """A generator family or an adapter to somebody else's generator."""

    family: Literal["gan", "vae", "diffusion", "hybrid", "conditional", "folder", "other"] = "other"
    trainable: bool = False
    trust: Literal["data", "graph", "code"] = "data"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainerSpec(Spec):
    """An explanation method."""

    needs: tuple[str, ...] = ("synthetic",)
    citation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFormat(Spec):
    """A rendering of the report: a pure function (report dict, folder with the evidence) -> bytes."""

    filename: str
    media_type: str = "text/plain"


@dataclass(frozen=True, slots=True)
class PluginFailure:
    """A plugin, or one call of it, that failed: who, where and why.

    Args:
        plugin: Entry-point name.
        distribution: Distribution that installed it, with version.
        stage: discover | import | register | hook | contract | run.
        error: Exception type and message, one line.
        remedy: What to do next.
    """

    plugin: str
    distribution: str
    stage: str
    error: str
    remedy: str = ""


Specs = Iterable[Spec]
