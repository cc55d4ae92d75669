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
    """Numbers that nobody writes by chance: no small whole numbers, nothing that is there more than once."""
    flat = values.astype(np.float64).ravel()
    flat = flat[(flat != np.rint(flat)) | (np.abs(flat) > 1e6)]
    found, counts = np.unique(flat, return_counts=True)
    return found[counts == 1]


def forms(value: float) -> Iterable[bytes]:
    """Ways to write a number: float64 and fixed point as bytes, hexadecimal or base64, decimals down to 8 digits."""
    for raw in (np.float64(value).tobytes(), encode(np.array([value]), 3).astype("<u8").tobytes()[:20]):
        yield raw
        yield raw.hex().encode()
        for shift in range(3):
            # base64 of a longer text shows a number at one of three offsets; the outer characters depend on neighbours
            yield base64.b64encode(b"\0" * shift + raw)[4 if shift else 0 : -4]
    text = f"{abs(value):.10e}".split("e")[0].replace(".", "")[:9]
    plain = f"{abs(value):.17f}" if abs(value) < 1e9 else f"{abs(value):.0f}"
    at = next((i for i, c in enumerate(plain) if c not in "0."), 0)
    yield plain[at : at + 10].encode()
    yield f"{text[0]}.{text[1:]}".encode()


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
