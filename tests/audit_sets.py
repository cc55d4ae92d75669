"""Small image sets that tests audit: smooth random fields, several images per patient, written to folders."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter


def random_patches(rng: np.random.Generator, n: int, size: int = 24, sigma: float = 2.0) -> np.ndarray:
    """Colour patches [n, size, size, 3] uint8 with structure at the scale `sigma`."""
    fields = gaussian_filter(rng.normal(size=(n, size, size, 3)), (0, sigma, sigma, 0))
    fields /= fields.std(axis=(1, 2, 3), keepdims=True)
    levels = 128 + 40 * fields + rng.normal(0, 15, (n, 1, 1, 3))
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def write_folder(folder: Path, images: np.ndarray, patients: list[str] | None = None) -> Path:
    """Write PNG files, and a manifest where patients are known."""
    folder.mkdir(parents=True)
    names = [f"image-{i:04d}.png" for i in range(len(images))]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(folder / name)
    if patients is not None:
        with (folder / "manifest.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("file", "patient"), *zip(names, patients, strict=True)])
    return folder


def write_sets(root: Path, seed: int, patients: int = 40, synthetic: int = 60) -> dict[str, Path]:
    """Write train and holdout with two images per patient, and a synthetic set of fresh images."""
    rng = np.random.default_rng(seed)
    sets = {}
    for name in ("train", "holdout"):
        owners = [f"{name}-{i // 2:03d}" for i in range(2 * patients)]
        sets[name] = write_folder(root / name, random_patches(rng, 2 * patients), owners)
    sets["synthetic"] = write_folder(root / "synthetic", random_patches(rng, synthetic))
    return sets
