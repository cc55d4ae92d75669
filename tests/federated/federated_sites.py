"""Small federations made of random features, whose whole is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from medtrust.federated import Bank, SigningKey, SiteData, SiteSet, Study, make_study
from medtrust.federated.study import BINS, RESULTS
from medtrust.types import FeatureMatrix, Intensity

GREY = Intensity(0, 255, "level")
WHY = "a test on random numbers"


def key_of(site: str) -> SigningKey:
    """A key that only a test would use: made of the site's name."""
    return SigningKey(Ed25519PrivateKey.from_private_bytes((site.encode() + b"." * 32)[:32]))


def matrix(rows: np.ndarray, patients: Sequence[str], space: str = "toy") -> FeatureMatrix:
    digests = tuple(f"{patient}:{i}" for i, patient in enumerate(patients))
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


def with_copies(
    sites: Mapping[str, SiteData], synthetic: np.ndarray, rng: np.random.Generator
) -> tuple[dict[str, SiteData], dict[str, Any]]:
    """The same sites with histograms and a bank of slightly edited copies, and what a study needs to ask for them."""
    complete = {}
    for name, data in sites.items():
        parts = []
        for real in (data.train, data.holdout):
            shares = torch.from_numpy(rng.dirichlet(np.ones(BINS) / 4, size=len(real.patients)))
            copied = replace(real.features["toy"], space="copies", space_digest="digest of copies")
            parts.append(replace(real, histograms=shares, features={**real.features, "copies": copied}))
        train, holdout = parts
        values = torch.cat([each.features["copies"].values for each in parts])
        bank = Bank(values + 1e-3 * torch.randn(values.shape), train.patients + holdout.patients)
        complete[name] = SiteData(train, holdout, bank, {"toy": ("ok", "all degradations were noticed")})
    made = matrix(synthetic, [f"s{i}" for i in range(len(synthetic))], "copies")
    histograms = torch.from_numpy(rng.dirichlet(np.ones(BINS) / 4, size=len(synthetic)))
    return complete, {"copies": made, "histograms": histograms, "results": RESULTS}
