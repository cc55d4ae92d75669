"""Sums and moments along the last axis whose bits depend on the row alone, whatever the batch around it.

A library is free to add up a long row in another order when the batch has another shape. numpy reduces a contiguous
last axis row by row, always in the same pairwise order, so everything here reduces that axis and no other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["FLAT", "entropy", "moments", "ratio", "row_mean", "row_sum", "signed_log"]

Array = np.ndarray[Any, Any]

FLAT = 1e-9  # a standard deviation, in declared ranges, below which values count as constant: less than a 16-bit level


def row_sum(values: Array) -> Array:
    """Sum the last axis in an order that depends on its length alone."""
    result: Array = np.add.reduce(np.ascontiguousarray(values), axis=-1)
    return result


def row_mean(values: Array) -> Array:
    """Average the last axis; an empty one gives zero."""
    result: Array = row_sum(values) / max(1, values.shape[-1])
    return result


def ratio(top: Array, bottom: Array, where: Array, otherwise: float) -> Array:
    """Divide where it is allowed and put `otherwise` elsewhere."""
    result: Array = np.divide(top, bottom, out=np.full(np.shape(top), otherwise), where=where)
    return result


def moments(values: Array) -> tuple[Array, Array, Array, Array]:
    """Mean, population standard deviation, skewness and excess kurtosis of the last axis.

    Args:
        values: [..., K] float64 in units of the declared range.

    Returns:
        Four arrays [...]; skewness and kurtosis are 0 where the standard deviation is below `FLAT`.
    """
    mean = row_mean(values)
    centred = values - mean[..., None]
    square = centred * centred
    variance = row_mean(square)
    third = row_mean(square * centred)
    fourth = row_mean(square * square)
    sd = np.sqrt(variance)
    varied = sd >= FLAT
    skewness = ratio(third, variance * sd, varied, 0.0)
    kurtosis = ratio(fourth, variance * variance, varied, 3.0) - 3.0
    return mean, sd, skewness, kurtosis


def signed_log(values: Array) -> Array:
    """Map v to sign(v) log(1 + |v|): order and sign stay, and a tail of powers becomes one of logarithms.

    The logarithm runs over a multiple of 16 elements, so that none is left to a scalar loop with other bits.
    """
    flat = np.abs(values).ravel()
    padded = np.ones(-(-flat.size // 16) * 16)
    padded[: flat.size] += flat
    result: Array = np.copysign(np.log(padded)[: flat.size].reshape(values.shape), values)
    return result


def entropy(counts: Array, total: int) -> Array:
    """Shannon entropy in bits of the last axis of integer counts that add up to `total`.

    The axis is a multiple of 16 long at every call, so that no element is ever left to a scalar loop with other bits.
    """
    c = np.ascontiguousarray(counts, dtype=np.float64)
    terms = c * np.log2(np.maximum(c, 1.0))
    bits: Array = np.maximum(np.log2(float(total)) - row_sum(terms) / total, 0.0)
    return bits
