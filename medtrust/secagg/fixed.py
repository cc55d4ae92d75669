"""float64 as 192-bit fixed point, so that sums modulo 2^192 are exact integers and masks can be uniform.

One step is 2^-120 and the range ±2^71. A float64 whose magnitude lies in [2^-67, 2^70] is represented exactly, a
smaller one within 2^-121; the sum of any number of sites is then exact, and it is rounded once, to float64, at the end.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from medtrust.errors import DataError

__all__ = ["LIMBS", "LIMIT", "RESOLUTION", "WIDTH", "Limbs", "add", "decode", "encode", "subtract"]

LIMBS = 3
WIDTH = 8 * LIMBS
FRACTION = 120
RESOLUTION = 2.0**-FRACTION
"""One step of the fixed-point grid."""
LIMIT = 2.0 ** (64 * LIMBS - 1 - FRACTION)
"""What the sum of all sites must stay below in magnitude."""

Limbs = NDArray[np.uint64]
"""`[D, 3]`, least significant word first, two's complement."""


def encode(vector: NDArray[np.float64], sites: int) -> Limbs:
    """Write each number as a 192-bit integer of steps of 2^-120.

    Args:
        vector: `[D]`, float64, finite.
        sites: How many such vectors may be added; each gets that share of the range.

    Returns:
        `[D, 3]` words, least significant first.

    Raises:
        DataError: A number is not finite, or so large that the sum could leave the range.
    """
    values = np.asarray(vector, dtype=np.float64)
    if values.ndim != 1:
        raise DataError(f"secure sums take one vector [D], got the shape {list(values.shape)}")
    bad = np.flatnonzero(~(np.abs(values) < LIMIT / sites))  # written so that NaN is bad too
    if bad.size:
        at = int(bad[0])
        raise DataError(
            f"entry {at} of the vector is {values[at]!r}; with {sites} sites a secure sum carries finite numbers below "
            f"{LIMIT / sites:.3g} in magnitude; check the statement's statistics or rescale the feature space"
        )
    # adding 120 to the exponent is exact; rint only acts on magnitudes below 2^-67
    steps = np.rint(np.ldexp(values, FRACTION))
    raw = b"".join(int(step).to_bytes(WIDTH, "little", signed=True) for step in steps.tolist())
    return np.frombuffer(raw, dtype="<u8").astype(np.uint64).reshape(-1, LIMBS)


def decode(words: Limbs) -> NDArray[np.float64]:
    """The float64 nearest to each 192-bit number of steps.

    Args:
        words: `[D, 3]`, least significant first.

    Returns:
        `[D]`, float64, each correctly rounded.
    """
    raw = np.ascontiguousarray(words.astype("<u8")).tobytes()
    scale = 1 << FRACTION  # int / int rounds once, correctly
    values = (int.from_bytes(raw[at : at + WIDTH], "little", signed=True) / scale for at in range(0, len(raw), WIDTH))
    return np.fromiter(values, dtype=np.float64, count=len(words))


def add(first: Limbs, second: Limbs) -> Limbs:
    """Sum modulo 2^192.

    Args:
        first: `[D, 3]` words.
        second: `[D, 3]` words.
    """
    out = np.empty_like(first)
    carry = np.zeros(len(first), dtype=np.uint64)
    for k in range(LIMBS):
        partial = first[:, k] + second[:, k]
        out[:, k] = partial + carry
        carry = ((partial < first[:, k]) | (out[:, k] < partial)).astype(np.uint64)
    return out


def subtract(first: Limbs, second: Limbs) -> Limbs:
    """Difference modulo 2^192.

    Args:
        first: `[D, 3]` words.
        second: `[D, 3]` words.
    """
    one = np.zeros_like(second)
    one[:, 0] = 1
    return add(first, add(~second, one))


def total(vectors: Iterable[Limbs]) -> Limbs:
    """Sum of many modulo 2^192.

    Args:
        vectors: At least one array `[D, 3]`.
    """
    first, *rest = vectors
    for other in rest:
        first = add(first, other)
    return first
