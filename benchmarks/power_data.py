"""Real images for `benchmarks/power.py`: their faulty and copied versions, in any feature space, computed once."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medtrust.cache import FeatureStore, space_key
from medtrust.host import build_host
from medtrust.progress import make_progress
from medtrust.seeding import derive_seed
from medtrust.stats import LIGHT_EDITS, edit_image
from medtrust.types import FeatureExtractor, Intensity
from medtrust.weights import resolve_weights

__all__ = ["COPY", "FAULTS", "FRESH", "LEVELS", "embedded", "extractor_of", "load", "version"]

LEVELS = Intensity(0.0, 255.0, "level")
FRESH, COPY = "fresh real", "copy"
FAULTS = ("under-dispersed", "over-dispersed")
_BATCH = 64


def load(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Read images [N, C, H, W] uint8 of one size, the number of each image's patient [N], and the files' names."""
    if path.is_dir():
        with (path / "manifest.csv").open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        images = np.stack([np.asarray(Image.open(path / row["file"]).convert("RGB")) for row in rows])
        names, files = np.array([row["patient"] for row in rows]), [row["file"] for row in rows]
    else:
        archive = np.load(path, allow_pickle=False)
        images, names = archive["images"], archive["groups"]
        files = [str(i) for i in range(len(images))]
    return images.transpose(0, 3, 1, 2), np.unique(names, return_inverse=True)[1], files


def version(kind: str, images: np.ndarray, at: int, seed: int) -> np.ndarray:
    """Make one version of image `at`: itself, a lightly edited copy, or what a faulty generator would make of it.

    Args:
        kind: "fresh real", "copy" (one of the light edits, in turn) or one of `FAULTS`.
        images: [N, C, H, W] uint8.
        at: Index of the image.
        seed: Seed of the edits.
    """
    if kind == FRESH:
        return images[at]
    rng = np.random.default_rng(derive_seed(seed, kind, at))
    if kind == COPY:
        edited = edit_image(images[at], LIGHT_EDITS[at % len(LIGHT_EDITS)], rng)
    elif kind == "under-dispersed":
        mean = images.mean(0)
        edited = mean + 0.5 * (images[at] - mean)
    elif kind == "over-dispersed":
        edited = images[at] + rng.normal(0, 25, images[at].shape)
    else:
        raise ValueError(f"{kind} is no version of an image")
    return edited.clip(0, 255).round().astype(np.uint8)


def extractor_of(space: str, cache: Path) -> FeatureExtractor:
    """Open a feature space by its name, with the weights that `medtrust data get` left in the cache."""
    host = build_host()
    contribution = host.find("features", space)
    options: dict[str, object] = {"device": "cpu"}
    if contribution.spec.weights:
        options["weights"] = resolve_weights(contribution.spec.weights, {}, offline=True, cache_dir=cache)
    extractor: FeatureExtractor = host.load(contribution)(**options)
    return extractor


def embedded(
    extractor: FeatureExtractor, images: np.ndarray, kind: str, rows: np.ndarray, seed: int, store: FeatureStore
) -> torch.Tensor:
    """Features [n, d] float32 of one version of the images `rows`; what the store holds is not computed again."""
    key = space_key(extractor.digest, LEVELS)
    out: list[torch.Tensor] = []
    with make_progress().stage(f"{kind} images", len(rows)) as stage:
        for start in range(0, len(rows), _BATCH):
            batch = np.stack([version(kind, images, int(at), seed) for at in rows[start : start + _BATCH]])
            digests = [hashlib.sha256(b"uint8" + each.tobytes()).hexdigest() for each in batch]
            known = store.lookup(key, digests)
            if any(row is None for row in known):
                values = extractor.extract(torch.from_numpy(batch), LEVELS)
                store.add(key, digests, values)
            else:
                values = torch.stack([row for row in known if row is not None])
            out.append(values.clone())
            stage.advance(len(batch))
    return torch.cat(out)
