"""Evidence pictures, read from the report's folder and checked before they are embedded."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

__all__ = ["Embedded", "embed"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGEST = 4 * 1024**2


@dataclass(frozen=True, slots=True)
class Embedded:
    """A picture for a page: a data URI with its size, or why there is none."""

    uri: str = ""
    width: int = 0
    height: int = 0
    problem: str = ""


def embed(picture: Mapping[str, Any], folder: Path) -> Embedded:
    """Read one evidence picture.

    A report may come from a stranger, so only a PNG below `folder` with the digest that the report states is taken.

    Args:
        picture: Plain data of a picture.
        folder: The report's folder.
    """
    if not picture["path"]:
        return Embedded(problem="withheld by the evidence setting")
    path = PurePosixPath(picture["path"])
    if path.is_absolute() or ".." in path.parts or "\\" in picture["path"] or "\0" in picture["path"]:
        return Embedded(problem="refused: its path leaves the report's folder")
    try:
        place = (folder / path).resolve()
        if not place.is_relative_to(folder.resolve()):
            return Embedded(problem="refused: its path leaves the report's folder")
        if place.stat().st_size > LARGEST:
            return Embedded(problem=f"left out: the file is larger than {LARGEST // 1024**2} MiB")
        content = place.read_bytes()
    except OSError:
        return Embedded(problem=f"the file {picture['path']} is missing")
    if hashlib.sha256(content).hexdigest() != picture["sha256"]:
        return Embedded(problem=f"the file {picture['path']} is not the one the report was written with")
    if not content.startswith(SIGNATURE) or len(content) < 24:
        return Embedded(problem=f"the file {picture['path']} is not a PNG")
    uri = "data:image/png;base64," + base64.b64encode(content).decode("ascii")
    return Embedded(uri, int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big"))
