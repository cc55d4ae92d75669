"""Does a feature space notice what a person would? Degrade real images and see whether the distance rises with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from medtrust.extraction import standardise, survey
from medtrust.images.digests import digest
from medtrust.progress import Progress, QuietProgress
from medtrust.seeding import derive_seed
from medtrust.stats.degrading import DEGRADATIONS, STRENGTHS, degrade, scrambled
from medtrust.stats.frechet import frechet_distance
from medtrust.types import FeatureExtractor, FeatureMatrix, ImageRecord, Intensity, SelfTest, SetName

if TYPE_CHECKING:
    from medtrust.cache import FeatureStore
    from medtrust.images import ImageSet

__all__ = ["LEAST_PATIENTS", "QUICK_IMAGES", "SpaceCheck", "check_spaces", "rank_correlation"]

LEAST_CORRELATION = 0.9
QUICK_IMAGES = 32  # images that an audit degrades: 30 versions of each
LEAST_PATIENTS = 64  # at most half of them are degraded
REFERENCES = 512


@dataclass(frozen=True, slots=True)
class SpaceCheck:
    """What one feature space noticed.

    Args:
        space: Its name.
        images: How many images were degraded.
        references: How many other real images they were compared with.
        distances: Per degradation, the Fréchet distance from the references at strength 0 (untouched) to 5.
        correlations: Per degradation, Spearman's rank correlation of strength and distance.
        reason: Why nothing was measured; empty where it was.
    """

    space: str
    images: int = 0
    references: int = 0
    distances: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    correlations: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""

    @property
    def blind(self) -> tuple[str, ...]:
        """Degradations that the distance does not follow."""
        return tuple(kind for kind, value in self.correlations.items() if value < LEAST_CORRELATION)

    @property
    def selftest(self) -> SelfTest:
        """The outcome as a result carries it."""
        if self.reason:
            return SelfTest("not_run", self.reason)
        if self.blind:
            worst = ", ".join(
                f"{kind.replace('_', ' ')} (Spearman {self.correlations[kind]:.2f})" for kind in self.blind
            )
            return SelfTest(
                "failed",
                f"the space {self.space} is unfit for these images: its distance does not rise with {worst}",
            )
        least = min(self.correlations.values())
        return SelfTest(
            "ok",
            f"the distance in the space {self.space} rises with each of {len(self.correlations)} degradations of "
            f"{self.images} real images (Spearman at least {least:.2f})",
        )

    def as_dict(self) -> dict[str, Any]:
        """Return everything, JSON-ready."""
        return {
            "space": self.space,
            "status": self.selftest.status,
            "detail": self.selftest.detail,
            "images": self.images,
            "references": self.references,
            "spearman": {kind: round(value, 4) for kind, value in self.correlations.items()},
            "distances": {kind: [float(f"{d:.6g}") for d in values] for kind, values in self.distances.items()},
        }


def check_spaces(
    train: ImageSet,
    features: Mapping[str, FeatureMatrix],
    extractors: Mapping[str, FeatureExtractor],
    intensity: Intensity,
    store: FeatureStore | None = None,
    *,
    images: int = QUICK_IMAGES,
    seed: int = 0,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> dict[str, SpaceCheck]:
    """Degrade some images of train and measure how far each version is from other images of train.

    One image per patient is degraded; the references are of other patients. The untouched images stand at strength 0,
    so that the distance must also rise above that of real images from real images.

    Args:
        train: Real images.
        features: Features of train as extracted, by space.
        extractors: The same spaces.
        intensity: Declared range.
        store: Keeps the features of degraded images, so that a second audit extracts nothing.
        images: How many to degrade.
        seed: Chooses images and noise.
        batch_size: Images extracted together.
        progress: Where to report.

    Returns:
        One check per space; with a reason and without figures where train has too few patients.
    """
    rng = np.random.default_rng(derive_seed(seed, "validity"))
    by_patient: dict[str, list[int]] = {}
    for row, patient in enumerate(train.patients):
        by_patient.setdefault(patient, []).append(row)
    if len(by_patient) < LEAST_PATIENTS:
        reason = f"the check of a feature space needs {LEAST_PATIENTS} patients in train; it has {len(by_patient)}"
        return {space: SpaceCheck(space, reason=reason) for space in extractors}
    order = [sorted(by_patient)[i] for i in rng.permutation(len(by_patient))]
    chosen = [int(rng.choice(by_patient[patient])) for patient in order[: min(images, len(order) // 2)]]
    others = [row for patient in order[len(chosen) :] for row in by_patient[patient]][:REFERENCES]
    degraded = _Degraded(train, chosen, intensity, rng)
    found = survey(degraded, extractors, intensity, store, batch_size=batch_size, progress=progress or QuietProgress())
    return {
        space: _check(space, extractor, features[space], found.features[space], chosen, others)
        for space, extractor in extractors.items()
    }


def _check(
    space: str,
    extractor: FeatureExtractor,
    train: FeatureMatrix,
    degraded: FeatureMatrix,
    chosen: Sequence[int],
    others: Sequence[int],
) -> SpaceCheck:
    if getattr(extractor, "standardise", False):
        scaled: dict[SetName, FeatureMatrix] = standardise({"train": train, "synthetic": degraded})
        train, degraded = scaled["train"], scaled["synthetic"]
    references = train.values[list(others)].double()
    versions = degraded.values.double().view(len(DEGRADATIONS), STRENGTHS, len(chosen), -1)
    untouched = frechet_distance(references, train.values[list(chosen)].double())
    distances = {
        kind: (untouched, *(frechet_distance(references, values) for values in versions[i]))
        for i, kind in enumerate(DEGRADATIONS)
    }
    correlations = {kind: rank_correlation(values) for kind, values in distances.items()}
    return SpaceCheck(space, len(chosen), len(others), distances, correlations)


def rank_correlation(values: Sequence[float]) -> float:
    """Spearman's correlation of a sequence with its own order; 0 for a constant one."""
    from scipy.stats import rankdata

    ranks, order = rankdata(values), np.arange(len(values))
    if np.ptp(ranks) == 0:
        return 0.0
    return float(np.corrcoef(ranks, order)[0, 1])


@dataclass(frozen=True, slots=True)
class _Batch:
    indices: tuple[int, ...]
    records: tuple[ImageRecord, ...]


class _Degraded:
    """Every degradation at every strength of some images, made while they are read."""

    name = "degraded images"

    def __init__(self, train: ImageSet, chosen: Sequence[int], intensity: Intensity, rng: np.random.Generator) -> None:
        self.records = [train[row] for row in chosen]
        self.intensity = intensity
        self.seed = int(rng.integers(2**63))
        spreads = [float(record.pixels.std()) for record in self.records]
        self.contrast = float(np.median(spreads)) or (intensity.hi - intensity.lo) / 100
        by_shape: dict[tuple[int, ...], np.ndarray[Any, Any]] = {}
        for i, record in enumerate(self.records):
            by_shape.setdefault(record.pixels.shape, self._donor(i))
        self.donors = [by_shape[record.pixels.shape] for record in self.records]

    def _donor(self, index: int) -> np.ndarray[Any, Any]:
        """One texture for all images of a shape: the image at the ninth decile of roughness, its phases scrambled.

        Fine structure that wanders among the images of one set leaves their distribution almost as it was, which no
        distance between distributions can see; one texture everywhere is what a person, and a distance, must notice.
        Where images are aligned, as neighbouring slices are, that texture would bring true anatomy with it, and the
        swap would end nearer to real images than it began: so the phases go.
        """
        shape = self.records[index].pixels.shape
        alike = [record.pixels for record in self.records if record.pixels.shape == shape]
        rough = [float(np.diff(pixels.astype(np.float64), axis=2).std()) for pixels in alike]
        chosen = alike[int(np.argsort(rough, kind="stable")[round(0.9 * (len(alike) - 1))])]
        return scrambled(chosen, np.random.default_rng((self.seed, len(DEGRADATIONS))))

    def __len__(self) -> int:
        return len(DEGRADATIONS) * STRENGTHS * len(self.records)

    def batches(self, size: int, *, workers: int) -> Iterator[_Batch]:
        del workers  # a few hundred small filters, beside a network that has the cores
        held: list[ImageRecord] = []
        start = 0
        for record in self._all():
            if held and (len(held) == size or held[0].pixels.shape != record.pixels.shape):
                yield _Batch(tuple(range(start, start + len(held))), tuple(held))
                start, held = start + len(held), []
            held.append(record)
        if held:
            yield _Batch(tuple(range(start, start + len(held))), tuple(held))

    def _all(self) -> Iterator[ImageRecord]:
        for k, kind in enumerate(DEGRADATIONS):
            for strength in range(1, STRENGTHS + 1):
                for i, record in enumerate(self.records):
                    # the same noise and the same field at every strength, so that only the strength differs
                    rng = np.random.default_rng((self.seed, k, i))
                    pixels = degrade(
                        record.pixels,
                        kind,
                        strength,
                        self.intensity,
                        contrast=self.contrast,
                        donor=self.donors[i],
                        rng=rng,
                    )
                    name = f"{record.name} ({kind.replace('_', ' ')} {strength})"
                    yield ImageRecord(pixels, name, record.patient, record.header, digest(pixels, self.intensity))
