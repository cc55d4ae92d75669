"""Checks of plain numbers, which need neither torch nor NumPy."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

from medtrust.errors import DataError

__all__ = ["NORMAL", "UNIFORM", "WORDS", "noise_place", "positive"]

WORDS, UNIFORM, NORMAL = 0, 1, 2  # csrc/sampler.h: Noise
LARGEST = 2**63 - 1


def positive(op: str, name: str, value: float) -> float:
    """Check that a number is finite and above zero.

    Args:
        op: Public name of the op.
        name: Name of the argument.
        value: Its value.

    Returns:
        The value as a float.

    Raises:
        DataError: It is not.
    """
    if not (math.isfinite(value) and value > 0):
        raise DataError(f"ops.{op}: {name} is {value}; give a finite number above zero")
    return float(value)


def noise_place(op: str, shape: Sequence[int], seed: int, step: int, first: int) -> tuple[int, int, int]:
    """Check where a batch's noise lies.

    Args:
        op: Public name of the op.
        shape: `[N, ...]`.
        seed: Seed.
        step: Step.
        first: Index of the first sample.

    Returns:
        Seed, step, and the first element's number.

    Raises:
        DataError: One of them is out of range.
    """
    numbers = []
    for name, value in (("seed", seed), ("step", step), ("first", first)):
        try:
            number = operator.index(value)
        except TypeError:
            raise DataError(f"ops.{op}: {name} is {value!r}; give a whole number") from None
        if not 0 <= number <= LARGEST:
            raise DataError(f"ops.{op}: {name} is {number}; give 0..2^63 - 1")
        numbers.append(number)
    per_sample = math.prod(shape[1:])
    if (numbers[2] + shape[0]) * per_sample > LARGEST - 8:
        raise DataError(f"ops.{op}: first is {first}, past the end of the noise; use another step or seed")
    return numbers[0], numbers[1], numbers[2] * per_sample
