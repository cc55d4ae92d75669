"""Checks that every raw call shares."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtrust.errors import DataError, NativeError
from medtrust.ops import _native

__all__ = ["FEATURES", "PIXELS", "array", "extension", "features", "feature_rows", "kind", "pair", "team"]

PIXELS = {"uint8": 0, "uint16": 1, "float32": 2}  # codes of csrc/pixel.h
FEATURES = ("float32", "float64")


def extension(op: str) -> Any:
    """The extension, or an error that says why there is none."""
    if _native.extension is None:
        raise NativeError(f"ops.raw.{op} needs the compiled kernels: {_native.absence}")
    return _native.extension


def array(op: str, name: str, values: NDArray[Any], dtypes: Iterable[str]) -> NDArray[Any]:
    """A checked array whose memory a kernel can read."""
    if not isinstance(values, np.ndarray):
        raise DataError(f"ops.raw.{op}: {name} is a {type(values).__name__}; pass a NumPy array")
    if values.dtype.name not in dtypes or not values.dtype.isnative:
        raise DataError(f"ops.raw.{op}: {name} is {values.dtype}; convert it to {' or '.join(dtypes)}")
    return np.ascontiguousarray(values) if values.ndim else values


def pair(op: str, x: NDArray[Any], y: NDArray[Any], axes: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Two checked batches of images of one shape and dtype, with one of these numbers of axes."""
    x, y = array(op, "x", x, PIXELS), array(op, "y", y, PIXELS)
    if x.shape != y.shape or x.dtype != y.dtype:
        raise DataError(f"ops.raw.{op}: x is {kind(x)}, y is {kind(y)}; bring both to the same shape and dtype")
    if x.ndim not in axes or 0 in x.shape[1:]:
        wanted = "[N, C, H, W] or [N, C, D, H, W]" if 5 in axes else "[N, C, H, W]"
        raise DataError(f"ops.raw.{op}: x has shape {list(x.shape)}; give {wanted} with at least one pixel")
    return x, y


def features(op: str, **matrices: NDArray[Any]) -> list[NDArray[Any]]:
    """Checked feature matrices `[n, d]` of one width and dtype, finite."""
    checked = [array(op, name, values, FEATURES) for name, values in matrices.items()]
    first_name, first = next(iter(matrices)), checked[0]
    for name, rows in zip(matrices, checked, strict=True):
        if rows.ndim != 2 or rows.shape[1] == 0:
            raise DataError(f"ops.raw.{op}: {name} has shape {list(rows.shape)}; give [n, d] with d of at least 1")
        if rows.shape[1] != first.shape[1] or rows.dtype != first.dtype:
            raise DataError(
                f"ops.raw.{op}: {first_name} is {kind(first)}, {name} is {kind(rows)}; bring both to the same width "
                "and dtype"
            )
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            raise DataError(f"ops.raw.{op}: row {bad[0]} of {name} holds a NaN or an infinity; drop or repair that row")
    return checked


def feature_rows(matrix: NDArray[Any]) -> tuple[int, int, int, bool]:
    """A feature matrix as the extension takes it: address, rows, columns, whether float64."""
    return matrix.ctypes.data, matrix.shape[0], matrix.shape[1], matrix.dtype == np.float64


def kind(values: NDArray[Any]) -> str:
    """Dtype and shape, for messages."""
    return f"{values.dtype} {list(values.shape)}"


def team(threads: int) -> int:
    """A checked number of threads."""
    if operator.index(threads) < 1:
        raise DataError(f"ops.raw: threads is {threads}; give at least 1")
    return int(threads)
