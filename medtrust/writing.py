"""Writing files so that a killed run leaves either the old file or the new one, never half of one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from medtrust.errors import ConfigError

__all__ = ["ensure_folder", "write_atomically"]


def ensure_folder(folder: Path) -> Path:
    """Make a folder and its parents.

    Raises:
        ConfigError: The folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot make the folder {folder} ({error.strerror}); free the place or choose another"
        ) from error
    return folder


def write_atomically(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write beside the target, flush to disk, then rename over it.

    Args:
        path: Target file; its folder is made when missing.
        content: Everything the file shall hold.
        mode: Permissions of the file.

    Raises:
        ConfigError: The folder cannot be written.
    """
    folder = ensure_folder(path.parent)
    try:
        handle, name = tempfile.mkstemp(dir=folder, prefix=f".{path.name}.")
    except OSError as error:
        raise ConfigError(f"cannot write into {folder} ({error.strerror}); free it or choose another folder") from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
