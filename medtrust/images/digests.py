"""Digests of what pixels mean, not of how a file stored them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from medtrust.errors import DataError
from medtrust.types import Intensity

__all__ = ["digest", "grouping_digest"]

_EXACT_INTEGER = 2**53


def digest(pixels: npt.NDArray[Any], intensity: Intensity) -> str:
    """Hash canonical pixels: equal values in equal units hash equally, whatever file, dtype or byte order held them.

    The canonical form is little-endian C order in the narrower of float32 and float64 that holds every value exactly.
    The declared range is not part of it: declaring another range changes no pixel.

    Args:
        pixels: Finite numbers of any shape, any integer or float dtype, any memory layout.
        intensity: Only its unit is used.

    Returns:
        SHA-256 in hexadecimal.

    Raises:
        DataError: Integers beyond 2**53, which no float holds exactly.
    """
    canonical = _canonical(pixels)
    state = hashlib.sha256(f"medtrust.pixels/1|{intensity.unit}|{pixels.shape}|{canonical.dtype.str}|".encode())
    state.update(canonical.data if canonical.size else b"")
    return state.hexdigest()


def grouping_digest(digests_by_patient: Mapping[str, Iterable[str]]) -> str:
    """Hash which images a set holds and which of them share a patient, without the patients' names or any order.

    Args:
        digests_by_patient: Image digests of each patient.

    Returns:
        SHA-256 in hexadecimal.
    """
    groups = sorted(hashlib.sha256("\n".join(sorted(own)).encode()).hexdigest() for own in digests_by_patient.values())
    return hashlib.sha256("\n".join(["medtrust.set/1", *groups]).encode()).hexdigest()


def _canonical(pixels: npt.NDArray[Any]) -> npt.NDArray[np.floating[Any]]:
    kind, size = pixels.dtype.kind, pixels.dtype.itemsize
    if (kind in "iu" and size <= 2) or kind == "b":
        return np.ascontiguousarray(pixels, dtype="<f4")
    if (
        kind in "iu"
        and size == 8
        and pixels.size
        and max(abs(int(pixels.min())), abs(int(pixels.max()))) > _EXACT_INTEGER
    ):
        raise DataError("pixels beyond 2**53 cannot be compared exactly; store them in a smaller unit.")
    # Adding zero turns -0.0 into 0.0, which is the same value but not the same bytes.
    if kind == "f" and size <= 4:
        return np.ascontiguousarray(pixels, dtype="<f4") + np.float32(0)
    wide = np.ascontiguousarray(pixels, dtype="<f8") + 0.0
    with np.errstate(over="ignore"):
        narrow = wide.astype("<f4")
    return narrow if np.array_equal(narrow, wide) else wide
