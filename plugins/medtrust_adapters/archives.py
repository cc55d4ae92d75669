"""Zip files from strangers: look at every name and size before a byte is unpacked."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path, PurePosixPath

from medtrust.errors import DataError, SafetyError

__all__ = ["check_zip", "read_member", "unpack_zip"]

MAX_FILES = 20_000
MAX_BYTES = 16 * 1024**3
MAX_RATIO = 200
_CHUNK = 1024**2


def check_zip(path: Path) -> list[zipfile.ZipInfo]:
    """List the files of an archive after checking that unpacking them stays inside one folder.

    Args:
        path: A zip archive, of whatever suffix.

    Returns:
        Its files, without folders, in the order of the archive.

    Raises:
        SafetyError: A name that is absolute, climbs with `..`, or comes twice; a link; too many files, or sizes that no
            honest archive has.
        DataError: It is no zip archive, or a damaged one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable zip archive ({error}); fetch it again") from error
    files: dict[str, zipfile.ZipInfo] = {}
    for info in members:
        name = info.filename
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or "\\" in name or ":" in name or "\0" in name or not parts.parts:
            raise SafetyError(f"{path} holds {name!r}, a name that leaves the folder it is unpacked to; do not use it")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise SafetyError(f"{path} holds {name!r}, which is a link or a device; do not use it")
        if info.is_dir():
            continue
        # the folded name too: some file systems take "A" and "a" for one file
        if name.casefold() in files:
            raise SafetyError(f"{path} holds {name!r} twice; readers disagree which one counts, so do not use it")
        if info.file_size > MAX_RATIO * max(info.compress_size, _CHUNK):
            raise SafetyError(
                f"{path}: {name!r} inflates from {info.compress_size} to {info.file_size} bytes; that is a zip bomb"
            )
        files[name.casefold()] = info
    if len(files) > MAX_FILES or sum(info.file_size for info in files.values()) > MAX_BYTES:
        raise SafetyError(f"{path} holds more than {MAX_FILES} files or {MAX_BYTES} bytes; unpack it by hand if meant")
    return list(files.values())


def read_member(path: Path, info: zipfile.ZipInfo, limit: int = MAX_BYTES) -> bytes:
    """Inflate one checked member, no further than it announced.

    Raises:
        SafetyError: It holds more than it announced, or more than `limit`.
        DataError: It is damaged.
    """
    if info.file_size > limit:
        raise SafetyError(f"{path}: {info.filename!r} has {info.file_size} bytes where at most {limit} are read")
    try:
        with zipfile.ZipFile(path) as archive, archive.open(info) as stream:
            content = stream.read(info.file_size + 1)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError) as error:
        raise DataError(f"{path}: {info.filename!r} cannot be read ({error}); fetch the archive again") from error
    if len(content) > info.file_size:
        raise SafetyError(f"{path}: {info.filename!r} holds more than it announces; do not use it")
    return content


def unpack_zip(path: Path, folder: Path) -> Path:
    """Unpack a checked archive.

    Args:
        path: A zip archive.
        folder: An empty folder to write into.

    Returns:
        The folder; where everything lies below one top folder of the archive, that one.
    """
    names = []
    for info in check_zip(path):
        target = folder / info.filename
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(read_member(path, info))
        names.append(PurePosixPath(info.filename))
    tops = {name.parts[0] for name in names}
    inside = all(len(name.parts) > 1 for name in names)
    return folder / tops.pop() if len(tops) == 1 and inside else folder
