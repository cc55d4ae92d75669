"""Open a folder, a manifest, or a single file as an image set."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from medtrust.errors import ConfigError, DataError, MedtrustError, PluginError
from medtrust.images.discover import find_files
from medtrust.images.imageset import Entry, ImageSet
from medtrust.images.intensity import settle_intensity
from medtrust.images.manifest import read_manifest
from medtrust.images.readers import Readers
from medtrust.images.slicing import Slices, choose_slices
from medtrust.types import ImageHeader, Intensity, Limits, SetName

__all__ = ["open_set"]

MANIFEST = "manifest.csv"
_DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class _Source:
    """One file of a set, and what the manifest says of it."""

    name: str
    path: Path
    patient: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


def open_set(
    source: Path,
    name: SetName,
    readers: Readers,
    *,
    patients: str | None = None,
    intensity: Intensity | None = None,
    slices: Slices | None = None,
    limits: Limits = _DEFAULT_LIMITS,
) -> ImageSet:
    """Scan a source's headers and return its images, ordered by folder, then along each series, then by name.

    A folder with a manifest.csv at its top is what that manifest lists. Any other is read recursively: hidden files and
    the clutter listed in `medtrust.images.discover` are left out, and everything else must be an image. A patient comes
    from the manifest, else from `patients`, else from the file. Without any of these each image is its own patient,
    except that a stack or volume counts as one.

    Args:
        source: A folder, a CSV manifest with the columns file,patient, or one image file.
        name: train, holdout or synthetic.
        readers: The installed formats.
        patients: Regular expression searched in each image's name; its first group, or the whole match, is the patient.
        intensity: Declared range, for files that do not state theirs.
        slices: Which slices of volumes to take; all, as they are stacked, when not given.
        limits: Caps that readers enforce before they allocate.

    Returns:
        The set; no pixel is decoded yet.

    Raises:
        DataError: Nothing to read, a file that cannot be read, or an ambiguous range.
        SafetyError: A path that leaves the source, or a file beyond the limits.
        ConfigError: `patients` is not a regular expression.
    """
    pattern = _compile(patients)
    sources, skipped, notes = _list(Path(source))
    scanned = [entry for each in sources for entry in _scan(each, name, readers, pattern, limits)]
    empty = len(sources) - len({entry.path for _, _, entry in scanned})
    if not scanned:
        raise DataError(f"{source} holds no images ({len(sources)} files read, {skipped} skipped); check the path.")
    scanned.sort(key=lambda each: each[0])
    entries = [entry for _, _, entry in scanned]
    if empty:
        notes = (*notes, f"{empty} files hold no image (segmentations, structure sets, reports) and were left out.")
    known = all(stated for _, stated, _ in scanned)
    if not known:
        notes = (
            *notes,
            "Patients are not known for every image: each such image counts as its own patient, each volume as one.",
        )
    if slices is not None:
        entries, taken = choose_slices(entries, slices, limits)
        notes = (*notes, taken)
    settled = settle_intensity([(str(entry.path), entry.header) for entry in entries], intensity)
    return ImageSet(name, entries, settled, limits, patients_known=known, skipped=skipped + empty, notes=notes)


def _compile(patients: str | None) -> re.Pattern[str] | None:
    if patients is None:
        return None
    try:
        return re.compile(patients)
    except re.error as error:
        raise ConfigError(f"patients {patients!r} is not a regular expression ({error}).") from error


def _list(source: Path) -> tuple[list[_Source], int, tuple[str, ...]]:
    if source.is_dir():
        files, skipped = find_files(source)
        if (source / MANIFEST).is_file():
            return _listed(source / MANIFEST, {path.resolve() for _, path in files}, skipped)
        return [_Source(name, path) for name, path in files], skipped, ()
    if not source.is_file():
        raise DataError(f"{source} is neither a file nor a folder; check the path.")
    if source.suffix.lower() == ".csv":
        return _listed(source, set(), 0)
    return [_Source(source.name, source)], 0, ()


def _listed(manifest: Path, beside: set[Path], skipped: int) -> tuple[list[_Source], int, tuple[str, ...]]:
    """Take the images that a manifest lists, and say how many lie beside it unlisted."""
    rows = [_Source(row.name, row.path, row.patient, row.attributes) for row in read_manifest(manifest)]
    unlisted = len(beside - {row.path.resolve() for row in rows})
    notes = (
        (f"{unlisted} files in the folder are not listed in its manifest.csv and were left out.",) if unlisted else ()
    )
    return rows, skipped + unlisted, notes


_Key = tuple[str, tuple[tuple[int, float, str], ...], str, int]


def _scan(
    source: _Source, set_name: SetName, readers: Readers, pattern: re.Pattern[str] | None, limits: Limits
) -> Iterator[tuple[_Key, bool, Entry]]:
    """List one file's images with their sort keys, and whether each one's patient is known."""
    spec, reader = readers.pick(source.path)
    try:
        headers = reader.scan(source.path, limits)
    except MedtrustError:
        raise
    except Exception as error:
        raise PluginError(
            f"{source.path}: the reader of format {spec.name!r} failed with {type(error).__name__}: {error}."
        ) from error
    folder = source.name.rpartition("/")[0]
    for header in headers:
        name = source.name if len(headers) == 1 else f"{source.name}#{header.index}"
        if source.attributes:
            header = replace(header, attributes={**header.attributes, **source.attributes})
        stated = source.patient or _match(pattern, name) or header.patient
        unit = source.name if "series" in header.attributes else name
        # An unknown patient's stand-in carries the set's name, so that no two sets seem to share a patient.
        entry = Entry(source.path, name, stated or f"{set_name}:{unit}", header, reader, spec.name)
        yield (folder, _sortable(header), source.name, header.index), stated is not None, entry


def _match(pattern: re.Pattern[str] | None, name: str) -> str | None:
    if pattern is None:
        return None
    found = pattern.search(name)
    patient = (found.group(1) if pattern.groups else found.group()) if found else None
    if not patient:
        raise DataError(f"{name}: the patients expression {pattern.pattern!r} finds no patient in this name.")
    return patient


def _sortable(header: ImageHeader) -> tuple[tuple[int, float, str], ...]:
    """Numbers before texts, so that orders of different readers can be compared."""
    return tuple((1, 0.0, part) if isinstance(part, str) else (0, float(part), "") for part in header.order)
