"""The linear scale from stored integers to physical values, and the narrowest dtype that keeps every level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["LinearScale", "integer_scale"]

_INTEGERS = ("uint8", "uint16", "int16", "int32", "int64")


@dataclass(frozen=True, slots=True)
class LinearScale:
    """physical = slope * stored + intercept, for stored values in [stored_lo, stored_hi].

    With an integral scale the values stay integers, in the first of uint8, uint16, int16, int32, int64 that holds the
    whole range, so nothing can wrap. Otherwise they are float32, or float64 where 24 bits cannot tell all levels apart.
    """

    stored_lo: int
    stored_hi: int
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def lo(self) -> float:
        """Smallest physical value."""
        return min(self._ends())

    @property
    def hi(self) -> float:
        """Largest physical value."""
        return max(self._ends())

    @property
    def integral(self) -> bool:
        """Whether every stored integer maps to an integer."""
        return float(self.slope).is_integer() and float(self.intercept).is_integer()

    @property
    def dtype(self) -> str:
        """Numpy name of the type that `apply` returns."""
        if not self.integral:
            return "float32" if self.stored_hi - self.stored_lo < 2**16 else "float64"
        for name in _INTEGERS:
            bounds = np.iinfo(name)
            if bounds.min <= self.lo and self.hi <= bounds.max:
                return name
        return "float64"

    def apply(self, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Map stored integers of any shape to physical values of `dtype`."""
        if (self.slope, self.intercept) == (1.0, 0.0):
            return stored.astype(self.dtype)
        if self.integral and self.dtype != "float64":
            return (stored.astype(np.int64) * int(self.slope) + int(self.intercept)).astype(self.dtype)
        return (stored.astype(np.float64) * self.slope + self.intercept).astype(self.dtype)

    def _ends(self) -> tuple[float, float]:
        return (self.stored_lo * self.slope + self.intercept, self.stored_hi * self.slope + self.intercept)


def integer_scale(bits: int, signed: bool, slope: float = 1.0, intercept: float = 0.0) -> LinearScale:
    """Make the scale of integers with `bits` stored bits."""
    if signed:
        return LinearScale(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, slope, intercept)
    return LinearScale(0, 2**bits - 1, slope, intercept)
