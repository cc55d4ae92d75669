"""Small sets for the tests of the explanations: smooth random fields with several images per patient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter

from medtrust.types import ImageHeader, ImageRecord, Intensity, MetricInput, SetData

RANGE = Intensity(0.0, 255.0, "level")
Edit = Callable[[np.ndarray], np.ndarray]


def fields(rng: np.random.Generator, n: int, size: int = 24, channels: int = 1, sigma: float = 1.5) -> np.ndarray:
    """Images [n, channels, size, size] uint8."""
    noise = gaussian_filter(rng.normal(size=(n, channels, size, size)), (0, 0, sigma, sigma))
    noise /= noise.std(axis=(1, 2, 3), keepdims=True)
    return np.clip(np.rint(128 + 35 * noise + rng.normal(0, 10, (n, 1, 1, 1))), 0, 255).astype(np.uint8)


def as_set(name: str, images: np.ndarray, per_patient: int = 1, suffix: str = "png", **header: object) -> SetData:
    """Wrap arrays [n, C, H, W] as a set."""
    patients = tuple(f"{name}-{i // per_patient}" for i in range(len(images)))
    records = [
        ImageRecord(x, f"{i:04d}.{suffix}", p, ImageHeader(x.shape, str(x.dtype), **header), f"{name}{i}")  # type: ignore[arg-type]
        for i, (x, p) in enumerate(zip(images, patients, strict=True))
    ]
    return SetData(name, records, patients, tuple(r.digest for r in records))  # type: ignore[arg-type]


def through(edit: Callable[[ImageRecord, Intensity], np.ndarray]) -> Edit:
    """An edit of records as an edit of arrays: a pipeline that a whole set went through."""
    header = ImageHeader((1, 1, 1), "uint8")
    return lambda images: np.stack([edit(ImageRecord(x, "", "", header, ""), RANGE) for x in images])


def trio(seed: int, n: int = 120, edit: Edit = lambda x: x, holdout: bool = True, **options: object) -> MetricInput:
    """Three sets of one distribution, with the synthetic images edited."""
    rng = np.random.default_rng(seed)
    return MetricInput(
        train=as_set("train", fields(rng, n), 2),
        synthetic=as_set("synthetic", edit(fields(rng, n))),
        holdout=as_set("holdout", fields(rng, n), 2) if holdout else None,
        intensity=RANGE,
        seed=seed,
        options=options,
    )
