"""One file of a canonical JSON header and named arrays: safetensors, so that reading it can run no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from medtrust.errors import DataError
from medtrust.report.canonical import canonical_bytes, plain_data

__all__ = ["Arrays", "MOST_BYTES", "pack", "unpack"]

Arrays = Mapping[str, npt.NDArray[Any]]
MOST_BYTES = 1 << 30
_MOST_HEADER = 4 << 20
_TYPES = ("float64", "float32", "int64", "int8")


def pack(header: Mapping[str, Any], arrays: Arrays) -> bytes:
    """Write a header and arrays; the same content gives the same bytes.

    Args:
        header: Plain data.
        arrays: float64, float32, int64 or int8.

    Raises:
        ValueError: The header is no plain data, or an array has another type or a value that is not finite.
    """
    from safetensors.numpy import save

    for name, array in arrays.items():
        if array.dtype.name not in _TYPES or not np.isfinite(array).all():
            raise ValueError(f"{name} is {array.dtype}, or holds values that are not finite")
    text = canonical_bytes(plain_data(header, "header")).decode()
    return save({name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())}, {"header": text})


def unpack(content: bytes, what: str) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Read what `pack` wrote.

    Args:
        content: Bytes from anywhere.
        what: What they are, for messages.

    Raises:
        DataError: They are not what `pack` writes.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if len(content) > MOST_BYTES:
        raise DataError(f"{what} has {len(content)} bytes, more than the {MOST_BYTES} that are read")
    try:
        size = int.from_bytes(content[:8], "little")
        if not 2 <= size <= min(_MOST_HEADER, len(content) - 8):
            raise ValueError("its header has an impossible length")
        outer = json.loads(content[8 : 8 + size])
        header = json.loads(outer["__metadata__"]["header"])
        arrays = load(content)
    except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise DataError(
            f"{what} cannot be read ({type(error).__name__}: {str(error)[:120]}): ask for it again"
        ) from error
    if not isinstance(header, dict):
        raise DataError(f"{what} has no header that is a table: ask for it again")
    for name, array in arrays.items():
        if array.dtype.name not in _TYPES or not np.isfinite(array).all():
            raise DataError(f"{what}: the array {name[:80]} is {array.dtype} or not finite: ask for it again")
    return header, arrays
