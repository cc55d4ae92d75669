"""One site's part: from its own features to the statement that leaves the house."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medtrust import __version__
from medtrust.errors import DataError
from medtrust.federated.copies import Bank, copy_arrays
from medtrust.federated.layout import REAL_SETS
from medtrust.federated.signing import SigningKey
from medtrust.federated.statement import Statement
from medtrust.federated.study import Study
from medtrust.federated.sums import SetSums, ball_arrays, intensity_arrays, space_arrays
from medtrust.types import FeatureMatrix

__all__ = ["SiteData", "SiteSet", "deal", "fingerprints", "site_statement"]


@dataclass(frozen=True, slots=True)
class SiteSet:
    """One real set of a site.

    Args:
        patients: Patient of each image.
        digests: Pixel digest of each image.
        features: Per space of the study, that of the copy test included, the features as extracted.
        histograms: [n, bins] float64, share of each image's pixels in each bin; None where the study asks for none.
        patients_known: Patients come from the data, none from a guess.
    """

    patients: tuple[str, ...]
    digests: tuple[str, ...]
    features: Mapping[str, FeatureMatrix]
    histograms: torch.Tensor | None = None
    patients_known: bool = True

    @property
    def units(self) -> int:
        """Patients."""
        return len(set(self.patients))


@dataclass(frozen=True, slots=True)
class SiteData:
    """What a site looks at; it stays there.

    Args:
        train: Its share of what the generator was fitted on.
        holdout: Real images of other patients of this site.
        bank: Edited copies of its images, for the copy test's self-test; None where the study asks for no copy test.
        validity: Per space, "ok", "failed" or "not_run" and a sentence: does the space notice degraded images here?
    """

    train: SiteSet
    holdout: SiteSet
    bank: Bank | None = None
    validity: Mapping[str, tuple[str, str]] | None = None

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
        # what a space notices depends on the patients, and bears no noise
        "validity": {} if study.privacy else {name: list(each) for name, each in (data.validity or {}).items()},
    }
    arrays: dict[str, npt.NDArray[Any]] = {}
    noise = key.secret(f"noise {study.digest} {_content(study, data)}")
    for name in REAL_SETS:
        real = _one_image_each(data.of(name), key) if study.privacy else data.of(name)
        study.rules.refuse_few_rows(site, name, len(real.patients), widest.dim, widest.name)
        fold = _fold_of(study, site, real, widest.dim, key)
        facts["folds"][name] = int(fold.max()) + 1
        sums = SetSums(name, real.patients, fold)
        for space in study.spaces.values():
            arrays |= space_arrays(study, space, sums, real.features[space.name].values, noise)
        if study.asks("fidelity.intensity"):
            assert real.histograms is not None
            arrays |= intensity_arrays(study, sums, real.histograms, noise)
        if study.asks("fidelity.precision") and name == "holdout":
            for space in study.spaces.values():
                train, holdout = data.train.features[space.name], data.holdout.features[space.name]
                arrays |= ball_arrays(study, space, train, holdout.values, fold)
    if study.asks("privacy.cpm") or study.asks("privacy.ct"):
        space_name = study.header["copies"]["space"]
        train, holdout = (data.of(name).features[space_name] for name in REAL_SETS)
        arrays |= copy_arrays(study, site, train, holdout, data.bank, key.secret("copies"))
    return Statement.signed(study, site, facts, arrays, key)


def _fold_of(study: Study, site: str, real: SiteSet, dim: int, key: SigningKey) -> npt.NDArray[np.int64]:
    """Deal patients to folds; to fewer where images are spread so unevenly that a fold would break a rule."""
    if study.secure_sums:
        if real.units < 2 * study.folds:
            raise DataError(
                f"site {site} has {real.units} patients, fewer than two for each of the {study.folds} folds that this "
                "study of secure sums asks of every site"
            )
        return deal(real.patients, study.folds, key.secret("folds"))
    count = study.rules.folds(real.units, len(real.patients), dim, study.folds)
    while True:
        fold = deal(real.patients, count, key.secret("folds"))
        if count == 1 or np.bincount(fold).min() >= study.rules.rows_per_dimension * dim:
            return fold
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
    order = sorted(set(patients), key=lambda patient: _keyed(secret, patient))
    place = {patient: at * folds // len(order) for at, patient in enumerate(order)}
    return np.array([place[patient] for patient in patients], dtype=np.int64)


def fingerprints(study: Study, data: SiteData, site: str, key: SigningKey) -> dict[str, list[list[str]]]:
    """Keyed fingerprints of the patients in each group that a statement speaks of, for the site's own ledger.

    Returns:
        Per set, one sorted list per fold.
    """
    widest = max(space.dim for space in study.spaces.values())
    secret = key.secret("ledger")
    found: dict[str, list[list[str]]] = {}
    for name in REAL_SETS:
        real = _one_image_each(data.of(name), key) if study.privacy else data.of(name)
        fold = _fold_of(study, site, real, widest, key)
        groups: list[set[str]] = [set() for _ in range(int(fold.max()) + 1)]
        for patient, f in zip(real.patients, fold.tolist(), strict=True):
            groups[f].add(_keyed(secret, patient).hex()[:24])
        found[name] = [sorted(group) for group in groups]
    return found


def _keyed(secret: bytes, patient: str) -> bytes:
    return hmac.digest(secret, patient.encode("utf-8", "surrogateescape"), "sha256")


def _one_image_each(real: SiteSet, key: SigningKey) -> SiteSet:
    """One image of each patient, as a secret has it: so one patient moves a sum by one row."""
    secret = key.secret("images")
    first: dict[str, int] = {}
    for row in sorted(range(len(real.patients)), key=lambda i: _keyed(secret, f"{real.digests[i]}:{i}")):
        first.setdefault(real.patients[row], row)
    rows = sorted(first.values())
    index = torch.tensor(rows)

    def take(matrix: FeatureMatrix) -> FeatureMatrix:
        patients, digests = (tuple(each[i] for i in rows) for each in (matrix.patients, matrix.digests))
        return FeatureMatrix(
            matrix.values[index], patients, digests, matrix.space, matrix.space_digest, matrix.names
        )  # fmt: skip

    return SiteSet(
        tuple(real.patients[i] for i in rows),
        tuple(real.digests[i] for i in rows),
        {name: take(matrix) for name, matrix in real.features.items()},
        None if real.histograms is None else real.histograms[index],
        real.patients_known,
    )


def _content(study: Study, data: SiteData) -> str:
    """Digest of everything that the sums depend on: with other data the noise is another."""
    found = hashlib.sha256()
    for name in REAL_SETS:
        real = data.of(name)
        found.update("\0".join((*real.patients, *real.digests)).encode("utf-8", "surrogateescape"))
        for space in study.spaces:
            found.update(real.features[space].values.contiguous().numpy().tobytes())
        if real.histograms is not None:
            found.update(real.histograms.contiguous().numpy().tobytes())
    return found.hexdigest()


def _check(study: Study, site: str, data: SiteData) -> None:
    shared = set(data.train.patients) & set(data.holdout.patients)
    if shared:
        raise DataError(f"site {site}: {len(shared)} patients are in both train and holdout: split by patient again")
    wanted = {name: space.digest for name, space in study.spaces.items()}
    if study.header["copies"]:
        wanted[study.header["copies"]["space"]] = study.header["copies"]["digest"]
    for name in REAL_SETS:
        real = data.of(name)
        if study.asks("fidelity.intensity") and (
            real.histograms is None or real.histograms.shape != (len(real.patients), study.bins)
        ):
            raise DataError(f"site {site}: {name} has no histograms of {study.bins} bins, which the study asks for")
        for space, digest in wanted.items():
            found = real.features.get(space)
            if found is None:
                raise DataError(f"site {site}: {name} has no features in the space {space}, which the study names")
            if found.space_digest != digest:
                raise DataError(
                    f"site {site}: the feature space {space} is another one here (digest {found.space_digest[:12]}…) "
                    f"than in the study ({digest[:12]}…): install the same version and weights"
                )
            if len(found) != len(real.patients):
                raise DataError(
                    f"site {site}: {name} has {len(real.patients)} images and {len(found)} rows of features"
                )
