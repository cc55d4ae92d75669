"""Turn the dermoscopic patches into a set with patients: one row per unique image, linked images under one patient."""

from __future__ import annotations

import csv
import hashlib
import re
from pathlib import Path

from medtrust.errors import DataError

__all__ = ["prepare_derm"]

SIDE = 32
_NAME = re.compile(r"(Similar|nonSimilar)/patch(\d+)([ab])\.bmp")


def prepare_derm(folder: Path) -> str:
    """Write `manifest.csv` beside the patches.

    The package repeats many patches exactly and pairs others that were judged alike, so neither a file nor a pair is
    an independent unit. Exact repeats are listed once, by the SHA-256 of their pixels; images that a chain of Similar
    pairs connects share a patient.

    Args:
        folder: Holds Similar/patch{N}{a,b}.bmp and nonSimilar/patch{N}{a,b}.bmp.

    Returns:
        One line on what was found.

    Raises:
        DataError: The folder holds no patches.
    """
    import numpy as np
    from PIL import Image

    first: dict[str, str] = {}  # pixel digest -> first file that holds it
    parent: dict[str, str] = {}
    pairs: dict[tuple[str, str], list[str]] = {}
    for path in sorted(folder.rglob("*.bmp")):
        name = path.relative_to(folder).as_posix()
        match = _NAME.fullmatch(name)
        if match is None:
            continue
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        if pixels.shape != (SIDE, SIDE, 3):
            continue
        digest = hashlib.sha256(pixels.tobytes()).hexdigest()
        first.setdefault(digest, name)
        parent.setdefault(digest, digest)
        pairs.setdefault((match[1], match[2]), []).append(digest)
    if not first:
        raise DataError(f"{folder} holds no patches; delete it and fetch derm-patches again")
    for (kind, _), digests in pairs.items():
        if kind == "Similar" and len(digests) == 2:
            parent[_root(parent, digests[0])] = _root(parent, digests[1])
    patients: dict[str, str] = {}
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(("file", "patient"))
        for digest, name in first.items():
            root = _root(parent, digest)
            rows.writerow((name, patients.setdefault(root, f"P{len(patients):04d}")))
    return f"{len(first)} unique patches {SIDE}x{SIDE} of {len(patients)} patients (linked groups)"


def _root(parent: dict[str, str], digest: str) -> str:
    while parent[digest] != digest:
        digest = parent[digest]
    return digest
