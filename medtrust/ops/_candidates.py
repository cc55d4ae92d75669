"""Neighbour passes on a matrix unit: bfloat16 products with bounds, decided exactly where these leave a pair open."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medtrust.ops._check import threads
from medtrust.ops._tiles import Centring, feature_rows

__all__ = ["Lists", "fill", "mark_balls"]

COLS = 16384  # references packed at a time: with d = 2048, 64 MiB
BLOCK = 32  # rows are packed in whole blocks of a matrix unit
TURN = 256  # queries that `candidates_balls` answers or gives up together


@dataclass(frozen=True)
class Packed:
    """Rows rounded to bfloat16 in the unit's order.

    Args:
        tiles: bfloat16 bits, int16.
        squares: `[n]` float64, squared norms of the centred and scaled rows.
        gaps: `[n]` float64, norms of what rounding took away.
        width: Features d.
    """

    tiles: Tensor
    squares: Tensor
    gaps: Tensor
    width: int

    @classmethod
    def of(cls, lib: Any, matrix: Tensor, centring: Centring, right: bool) -> Packed:
        """Round rows `[n, d]` for the left or the right side of the products."""
        count, width = matrix.shape
        steps = -(-width // 32)
        tiles = torch.empty(-(-count // BLOCK) * BLOCK * steps * 32, dtype=torch.int16)
        squares, gaps = torch.empty((2, count), dtype=torch.float64)
        shift = (centring.centre.data_ptr(), centring.scale)
        outputs = (tiles.data_ptr(), squares.data_ptr(), gaps.data_ptr())
        lib.candidates_pack(feature_rows(matrix), *shift, right, *outputs, threads())
        return cls(tiles, squares, gaps, width)

    def arguments(self) -> tuple[int, int, int, int, int]:
        """The rows as the extension takes them."""
        addresses = self.tiles.data_ptr(), self.squares.data_ptr(), self.gaps.data_ptr()
        return *addresses, len(self.squares), self.width


@dataclass(frozen=True)
class Lists:
    """What may be near each query.

    Args:
        bounds: `[n, capacity]` float32, lower bounds of |r|^2 - 2 q.r of the centred and scaled rows.
        indices: `[n, capacity]` int64.
        filled: `[n]` int32, candidates listed; -1 where they were too many. None where lists end at index -1.
        squares: `[n]` float64, squared norms of the queries.
    """

    bounds: Tensor
    indices: Tensor
    filled: Tensor | None
    squares: Tensor


def _blocks(lib: Any, references: Tensor, centring: Centring) -> Iterator[tuple[int, Packed]]:
    for first in range(0, len(references), COLS):
        yield first, Packed.of(lib, references[first : first + COLS], centring, right=True)


def fill(lib: Any, queries: Tensor, references: Tensor, k: int, groups: tuple[int, int], centring: Centring) -> Lists:
    """List, for each query, every reference that can be among its k nearest.

    Args:
        lib: The extension, with a matrix unit.
        queries: Features `[n, d]`, contiguous.
        references: Features `[m, d]`, contiguous.
        k: Neighbours wanted.
        groups: Addresses of the groups of the queries and of the references, or zeros.
        centring: Shift and scale of both.

    Returns:
        The lists.
    """
    count, capacity = len(queries), 4 * k + 64
    uppers, bounds = torch.empty((2, count, capacity), dtype=torch.float32)
    indices = torch.empty((count, capacity), dtype=torch.int64)
    worst = torch.full((count,), torch.inf, dtype=torch.float32)
    filled = torch.zeros(count, dtype=torch.int32)
    left = Packed.of(lib, queries, centring, right=False)
    addresses = [t.data_ptr() for t in (uppers, bounds, indices, worst, filled)]
    for first, block in _blocks(lib, references, centring):
        lib.candidates_search(left.arguments(), block.arguments(), first, *groups, addresses, k, capacity, threads())
    return Lists(bounds, indices, filled, left.squares)


def mark_balls(
    lib: Any,
    queries: Tensor,
    references: Tensor,
    radii: tuple[int, int, float, bool],
    results: tuple[Tensor, Tensor, Tensor],
    centring: Centring,
) -> Tensor:
    """Count and mark who lies in whose ball.

    Args:
        lib: The extension, with a matrix unit.
        queries: Features `[n, d]`, contiguous.
        references: Features `[m, d]`, contiguous.
        radii: Addresses of both squared radii, their scale, and whether a distance equal to the radius is inside.
        results: Counts, recalled and covered, added to in place.
        centring: Shift and scale of both.

    Returns:
        `[n]` bool, queries that were given up: the bounds left too many pairs open. Their counts are 0.
    """
    left_rows = Packed.of(lib, queries, centring, right=False)
    given_up = torch.zeros(-(-len(queries) // TURN), dtype=torch.bool)
    addresses = (*(t.data_ptr() for t in results), given_up.data_ptr())
    rows = feature_rows(queries), feature_rows(references)
    for first, block in _blocks(lib, references, centring):
        lib.candidates_balls(left_rows.arguments(), block.arguments(), first, *rows, *radii, *addresses, threads())
    rest = given_up.repeat_interleave(TURN)[: len(queries)]
    results[0][rest] = 0
    return rest
