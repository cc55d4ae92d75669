"""Find the files of a folder: recursive, sorted, and never outside the root."""

from __future__ import annotations

import stat
from pathlib import Path

from medtrust.errors import DataError, SafetyError

__all__ = ["CLUTTER_FOLDERS", "CLUTTER_NAMES", "CLUTTER_SUFFIXES", "find_files"]

# Everything that a folder of images may hold beside them. Whatever is not on these lists must be readable as an image.
CLUTTER_NAMES = frozenset(
    {"copying", "desktop.ini", "dicomdir", "licence", "license", "readme", "sha256sums", "thumbs.db"}
)
CLUTTER_SUFFIXES = frozenset({".cff", ".csv", ".json", ".md", ".rst", ".toml", ".tsv", ".txt", ".yaml", ".yml"})
CLUTTER_FOLDERS = frozenset({"__macosx"})


def find_files(root: Path) -> tuple[list[tuple[str, Path]], int]:
    """List a folder's files, leaving out hidden files and the documented clutter.

    Args:
        root: An existing folder.

    Returns:
        (path below the root with "/" separators, path) in sorted order, and how many files were left out.

    Raises:
        SafetyError: A link leaves the root or leads to a folder, or something is not a plain file.
        DataError: A folder cannot be listed.
    """
    top = root.resolve()
    found: list[tuple[str, Path]] = []
    skipped = 0
    pending = [top]
    while pending:
        folder = pending.pop()
        try:
            entries = sorted(folder.iterdir())
        except OSError as error:
            raise DataError(f"{folder} cannot be listed ({error.strerror}).") from error
        for path in entries:
            name = path.name.lower()
            if path.is_symlink():
                _check_link(path, top)
            if path.is_dir():
                if not name.startswith(".") and name not in CLUTTER_FOLDERS:
                    pending.append(path)
            elif name.startswith(".") or name in CLUTTER_NAMES or path.suffix.lower() in CLUTTER_SUFFIXES:
                skipped += 1
            elif not stat.S_ISREG(path.stat().st_mode):
                raise SafetyError(f"{path} is not a plain file; remove it from the set.")
            else:
                found.append((path.relative_to(top).as_posix(), path))
    found.sort()
    return found, skipped


def _check_link(path: Path, top: Path) -> None:
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise SafetyError(f"{path} is a link that leads nowhere or in a circle; remove it.") from error
    if not target.is_relative_to(top):
        raise SafetyError(f"{path} is a link that leaves {top}; copy the file into the set instead.")
    if target.is_dir():
        raise SafetyError(f"{path} is a link to a folder; links to folders are not followed, so remove it.")
