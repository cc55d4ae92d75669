"""Plain data that JSON can hold without loss, and its digest in the canonical form of RFC 8785."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import numbers
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import rfc8785

__all__ = ["canonical_bytes", "digest", "plain_data"]

LARGEST_EXACT = 2**53 - 1  # beyond it a JSON reader may round a whole number, so it travels as a string


def plain_data(value: Any, where: str = "") -> Any:
    """Turn dataclasses, mappings, sequences and scalars into what JSON can hold.

    Whole numbers beyond 2**53 become strings; a file name that is no valid Unicode keeps its odd bytes as escapes.

    Args:
        value: What to convert.
        where: Dotted path, for the message.

    Raises:
        ValueError: A number that is not finite, or a type that JSON does not know, with its path.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, PurePath):
        return plain_data(value.as_posix(), where)
    if isinstance(value, numbers.Integral):
        whole = int(value)
        return whole if abs(whole) <= LARGEST_EXACT else str(whole)
    if isinstance(value, numbers.Real):
        real = float(value)
        if not math.isfinite(real):
            raise ValueError(f"{where or 'value'} is {real}")
        return real
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {plain_data(str(key)): plain_data(item, _below(where, str(key))) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_data(item, _below(where, str(i))) for i, item in enumerate(value)]
    raise ValueError(f"{where or 'value'} is a {type(value).__name__}, which a report cannot hold")


def _below(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def canonical_bytes(value: Any) -> bytes:
    """Serialise plain data in the canonical form of RFC 8785 (sorted keys, one way to write each number)."""
    return rfc8785.dumps(value)


def digest(report: Mapping[str, Any]) -> str:
    """SHA-256 of a report's canonical form without its own `integrity` block, hexadecimal."""
    covered = {key: value for key, value in report.items() if key != "integrity"}
    return hashlib.sha256(canonical_bytes(covered)).hexdigest()
