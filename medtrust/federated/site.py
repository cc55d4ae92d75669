"""One site's part: from its own features to the statement that leaves the house."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medtrust import __version__
from medtrust.errors import DataError
from medtrust.federated.layout import REAL_SETS, write_moments
from medtrust.federated.signing import SigningKey
from medtrust.federated.statement import Statement
from medtrust.federated.study import Study
from medtrust.stats.sufficient import Moments
from medtrust.types import FeatureMatrix

__all__ = ["SiteData", "SiteSet", "deal", "site_statement"]


@dataclass(frozen=True, slots=True)
class SiteSet:
    """One real set of a site.

    Args:
        patients: Patient of each image.
        digests: Pixel digest of each image.
        features: Per space of the study, the features as extracted.
        patients_known: Patients come from the data, none from a guess.
    """

    patients: tuple[str, ...]
    digests: tuple[str, ...]
    features: Mapping[str, FeatureMatrix]
    patients_known: bool = True

    @property
    def units(self) -> int:
        """Patients."""
        return len(set(self.patients))


@dataclass(frozen=True, slots=True)
class SiteData:
    """What a site looks at; it stays there."""

    train: SiteSet
    holdout: SiteSet

    def of(self, name: str) -> SiteSet:
        """The set of that name."""
        return self.train if name == "train" else self.holdout


def site_statement(study: Study, site: str, data: SiteData, key: SigningKey) -> Statement:
    """Compute and sign what this site reveals.

    Args:
        study: What was agreed.
        site: Name of this site in it.
        data: Its real images' features.
        key: Its private key, which also deals the patients to folds.

    Returns:
        The statement; the same data give the same bytes.

    Raises:
        SafetyError: A disclosure rule forbids it; nothing was revealed.
        DataError: The features do not fit the study, or a patient is in both sets.
    """
    _check(study, site, data)
    study.rules.refuse_small_site(site, data.train.units + data.holdout.units)
    widest = max(study.spaces.values(), key=lambda space: space.dim)
    facts: dict[str, Any] = {
        "medtrust": __version__,
        "release": study.header["release"],
        "folds": {},
        "patients_known": data.train.patients_known and data.holdout.patients_known,
        "images": {name: len(data.of(name).patients) for name in REAL_SETS},
        "patients": {name: data.of(name).units for name in REAL_SETS},
    }
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name in REAL_SETS:
        real = data.of(name)
        study.rules.refuse_few_rows(site, name, len(real.patients), widest.dim, widest.name)
        count = (
            study.folds
            if study.secure_sums
            else study.rules.folds(real.units, len(real.patients), widest.dim, study.folds)
        )
        members, facts["folds"][name] = _balanced(study, site, real, widest.dim, count, key)
        for space in study.spaces.values():
            rows = space.project(real.features[space.name].values)
            folds = [Moments.of(rows[at], [real.patients[i] for i in at.tolist()]) for at in members]
            arrays |= write_moments(f"{space.name}/{name}", folds)
    return Statement.signed(study, site, facts, arrays, key)


def _balanced(
    study: Study, site: str, real: SiteSet, dim: int, count: int, key: SigningKey
) -> tuple[list[torch.Tensor], int]:
    """Deal patients to folds; with fewer folds where images are spread so unevenly that a fold would break a rule."""
    least = 2 if study.secure_sums else study.rules.rows_per_dimension * dim
    while True:
        fold = deal(real.patients, count, key.secret(f"folds of {site}"))
        members = [torch.from_numpy(np.flatnonzero(fold == f)) for f in range(count)]
        if count == 1 or min(map(len, members)) >= least:
            return members, count
        if study.secure_sums:
            raise DataError(
                f"site {site} has {real.units} patients, too few for the {count} folds of this study of secure sums"
            )
        count -= 1


def deal(patients: tuple[str, ...], folds: int, secret: bytes) -> npt.NDArray[np.int64]:
    """Deal patients to folds of equal size, as a secret has it: nobody else can tell who is in which.

    Args:
        patients: Patient of each image.
        folds: Number of folds.
        secret: The site's own.

    Returns:
        [n] fold of each image.
    """
    order = sorted(set(patients), key=lambda patient: hmac.digest(secret, patient.encode("utf-8", "replace"), "sha256"))
    place = {patient: at * folds // len(order) for at, patient in enumerate(order)}
    return np.array([place[patient] for patient in patients], dtype=np.int64)


def _check(study: Study, site: str, data: SiteData) -> None:
    shared = set(data.train.patients) & set(data.holdout.patients)
    if shared:
        raise DataError(f"site {site}: {len(shared)} patients are in both train and holdout: split by patient again")
    for name in REAL_SETS:
        real = data.of(name)
        for space in study.spaces.values():
            found = real.features.get(space.name)
            if found is None:
                raise DataError(f"site {site}: {name} has no features in the space {space.name}, which the study names")
            if found.space_digest != space.digest:
                raise DataError(
                    f"site {site}: the feature space {space.name} is another one here (digest "
                    f"{found.space_digest[:12]}…) than in the study ({space.digest[:12]}…): install the same one"
                )
            if len(found) != len(real.patients):
                raise DataError(
                    f"site {site}: {name} has {len(real.patients)} images and {len(found)} rows of features"
                )
