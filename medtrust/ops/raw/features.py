"""Kernel distance and moments of feature matrices as NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtrust.errors import DataError
from medtrust.ops._numbers import positive
from medtrust.ops.raw._arrays import extension, feature_rows, features, team

__all__ = ["Moments", "mmd", "moments"]

KINDS = {"poly3": 0, "rbf": 1}  # csrc/mmd.h: Discrepancy
CHUNK = 2048  # rows multiplied at a time


def mmd(
    real: NDArray[Any], fake: NDArray[Any], kernel: str = "poly3", bandwidth: float | None = None, *, threads: int = 1
) -> float:
    """Unbiased squared maximum mean discrepancy, the value of `medtrust.ops.mmd`.

    Args:
        real: Features `[n, d]`, n at least 2, float32 or float64, finite.
        fake: Features `[m, d]`, m at least 2, same dtype.
        kernel: "poly3" or "rbf".
        bandwidth: Width of "rbf" in units of the features, above 0.
        threads: Threads to use; the bits do not depend on it.

    Returns:
        MMD^2; around 0 for equal distributions, larger is further apart.

    Raises:
        DataError: An argument does not fit, or a value is not finite.
        NativeError: There is no extension.

    Reference:
        As at `medtrust.ops.mmd`
    """
    lib = extension("mmd")
    real, fake = features("mmd", real=real, fake=fake)
    n, m = len(real), len(fake)
    if kernel not in KINDS:
        raise DataError(f"ops.raw.mmd: kernel {kernel!r} is not one of {', '.join(KINDS)}")
    if min(n, m) < 2:
        raise DataError(f"ops.raw.mmd: the sets have {n} and {m} rows; the unbiased estimate needs at least 2 in each")
    if (kernel == "rbf") != (bandwidth is not None):
        raise DataError("ops.raw.mmd: give a bandwidth with kernel 'rbf', and with no other")
    scale = 1 / real.shape[1] if bandwidth is None else 0.5 / positive("raw.mmd", "bandwidth", bandwidth) ** 2
    centre = real[:256].astype(np.float64).mean(0) if kernel == "rbf" else np.zeros(real.shape[1])
    sums = np.empty(3)
    lib.mmd_sums(
        feature_rows(real),
        feature_rows(fake),
        centre.ctypes.data,
        KINDS[kernel],
        scale,
        sums.ctypes.data,
        team(threads),
    )
    return float(sums[0] / (n * (n - 1)) + sums[1] / (m * (m - 1)) - 2 * sums[2] / (n * m))


class Moments:
    """Streaming mean and covariance in float64; the values of `medtrust.ops.Moments`, up to the rounding of products.

    Args:
        width: Number of features d, at least 1.

    Reference:
        Chan, Golub & LeVeque 1983, doi:10.1080/00031305.1983.10483115
    """

    def __init__(self, width: int) -> None:
        if width < 1:
            raise DataError(f"ops.raw.Moments: width is {width}; give the number of features, at least 1")
        self.width, self.n = width, 0
        self._mean, self._outer = np.zeros(width), np.zeros((width, width))

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of the rows, `[d]`.

        Raises:
            DataError: No row was seen.
        """
        self._needs(1)
        return self._mean.copy()

    @property
    def cov(self) -> NDArray[np.float64]:
        """Covariance of the rows with n - 1 in the denominator, `[d, d]`, symmetric.

        Raises:
            DataError: Fewer than two rows were seen.
        """
        self._needs(2)
        return self._outer / (self.n - 1)

    def update(self, rows: NDArray[Any]) -> Moments:
        """Take in features `[n, d]`, float32 or float64, finite; n may be 0.

        Args:
            rows: The features.

        Returns:
            This object.

        Raises:
            DataError: Shape or dtype do not fit, or a value is not finite.
        """
        (rows,) = features("Moments", rows=rows)
        if rows.shape[1] != self.width:
            raise DataError(
                f"ops.raw.Moments: rows have {rows.shape[1]} features, this object was made for {self.width}"
            )
        for first in range(0, len(rows), CHUNK):
            part = rows[first : first + CHUNK].astype(np.float64)
            mean = part.mean(0)
            part -= mean
            self._join(len(part), mean, part.T @ part)
        return self

    def merge(self, other: Moments) -> Moments:
        """Take in all rows that another object has seen.

        Args:
            other: Moments of the same width; it stays as it is.

        Returns:
            This object.

        Raises:
            DataError: The widths differ.
        """
        if other.width != self.width:
            raise DataError(f"ops.raw.Moments: cannot merge width {other.width} into width {self.width}")
        if other.n:
            self._join(other.n, other._mean, other._outer)
        return self

    def _join(self, count: int, mean: NDArray[np.float64], outer: NDArray[np.float64]) -> None:
        total, gap = self.n + count, mean - self._mean
        self._outer = self._outer + outer + np.outer(gap, gap) * (self.n * count / total)
        self._mean = self._mean + gap * (count / total)
        self.n = total

    def _needs(self, least: int) -> None:
        if self.n < least:
            raise DataError(f"ops.raw.Moments: {self.n} rows were seen, at least {least} are needed; update with more")


def moments(rows: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean `[d]` and covariance `[d, d]` of features, in float64 about a pivot.

    Args:
        rows: Features `[n, d]`, n at least 2, float32 or float64, finite.

    Returns:
        Mean and covariance with n - 1 in the denominator.

    Raises:
        DataError: As for `Moments.update`, or fewer than two rows.
    """
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] == 0:
        raise DataError("ops.raw.moments: rows must be a NumPy array [n, d] with d of at least 1")
    found = Moments(rows.shape[1]).update(rows)
    return found.mean, found.cov
