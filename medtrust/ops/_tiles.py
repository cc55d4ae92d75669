"""Tiles of float32 dot products between centred rows, as the neighbour kernels want them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medtrust.ops._check import threads

__all__ = ["Centring", "Prepared", "dot_tiles", "feature_rows", "prepare"]

ROWS, COLS = 1024, 4096  # 16 MiB of dots: large enough for the GEMM's full rate, small enough for the cache


@contextmanager
def full_float32() -> Iterator[None]:
    """Multiply float32 matrices in float32, whatever the caller allows elsewhere.

    The error bounds of the neighbour kernels hold for float32, not for the TF32 or bfloat16 that autocast and
    `torch.set_float32_matmul_precision` may put in its place.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@dataclass(frozen=True)
class Centring:
    """A shift and a power-of-two scale that bring all features into -1..1.

    Args:
        centre: `[d]` float64, subtracted from each row.
        scale: Factor applied afterwards.
    """

    centre: Tensor
    scale: float

    @classmethod
    def of(cls, *matrices: Tensor) -> Centring:
        """Centre near the mean of the first matrix's first rows; scale by a bound on the distance from it.

        Args:
            matrices: Features `[n, d]`, at least one row in all.

        Returns:
            The centring; it depends on the features alone.
        """
        first = next(m for m in matrices if len(m))
        centre = first[:256].to(torch.float64).mean(0)
        extremes = [float(value) for m in matrices if len(m) for value in torch.aminmax(m)]
        far = max(map(abs, extremes)) + float(centre.abs().max())
        return cls(centre, 2.0 ** -math.ceil(math.log2(far)) if far > 0 else 1.0)


@dataclass(frozen=True)
class Prepared:
    """Some rows, centred.

    Args:
        rows: `[n, d]` float32.
        squares: `[n]` float64, squared norms before rounding to float32.
    """

    rows: Tensor
    squares: Tensor


def feature_rows(matrix: Tensor) -> tuple[int, int, int, bool]:
    """A feature matrix as the extension takes it: address, rows, columns, whether float64."""
    return matrix.data_ptr(), matrix.shape[0], matrix.shape[1], matrix.dtype == torch.float64


def prepare(lib: Any, matrix: Tensor, centring: Centring) -> Prepared:
    """Centre and scale rows in float64, then round them.

    Args:
        lib: The extension.
        matrix: Features `[n, d]`, contiguous.
        centring: Shift and scale.

    Returns:
        Float32 rows and their float64 squared norms.
    """
    rows = torch.empty(matrix.shape, dtype=torch.float32)
    squares = torch.empty(len(matrix), dtype=torch.float64)
    shift = (centring.centre.data_ptr(), centring.scale)
    lib.neighbours_prepare(feature_rows(matrix), *shift, rows.data_ptr(), squares.data_ptr(), threads())
    return Prepared(rows, squares)


@dataclass(frozen=True)
class Tile:
    """Dot products of a block of queries with a block of references, and where they lie.

    Args:
        dots: `[rows, cols]` float32, contiguous.
        shape: rows, cols, first row, first column, d.
        row_squares: `[rows]` float64.
        col_squares: `[cols]` float64.
    """

    dots: Tensor
    shape: list[int]
    row_squares: Tensor
    col_squares: Tensor

    def arguments(self) -> tuple[int, list[int], int, int]:
        """The tile as the extension takes it."""
        return self.dots.data_ptr(), self.shape, self.row_squares.data_ptr(), self.col_squares.data_ptr()


def dot_tiles(lib: Any, queries: Prepared, reference: Tensor, centring: Centring) -> Iterator[Tile]:
    """Every tile of queries x reference, one at a time.

    Args:
        lib: The extension.
        queries: All queries, prepared.
        reference: Features `[m, d]`, contiguous; a block of them is prepared at a time.
        centring: The one that the queries were prepared with.

    Yields:
        Tiles; each is overwritten by the next.
    """
    count, width = queries.rows.shape
    buffer = torch.empty(min(ROWS, count) * min(COLS, len(reference)), dtype=torch.float32)
    for col in range(0, len(reference), COLS):
        block = prepare(lib, reference[col : col + COLS], centring)
        for row in range(0, count, ROWS):
            part = queries.rows[row : row + ROWS]
            dots = buffer[: len(part) * len(block.rows)].view(len(part), len(block.rows))
            with full_float32():
                torch.mm(part, block.rows.T, out=dots)
            shape = [len(part), len(block.rows), row, col, width]
            yield Tile(dots, shape, queries.squares[row : row + ROWS], block.squares)
