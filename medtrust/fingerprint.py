"""What an artefact is, whatever reads it: the SHA-256 of a file, or of everything in a folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from medtrust.errors import DataError, SafetyError

__all__ = ["fingerprint"]

_CHUNK = 1024**2


def fingerprint(path: Path) -> dict[str, str | int]:
    """Identify a file or a folder by its content.

    Args:
        path: An existing file or folder.

    Returns:
        `sha256` (of the file; for a folder of the sorted lines "SHA-256  name", as `sha256sum` prints them), `files`
        and `bytes`. Times, owners and empty folders do not count.

    Raises:
        SafetyError: A folder holds a link, or something that is neither file nor folder.
        DataError: It cannot be read.
    """
    try:
        if not path.is_dir():
            return {"sha256": _digest(path), "files": 1, "bytes": path.stat().st_size}
        lines, total = [], 0
        for file in _files(path):
            lines.append(f"{_digest(file)}  {file.relative_to(path).as_posix()}\n")
            total += file.stat().st_size
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the path and its permissions") from error
    listed = "".join(sorted(lines, key=lambda line: line[66:])).encode("utf-8", "surrogateescape")
    return {"sha256": hashlib.sha256(listed).hexdigest(), "files": len(lines), "bytes": total}


def _files(folder: Path) -> list[Path]:
    def failed(error: OSError) -> None:
        raise error

    found = []
    for root, folders, files in os.walk(folder, onerror=failed):
        for name in (*folders, *files):
            place = Path(root, name)
            if place.is_symlink() or not (place.is_dir() or place.is_file()):
                raise SafetyError(f"{place} is a link or a device; copy what it stands for into {folder} instead")
        found += [Path(root, name) for name in files]
    return found


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()
