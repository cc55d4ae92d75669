"""From images to what a study and a site need of them."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from medtrust.cache import FeatureStore
from medtrust.errors import ConfigError, DataError
from medtrust.extraction import Survey, survey
from medtrust.federated.copies import Bank
from medtrust.federated.signing import read_public
from medtrust.federated.site import SiteData, SiteSet
from medtrust.federated.study import BINS, Study, make_study
from medtrust.images import open_set
from medtrust.progress import Progress, QuietProgress
from medtrust.seeding import derive_seed
from medtrust.sources import readers_of
from medtrust.spaces import load_spaces
from medtrust.stats import LIGHT_EDITS, edit_image
from medtrust.stats.embedding import PIXEL_SIDE
from medtrust.types import Intensity, SetName
from medtrust.validity import check_spaces

if TYPE_CHECKING:
    from medtrust.host import Host
    from medtrust.images import ImageSet
    from medtrust.types import FeatureExtractor

__all__ = ["Reader", "read_settings", "study_from"]

_BANK = 200  # images that are copied, edited and planted
_KEYS = {
    "name", "metrics", "features", "sites", "seed", "level", "dim", "fourier", "folds", "release", "reveal", "rules",
    "privacy",
}  # fmt: skip
_COPIES = "pixels"


@dataclass(frozen=True, slots=True)
class Reader:
    """How images are read and where features are kept.

    Args:
        host: Finds formats and feature spaces.
        weights: Weight files by name.
        cache: Folder of the feature store.
        offline: Open no socket.
        device: cpu or cuda.
        patients: Regular expression that finds the patient in a file's path.
        progress: Where to report.
    """

    host: Host
    cache: Path
    weights: Mapping[str, Path] | None = None
    offline: bool = True
    device: str = "cpu"
    patients: str | None = None
    progress: Progress | None = None

    def open(self, path: Path, name: SetName, intensity: Intensity | None) -> ImageSet:
        """Open a set of images."""
        if not path.exists():
            raise ConfigError(f"{path} does not exist; it was named as {name}")
        return open_set(path, name, readers_of(self.host), patients=self.patients, intensity=intensity)

    def spaces(self, names: Sequence[str]) -> dict[str, FeatureExtractor]:
        """Open feature spaces."""
        found = {name: self.host.find("features", name) for name in dict.fromkeys(names)}
        return load_spaces(
            found, self.host, self.weights or {}, offline=self.offline, cache_dir=self.cache, device=self.device
        )

    def survey(self, images: ImageSet, extractors: Mapping[str, FeatureExtractor], intensity: Intensity) -> Survey:
        """Extract every feature of a set."""
        store = FeatureStore(self.cache / "features")
        workers = min(8, os.cpu_count() or 1)
        return survey(images, extractors, intensity, store, workers=workers, progress=self.progress or QuietProgress())

    def site(self, study: Study, train: Path, holdout: Path) -> SiteData:
        """Read a site's images as its study asks.

        Raises:
            DataError: The images declare another range than the study.
        """
        names = [*study.spaces, *([study.header["copies"]["space"]] if study.header["copies"] else [])]
        extractors = self.spaces(names)
        sets: dict[SetName, ImageSet] = {}
        surveys: dict[SetName, Survey] = {}
        parts: dict[SetName, SiteSet] = {}
        declared = study.intensity
        for name, path in (("train", train), ("holdout", holdout)):
            images = sets[name] = self.open(path, name, None)  # type: ignore[index, arg-type]
            if (images.intensity.lo, images.intensity.hi) != (declared.lo, declared.hi):
                raise DataError(
                    f"{path} declares {images.intensity.lo:g} to {images.intensity.hi:g} {images.intensity.unit}, the "
                    f"study {declared.lo:g} to {declared.hi:g} {declared.unit}: bring the images into the study's unit"
                )
            seen = surveys[name] = self.survey(images, extractors, declared)  # type: ignore[index]
            parts[name] = SiteSet(  # type: ignore[index]
                images.patients,
                seen.digests,
                seen.features,
                _histograms(images, declared) if study.asks("fidelity.intensity") else None,
                images.patients_known,
            )
        judged = {name: extractors[name] for name in study.spaces}
        checks = check_spaces(
            sets["train"], surveys["train"].features, judged, declared, FeatureStore(self.cache / "features"),
            seed=derive_seed(study.seed, "validity"), progress=self.progress,
        )  # fmt: skip
        validity = {name: (check.selftest.status, check.selftest.detail) for name, check in checks.items()}
        bank = None
        if study.asks("privacy.cpm"):
            bank = _bank(sets, extractors[study.header["copies"]["space"]], declared, derive_seed(study.seed, "bank"))
        return SiteData(parts["train"], parts["holdout"], bank, validity)


def read_settings(path: Path) -> dict[str, Any]:
    """Read study.toml.

    Raises:
        ConfigError: It is no TOML, or holds an unknown key.
    """
    try:
        given = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); docs/federated.md shows a study") from error
    unknown = sorted(set(given) - _KEYS)
    missing = sorted({"name", "sites"} - set(given))
    if unknown or missing:
        what = f"holds the unknown key {unknown[0]}" if unknown else f"lacks {missing[0]}"
        raise ConfigError(f"{path} {what}; a study has {', '.join(sorted(_KEYS))}")
    if not isinstance(given["sites"], dict) or not given["sites"]:
        raise ConfigError(f'{path}: [sites] names the public key of every site, such as Aachen = "aachen.pub"')
    return given


def study_from(
    settings: Mapping[str, Any],
    synthetic: Path,
    reader: Reader,
    *,
    base: Path,
    reference: Path | None = None,
    intensity: Intensity | None = None,
) -> Study:
    """Make a study of its settings and the public synthetic images.

    Args:
        settings: As `read_settings` gives them.
        synthetic: The synthetic images.
        reader: Reads them.
        base: Folder that the paths of keys are relative to.
        reference: Public real images that scale the features; the synthetic ones stand in.
        intensity: Declared range, where the files leave it open.

    Raises:
        ConfigError: A metric that cannot be federated, or another impossible setting.
    """
    results = _results(settings.get("metrics", ["fd", "mmd", "intensity", "cpm", "diagnostics"]), reader.host)
    features = settings.get("features", ["radiomics"])
    copying = bool({"privacy.cpm", "privacy.ct"} & set(results))
    extractors = reader.spaces([*features, *([_COPIES] if copying else [])])
    images = reader.open(synthetic, "synthetic", intensity)
    declared = images.intensity
    seen = reader.survey(images, extractors, declared)
    shape = None
    if copying:
        c, h, w = images[0].pixels.shape
        shape = (c, min(h, PIXEL_SIDE), min(w, PIXEL_SIDE))
    others = []
    if reference is not None:
        base_set = reader.open(reference, "train", intensity)
        found = reader.survey(base_set, {name: extractors[name] for name in features}, declared)
        others = [found.features[name] for name in features]
    sites = {name: read_public(_beside(str(key), base)) for name, key in settings["sites"].items()}
    keep = ("seed", "level", "dim", "fourier", "folds", "release", "reveal", "rules", "privacy")
    return make_study(
        str(settings["name"]),
        sites=sites,
        synthetic=[seen.features[name] for name in features],
        intensity=declared,
        reference=others,
        results=results,
        copies=seen.features[_COPIES] if copying else None,
        copies_shape=shape,
        histograms=_histograms(images, declared) if "fidelity.intensity" in results else None,
        subject={"kind": "folder", "name": synthetic.resolve().name},
        **{key: settings[key] for key in keep if key in settings},
    )


def _results(metrics: Sequence[str], host: Host) -> list[str]:
    """Results of some metrics that sums can give."""
    found: list[str] = []
    for name in metrics:
        spec = host.find("metric", name).spec
        if not spec.mergeable:
            able = sorted(c.spec.name for c in host.contributions("metric") if c.spec.mergeable)
            raise ConfigError(
                f"metric {name} cannot be had from sums of several sites, so it cannot be federated; those that "
                f"can are "
                f"{', '.join(able)}"
            )
        found += [result for result, _ in spec.mergeable]
    return found


def _beside(key: str, base: Path) -> str:
    return key if key.startswith("ed25519:") else str(base / key)


def _histograms(images: ImageSet, intensity: Intensity) -> torch.Tensor:
    """Share of each image's pixels in each bin of the declared range, [n, bins]; beyond it they count at its ends."""
    edges = np.linspace(intensity.lo, intensity.hi, BINS + 1)
    rows = np.zeros((len(images), BINS))
    for at, record in enumerate(images):
        values = record.pixels.ravel()
        rows[at] = np.histogram(np.clip(values, intensity.lo, intensity.hi), edges)[0] / max(1, values.size)
    return torch.from_numpy(rows)


def _bank(sets: Mapping[SetName, ImageSet], extractor: FeatureExtractor, intensity: Intensity, seed: int) -> Bank:
    """Edited copies of one image of each of some patients."""
    rng = np.random.default_rng(seed)
    where = [(name, row) for name in ("train", "holdout") for row in range(len(sets[name]))]
    order = rng.permutation(len(where))
    seen: dict[str, tuple[str, int]] = {}
    for at in order.tolist():
        name, row = where[at]
        seen.setdefault(sets[name].patients[row], (name, row))
    rows, patients = [], list(seen)[:_BANK]
    for at, patient in enumerate(patients):
        name, row = seen[patient]
        edited = edit_image(sets[name][row].pixels, LIGHT_EDITS[at % len(LIGHT_EDITS)], rng)  # type: ignore[index]
        rows.append(extractor.extract(torch.from_numpy(edited)[None], intensity).to("cpu", torch.float32))
    return Bank(torch.cat(rows), tuple(patients))
