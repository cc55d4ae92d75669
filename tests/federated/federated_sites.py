"""Small federations made of random features, whose whole is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from medtrust.federated import SigningKey, SiteData, SiteSet, Study, make_study
from medtrust.types import FeatureMatrix, Intensity

GREY = Intensity(0, 255, "level")
WHY = "a test on random numbers"


def key_of(site: str) -> SigningKey:
    """A key that only a test would use: made of the site's name."""
    return SigningKey(Ed25519PrivateKey.from_private_bytes((site.encode() + b"." * 32)[:32]))


def matrix(rows: np.ndarray, patients: Sequence[str], space: str = "toy") -> FeatureMatrix:
    digests = tuple(f"{space}-{i}" for i in range(len(rows)))
    return FeatureMatrix(torch.from_numpy(rows).float(), tuple(patients), digests, space, f"digest of {space}")


def site_set(rows: np.ndarray, name: str, images_per_patient: int = 1) -> SiteSet:
    patients = tuple(f"{name}-{i // images_per_patient}" for i in range(len(rows)))
    features = matrix(rows, patients)
    return SiteSet(patients, tuple(f"{name}:{i}" for i in range(len(rows))), {"toy": features})


def study_of(
    sites: Sequence[str], synthetic: np.ndarray, *, dim: int = 8, rules: Mapping[str, Any] | None = None, **options: Any
) -> Study:
    return make_study(
        "toy study", sites={site: key_of(site).public for site in sites}, intensity=GREY, dim=dim,
        synthetic=[matrix(synthetic, [f"s{i}" for i in range(len(synthetic))])],
        rules=rules or {}, **options,
    )  # fmt: skip


def federation(
    rng: np.random.Generator, sizes: Sequence[int], width: int = 12, gap: float = 0.0, images_per_patient: int = 1
) -> dict[str, SiteData]:
    """Sites of these many train images, and as many holdout images; `gap` moves each site's mean its own way."""
    sites = {}
    for at, size in enumerate(sizes):
        name, shift = f"site {at}", gap * rng.normal(size=width)
        pair = [site_set(rng.normal(size=(size, width)) + shift, f"{name} {part}", images_per_patient) for part in "th"]
        sites[name] = SiteData(*pair)
    return sites
