"""Divide a set into train and holdout so that no patient, and no exact copy of an image, stands on both sides."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medtrust.errors import ConfigError, DataError, Insufficient
from medtrust.images.manifest import read_manifest
from medtrust.writing import write_atomically

if TYPE_CHECKING:
    from medtrust.images.imageset import ImageSet

__all__ = ["Split", "split_set", "write_split"]


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of a set on either side.

    Args:
        train: Rows for train, in order.
        holdout: Rows for holdout, in order.
        patients: How many patients stand on each side, train first.
        joined: How many patients were kept together with another because an image of theirs is the same.
    """

    train: tuple[int, ...]
    holdout: tuple[int, ...]
    patients: tuple[int, int]
    joined: int


def split_set(images: ImageSet, share: float = 0.5, *, seed: int = 0, stratify: str | None = None) -> Split:
    """Draw patients for the holdout.

    Patients who share an exact image are one unit: left apart, they would look like copies by a generator that made
    none. The default is a half, for which the copy tests have most power.

    Args:
        images: The set; it is decoded once to find equal images.
        share: Share of the patients that goes to holdout, between 0 and 1.
        seed: Decides the draw.
        stratify: A manifest column of which both sides shall hold the same mixture; a patient counts by the value that
            most of the patient's images have.

    Returns:
        The split; the same set and seed give the same split.

    Raises:
        ConfigError: A share outside (0, 1).
        DataError: Patients that are not known, a file with several patients, or a column that is not there.
        Insufficient: Fewer than two units to divide.
    """
    if not 0 < share < 1:
        raise ConfigError(f"a holdout share of {share:g} leaves one side empty; give one between 0 and 1, such as 0.5")
    if not images.patients_known:
        raise DataError(
            "patients are not known for every image, and a split by image would put one patient on both sides; give a "
            "manifest.csv or --patients REGEX ('.+' declares each file a patient)"
        )
    _one_patient_per_file(images)
    units, joined = _units(images)
    names = sorted(set(units.values()))
    if len(names) < 2:
        raise Insufficient(f"a split needs 2 patients without a common image; there is {len(names)}")
    strata = _strata(images, units, stratify)
    rng, held = np.random.default_rng(seed), set[str]()
    owed = 0.0
    for stratum in sorted(strata):
        drawn = [strata[stratum][i] for i in rng.permutation(len(strata[stratum]))]
        wanted = share * len(drawn) + owed  # what rounding took from one stratum, the next gives back
        take = min(len(drawn), round(wanted))
        owed = wanted - take
        held.update(drawn[:take])
    if not held or len(held) == len(names):
        held = {names[int(rng.integers(len(names)))]} if not held else held - {min(held)}
    sides: tuple[list[int], list[int]] = ([], [])
    for row, patient in enumerate(images.patients):
        sides[units[patient] in held].append(row)
    counts = [len({images.patients[row] for row in side}) for side in sides]
    return Split(tuple(sides[0]), tuple(sides[1]), (counts[0], counts[1]), joined)


def write_split(source: Path, images: ImageSet, split: Split) -> tuple[Path, Path]:
    """Write train.csv and holdout.csv beside the images: manifests of the two sides, each a set that audits open.

    Args:
        source: The folder or manifest that `images` was opened from; the columns of a manifest are kept.
        images: The set.
        split: From `split_set`.

    Returns:
        The two manifests.

    Raises:
        DataError: Another split lies there already.
    """
    folder = source if source.is_dir() else source.parent
    listed = source / "manifest.csv" if source.is_dir() else source
    known = {row.name: row.attributes for row in read_manifest(listed)} if listed.is_file() else {}
    columns = list(dict.fromkeys(column for attributes in known.values() for column in attributes))
    written = []
    for side in ("train", "holdout"):
        rows = {images.names[row].partition("#")[0]: images.patients[row] for row in getattr(split, side)}
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["file", "patient", *columns])
        for file, patient in rows.items():
            table.writerow([file, patient, *(known.get(file, {}).get(column, "") for column in columns)])
        path, content = folder / f"{side}.csv", text.getvalue().encode()
        if path.exists() and path.read_bytes() != content:
            raise DataError(f"{path} is there and differs; keep that split, or move it away first")
        written.append((path, content))
    for path, content in written:
        write_atomically(path, content)
    return written[0][0], written[1][0]


def _one_patient_per_file(images: ImageSet) -> None:
    owner: dict[str, str] = {}
    for name, patient in zip(images.names, images.patients, strict=True):
        file = name.partition("#")[0]
        if owner.setdefault(file, patient) != patient:
            raise DataError(f"{file} holds images of several patients; write one file per patient, then split")


def _units(images: ImageSet) -> tuple[dict[str, str], int]:
    """Unit of each patient: the first, in order of name, of those connected by equal images."""
    leader = {patient: patient for patient in images.patients}

    def lead(patient: str) -> str:
        while leader[patient] != patient:
            leader[patient] = leader[leader[patient]]
            patient = leader[patient]
        return patient

    first: dict[str, str] = {}
    for digest, patient in zip(images.digests, images.patients, strict=True):
        a, b = sorted((lead(first.setdefault(digest, patient)), lead(patient)))
        leader[b] = a
    units = {patient: lead(patient) for patient in leader}
    return units, len(units) - len(set(units.values()))


def _strata(images: ImageSet, units: dict[str, str], column: str | None) -> dict[str, list[str]]:
    """Units by what most of their images are labelled; one stratum where no column is named."""
    if column is None:
        return {"": sorted(set(units.values()))}
    labels: dict[str, Counter[str]] = {}
    for name, patient, header in zip(images.names, images.patients, images.headers, strict=True):
        value = header.attributes.get(column)
        if value is None:
            raise DataError(f"{name} has no {column} in the manifest; fill the column or leave out --stratify")
        labels.setdefault(units[patient], Counter())[value] += 1
    strata: dict[str, list[str]] = {}
    for unit in sorted(labels):
        strata.setdefault(min(labels[unit], key=lambda value: (-labels[unit][value], value)), []).append(unit)
    return strata
