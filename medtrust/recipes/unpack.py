"""Unpack chosen members of a wheel or source archive into a folder, and nothing outside it."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO

from medtrust.errors import DataError, SafetyError

__all__ = ["unpack"]

MAX_BYTES = 2 * 1024**3
MAX_FILES = 100_000
_CHUNK = 1024**2


def unpack(archive: Path, folder: Path, keep: Sequence[str], strip: str, *, max_bytes: int = MAX_BYTES) -> list[Path]:
    """Write the regular files whose names match a pattern; links, devices and everything else stay in the archive.

    Args:
        archive: A zip (`.whl`, `.zip`) or a tar (`.tar.gz`).
        folder: Empty folder to write into.
        keep: Patterns as in fnmatch, where `*` also matches `/`.
        strip: Leading part of the names that is dropped.
        max_bytes: Most bytes to write in total, counted while they are inflated.

    Returns:
        The files, sorted, relative to `folder`.

    Raises:
        SafetyError: A name that leaves the folder or appears twice, or more than `max_bytes`.
        DataError: The archive is damaged.
    """
    written: dict[Path, None] = {}
    left = max_bytes
    try:
        for name, stream in _members(archive, keep):
            relative = _safe(archive, name, strip)
            if relative in written or len(written) >= MAX_FILES:
                raise SafetyError(f"{archive.name} holds {name} twice, or too many files; do not use it")
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            with stream, target.open("xb") as out:
                while block := stream.read(_CHUNK):
                    left -= len(block)
                    if left < 0:
                        raise SafetyError(f"{archive.name} unpacks to more than {max_bytes} bytes; do not use it")
                    out.write(block)
            written[relative] = None
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{archive} cannot be unpacked ({error}); delete it and fetch it again") from error
    return sorted(written)


def _members(archive: Path, keep: Sequence[str]) -> Iterator[tuple[str, IO[bytes]]]:
    def wanted(name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in keep)

    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as bundle:
            for info in bundle.infolist():
                if not info.is_dir() and wanted(info.filename):
                    yield info.filename, bundle.open(info)
        return
    with tarfile.open(archive) as tape:
        for member in tape:
            if member.isreg() and wanted(member.name):
                stream = tape.extractfile(member)
                assert stream is not None  # a regular file has content
                yield member.name, stream


def _safe(archive: Path, name: str, strip: str) -> Path:
    path = PurePosixPath(name.removeprefix(strip))
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or not path.parts:
        raise SafetyError(f"{archive.name} holds {name!r}, which leaves the folder; do not use it")
    return Path(*path.parts)
