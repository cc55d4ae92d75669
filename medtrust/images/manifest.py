"""The manifest: a CSV file that names images, their patients, and anything else that is known of them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from medtrust.errors import DataError, SafetyError

__all__ = ["ManifestRow", "read_manifest"]

_REQUIRED = ("file", "patient")


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One row: a file below the manifest's folder, its patient, and the other columns that are not empty."""

    path: Path
    name: str
    patient: str
    attributes: Mapping[str, str]


def read_manifest(manifest: Path) -> list[ManifestRow]:
    """Read a manifest and check every row before any image is opened.

    Args:
        manifest: UTF-8 CSV with the columns `file` and `patient` and any others; paths are relative to its folder.

    Returns:
        One row per file, in the manifest's order.

    Raises:
        DataError: A column is missing or doubled; a row is doubled, incomplete, or names a file that is not there.
        SafetyError: A path leaves the manifest's folder.
    """
    root = manifest.parent.resolve()
    rows: list[ManifestRow] = []
    seen: dict[Path, int] = {}
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            _check_columns(manifest, reader.fieldnames)
            for cells in reader:
                row = _row(manifest, root, reader.line_num, cells)
                target = row.path.resolve()
                if target in seen:
                    raise DataError(
                        f"{manifest} line {reader.line_num}: {row.name!r} is listed already in line {seen[target]}; "
                        "keep one row per file."
                    )
                seen[target] = reader.line_num
                rows.append(row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{manifest} is not a UTF-8 CSV file ({error}).") from error
    if not rows:
        raise DataError(f"{manifest} lists no files.")
    return rows


def _check_columns(manifest: Path, columns: object) -> None:
    names = list(columns) if isinstance(columns, (list, tuple)) else []
    missing = [name for name in _REQUIRED if name not in names]
    if missing:
        raise DataError(
            f"{manifest} needs the columns file,patient; {' and '.join(missing)} missing from its first line."
        )
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise DataError(f"{manifest} names the column {doubled[0]!r} twice.")


def _row(manifest: Path, root: Path, line: int, cells: Mapping[str | None, object]) -> ManifestRow:
    if None in cells or any(value is None for value in cells.values()):
        raise DataError(f"{manifest} line {line} has more or fewer cells than the first line.")
    values = {str(key): str(value).strip() for key, value in cells.items()}
    name, patient = values.pop("file"), values.pop("patient")
    if not name or not patient:
        raise DataError(f"{manifest} line {line} leaves {'file' if not name else 'patient'} empty.")
    if "\0" in name or PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive:
        raise SafetyError(f"{manifest} line {line}: {name!r} is not a path relative to the manifest.")
    path = root / name
    if not path.resolve().is_relative_to(root):
        raise SafetyError(f"{manifest} line {line}: {name!r} leaves the manifest's folder.")
    if path.suffix.lower() == ".csv":
        raise DataError(f"{manifest} line {line}: {name!r} is a manifest itself; list image files only.")
    if not path.is_file():
        raise DataError(f"{manifest} line {line}: there is no file {name!r} below {manifest.parent}.")
    relative = PurePosixPath(name).as_posix()
    return ManifestRow(path, relative, patient, {key: value for key, value in values.items() if value})
