"""Looks for a site's numbers in whatever the coordinator stored, in every form in which they could be written down."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np

from medtrust.federated import Statement
from medtrust.secagg import encode


def telling(values: np.ndarray) -> np.ndarray:
    """Numbers that nobody writes by chance: no whole numbers, nothing twice, and hardly a zero among their bytes."""
    flat = values.astype("<f8").ravel()
    found, counts = np.unique(flat[flat != np.rint(flat)], return_counts=True)
    zeros = (found.view(np.uint8).reshape(-1, 8) == 0).sum(1)
    return found[(counts == 1) & (zeros <= 1)]


def forms(value: float) -> Iterable[bytes]:
    """Ways to write a number: float64 and fixed point as bytes, hexadecimal or base64, and decimals of 11 digits."""
    for raw in (np.float64(value).tobytes(), encode(np.array([value]), 3).astype("<u8").tobytes()):
        yield raw
        yield raw.hex().encode()
        for shift in range(3):
            # in a longer text a number begins at one of three places of base64's groups; its outer characters also
            # hold bits of the neighbours, so only those between are looked for
            text = base64.b64encode(b"\0" * shift + raw + b"\0" * 3)
            yield text[-(-8 * shift // 6) : 8 * (shift + len(raw)) // 6]
    plain = f"{abs(value):.17f}" if abs(value) < 1e9 else f"{abs(value):.0f}"
    at = next((i for i, c in enumerate(plain) if c not in "0."), 0)
    yield plain[at : at + 11].encode()
    yield f"{abs(value):.17e}"[:11].encode()


def needles(statement: Statement) -> dict[float, list[bytes]]:
    """Every telling number of a site, as its statement holds it and as it would be added."""
    values = [np.concatenate([array.ravel() for array in statement.arrays.values()])]
    if statement.facts["release"] == "sums":
        values.append(statement.summable()[1])
    return {float(v): list(forms(v)) for v in telling(np.concatenate(values))}


def stored(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    kept = {}
    for path in sorted(folder.rglob("*")):
        # a database that is being closed takes its journal away under our hands
        with suppress(FileNotFoundError):
            if path.is_file():
                kept[str(path.relative_to(folder))] = path.read_bytes()
    return kept


def found(statement: Statement, files: dict[str, bytes]) -> dict[str, int]:
    """How many of a site's numbers each file holds; files with none are left out."""
    wanted = needles(statement)
    counts = {
        name: sum(any(form in content for form in each) for each in wanted.values()) for name, content in files.items()
    }
    return {name: count for name, count in counts.items() if count}
