"""Exact nearest neighbours, precision, recall, density and coverage on NumPy arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medtrust.errors import DataError
from medtrust.ops.raw._arrays import extension, feature_rows, features, kind, team

__all__ = ["Neighbours", "Prdc", "nearest", "prdc"]

SPARE = 16  # candidates beyond k: what lets the bounds prove that nothing nearer was missed
ROWS, COLS = 1024, 4096  # of a tile of dot products
PACKED = 16384  # references packed at a time for a matrix unit
BLOCK, TURN = 32, 256  # csrc/candidates.h: rows packed together, queries answered or given up together


class Neighbours(NamedTuple):
    """What `nearest` returns.

    Args:
        distances: `[n, k]` float64, Euclidean, ascending.
        indices: `[n, k]` int64, rows of the reference; equal distances are in order of index.
    """

    distances: NDArray[np.float64]
    indices: NDArray[np.int64]


class Prdc(NamedTuple):
    """What `prdc` returns; each is higher for better sets, as at `medtrust.ops.prdc`."""

    precision: float
    recall: float
    density: float
    coverage: float


def nearest(
    queries: NDArray[Any],
    reference: NDArray[Any],
    k: int,
    exclude: tuple[NDArray[Any], NDArray[Any]] | None = None,
    *,
    threads: int = 1,
) -> Neighbours:
    """The k nearest reference rows of each query, exact in float64, as `medtrust.ops.nearest` finds them.

    Args:
        queries: Features `[n, d]`, float32 or float64, finite.
        reference: Features `[m, d]`, same dtype.
        k: Neighbours wanted, at least 1.
        exclude: Integer groups of the queries `[n]` and of the reference `[m]`, such as patients; a pair of equal
            groups is never reported.
        threads: Threads to use; the bits do not depend on it.

    Returns:
        `Neighbours(distances, indices)`.

    Raises:
        DataError: An argument does not fit, values are not finite, or a query has fewer than k references.
        NativeError: There is no extension.
    """
    queries, reference = features("nearest", queries=queries, reference=reference)
    if not 1 <= k <= len(reference):
        raise DataError(f"ops.raw.nearest: k={k} is not within 1..{len(reference)}, the number of reference rows")
    groups: tuple[Any, Any] = (None, None)
    if exclude is not None:
        for name, group, rows in zip(("queries", "reference"), exclude, (queries, reference), strict=True):
            if not isinstance(group, np.ndarray) or group.shape != (len(rows),) or group.dtype.kind not in "iu":
                raise DataError(f"ops.raw.nearest: exclude for the {name} must be integers [{len(rows)}], one per row")
        groups = np.ascontiguousarray(exclude[0], np.int64), np.ascontiguousarray(exclude[1], np.int64)
    squared, indices = _squared(_Search(queries, reference, team(threads)), k, *groups)
    short = np.flatnonzero(indices[:, -1] < 0)
    if len(short):
        left = int((indices[short[0]] >= 0).sum())
        raise DataError(
            f"ops.raw.nearest: query {short[0]} has {left} reference rows outside its own group, k={k} needs more"
        )
    return Neighbours(np.sqrt(squared), indices)


def prdc(real: NDArray[Any], fake: NDArray[Any], k: int = 5, convention: str = "prdc", *, threads: int = 1) -> Prdc:
    """Precision, recall, density and coverage of a fake set against a real one, the values of `medtrust.ops.prdc`.

    Args:
        real: Features `[n, d]`, float32 or float64, finite.
        fake: Features `[m, d]`, same dtype.
        k: Neighbour that sets the radius, at least 1 and below both n and m.
        convention: "prdc" or "kynkaanniemi".
        threads: Threads to use; the bits do not depend on it.

    Returns:
        `Prdc(precision, recall, density, coverage)`.

    Raises:
        DataError: As for `nearest`, or every real radius is 0.
        NativeError: There is no extension.
    """
    if convention not in ("prdc", "kynkaanniemi"):
        raise DataError(f"ops.raw.prdc: convention {convention!r} is not one of prdc, kynkaanniemi")
    real, fake = features("prdc", real=real, fake=fake)
    radii = []
    for name, rows in (("real", real), ("fake", fake)):
        if not 1 <= k < len(rows):
            raise DataError(f"ops.raw.prdc: {name} has {kind(rows)}, k={k} must be at least 1 and below the rows")
        itself = np.arange(len(rows))
        squared, _ = _squared(_Search(rows, rows, team(threads)), k, itself, itself)
        radii.append(np.ascontiguousarray(squared[:, -1]))
    if not radii[0].any():
        raise DataError(f"ops.raw.prdc: every real row has {k} exact copies, so every ball is empty; drop duplicates")
    counts, recalled, covered = _balls(_Search(fake, real, team(threads)), radii, convention == "kynkaanniemi")
    return Prdc(float((counts > 0).mean()), float(recalled.mean()), float(counts.mean()) / k, float(covered.mean()))


@dataclass(frozen=True)
class _Packed:
    """Rows rounded to bfloat16 in a matrix unit's order."""

    tiles: NDArray[np.uint16]
    squares: NDArray[np.float64]
    gaps: NDArray[np.float64]
    width: int

    def arguments(self) -> tuple[int, int, int, int, int]:
        addresses = (self.tiles.ctypes.data, self.squares.ctypes.data, self.gaps.ctypes.data)
        return *addresses, len(self.squares), self.width


class _Search:
    """Two sets of rows, shifted and scaled into -1..1 by the same numbers."""

    def __init__(self, queries: NDArray[Any], references: NDArray[Any], threads: int) -> None:
        self.lib, self.queries, self.references, self.threads = extension("nearest"), queries, references, threads
        self.centre = references[:256].astype(np.float64).mean(0)
        extremes = [abs(float(value)) for m in (references, queries) if len(m) for value in (m.min(), m.max())]
        far = max(extremes) + float(np.abs(self.centre).max())
        self.scale = 2.0 ** -math.ceil(math.log2(far)) if far > 0 else 1.0

    def packed(self, rows: NDArray[Any], right: bool) -> _Packed:
        count, width = rows.shape
        tiles = np.empty(-(-count // BLOCK) * BLOCK * -(-width // 32) * 32, np.uint16)
        squares, gaps = np.empty(count), np.empty(count)
        self.lib.candidates_pack(
            feature_rows(rows), self.centre.ctypes.data, self.scale, right, tiles.ctypes.data, squares.ctypes.data,
            gaps.ctypes.data, self.threads,
        )  # fmt: skip
        return _Packed(tiles, squares, gaps, width)

    def prepared(self, rows: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        rounded, squares = np.empty(rows.shape, np.float32), np.empty(len(rows))
        self.lib.neighbours_prepare(
            feature_rows(rows), self.centre.ctypes.data, self.scale, rounded.ctypes.data, squares.ctypes.data,
            self.threads,
        )  # fmt: skip
        return rounded, squares

    def tiles(self, rows: NDArray[np.float32], squares: NDArray[np.float64]) -> Iterator[tuple[Any, ...]]:
        """Float32 dot products of prepared queries with all references, as the kernels take them."""
        for col in range(0, len(self.references), COLS):
            block, block_squares = self.prepared(self.references[col : col + COLS])
            for row in range(0, len(rows), ROWS):
                dots = rows[row : row + ROWS] @ block.T
                shape = [*dots.shape, row, col, rows.shape[1]]
                yield dots.ctypes.data, shape, squares[row : row + ROWS].ctypes.data, block_squares.ctypes.data


def _address(values: NDArray[Any] | None) -> int:
    return 0 if values is None else values.ctypes.data


def _squared(
    search: _Search, k: int, query_groups: NDArray[np.int64] | None, reference_groups: NDArray[np.int64] | None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Squared distances and indices `[n, k]`; -1 where a query has fewer references."""
    lib, count = search.lib, len(search.queries)
    squared, indices = np.empty((count, k)), np.empty((count, k), np.int64)
    if count == 0:
        return squared, indices
    left = np.arange(count)
    # From coarse to fine: each pass answers what its bounds can prove, the next one takes the rest.
    for propose in (_by_matrix_unit, _by_products) if lib.matrix() else (_by_products,):
        part = np.ascontiguousarray(search.queries[left])
        own = None if query_groups is None else np.ascontiguousarray(query_groups[left])
        bounds, candidates, filled, squares = propose(search, part, k, (_address(own), _address(reference_groups)))
        found, rows, proven = (
            np.empty((len(left), k)),
            np.empty((len(left), k), np.int64),
            np.zeros(len(left), np.bool_),
        )
        lib.neighbours_refine(
            feature_rows(part), feature_rows(search.references), squares.ctypes.data, search.scale**2, bounds.shape[1],
            bounds.ctypes.data, candidates.ctypes.data, _address(filled), k, found.ctypes.data, rows.ctypes.data,
            proven.ctypes.data, search.threads,
        )  # fmt: skip
        squared[left], indices[left] = found, rows
        left = left[~proven]
        if not len(left):
            return squared, indices
    lib.neighbours_sweep(
        feature_rows(search.queries), feature_rows(search.references), left.ctypes.data, len(left),
        _address(query_groups), _address(reference_groups), k, squared.ctypes.data, indices.ctypes.data, search.threads,
    )  # fmt: skip
    return squared, indices


def _by_matrix_unit(search: _Search, part: NDArray[Any], k: int, groups: tuple[int, int]) -> tuple[Any, ...]:
    """Every reference that can be among the k nearest, from bfloat16 products with bounds."""
    count, capacity = len(part), 4 * k + 64
    uppers, bounds = np.empty((2, count, capacity), np.float32)
    candidates, worst = np.empty((count, capacity), np.int64), np.full(count, np.inf, np.float32)
    filled, rows = np.zeros(count, np.int32), search.packed(part, right=False)
    lists = [values.ctypes.data for values in (uppers, bounds, candidates, worst, filled)]
    for first in range(0, len(search.references), PACKED):
        block = search.packed(search.references[first : first + PACKED], right=True)
        search.lib.candidates_search(
            rows.arguments(), block.arguments(), first, *groups, lists, k, capacity, search.threads
        )
    return bounds, candidates, filled, rows.squares


def _by_products(search: _Search, part: NDArray[Any], k: int, groups: tuple[int, int]) -> tuple[Any, ...]:
    """The references with the smallest lower bounds from float32 products, k and some spare ones."""
    keep = min(k + SPARE, len(search.references))
    bounds = np.full((len(part), keep), np.inf, np.float32)
    candidates = np.full((len(part), keep), -1, np.int64)
    rows, squares = search.prepared(part)
    for tile in search.tiles(rows, squares):
        search.lib.neighbours_scan(*tile, *groups, keep, bounds.ctypes.data, candidates.ctypes.data, search.threads)
    return bounds, candidates, None, squares


def _balls(
    search: _Search, radii: list[NDArray[np.float64]], inclusive: bool
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Real balls around each fake row, and the flags of the real rows: in a fake ball, own ball not empty."""
    lib, count = search.lib, len(search.queries)
    counts = np.zeros(count, np.int64)
    recalled, covered = np.zeros((2, len(search.references)), np.bool_)
    flags = (recalled.ctypes.data, covered.ctypes.data)
    scales = (search.scale**2, inclusive)
    references = feature_rows(search.references)
    rest = np.arange(count)
    if lib.matrix():
        given_up = np.zeros(-(-count // TURN), np.bool_)
        rows, results = search.packed(search.queries, right=False), (counts.ctypes.data, *flags, given_up.ctypes.data)
        for first in range(0, len(search.references), PACKED):
            block = search.packed(search.references[first : first + PACKED], right=True)
            lib.candidates_balls(
                rows.arguments(), block.arguments(), first, feature_rows(search.queries), references,
                radii[1].ctypes.data, radii[0].ctypes.data, *scales, *results, search.threads,
            )  # fmt: skip
        rest = np.flatnonzero(np.repeat(given_up, TURN)[:count])
    if len(rest):
        part, own = np.ascontiguousarray(search.queries[rest]), np.ascontiguousarray(radii[1][rest])
        found, prepared = np.zeros(len(rest), np.int64), search.prepared(part)
        for tile in search.tiles(*prepared):
            lib.neighbours_balls(
                *tile, feature_rows(part), references, own.ctypes.data, radii[0].ctypes.data, *scales,
                found.ctypes.data, *flags, search.threads,
            )  # fmt: skip
        counts[rest] = found
    return counts, recalled, covered
