"""Distances between the rows of two matrices, one tile at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch

__all__ = ["TILE", "distance_tiles"]

TILE = 1024  # rows per side: 8 MiB of float64 per tile
_CANCELLED = 1e-9  # share of the squared norms below which a squared distance has lost its digits


def distance_tiles(x: torch.Tensor, y: torch.Tensor, tile: int = TILE) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Yield the Euclidean distances between rows of x and rows of y, tile by tile in row order.

    Near zero, where ‖x‖² + ‖y‖² - 2x·y cancels, distances are computed again from differences, so that the distance of
    duplicates is exactly 0.

    Args:
        x: [n, d] float64.
        y: [m, d] float64.
        tile: Rows per side of a tile.

    Yields:
        First row of x, first row of y, and the tile [≤ tile, ≤ tile] float64.
    """
    for top in range(0, len(x), tile):
        rows = x[top : top + tile]
        row_norms = rows.square().sum(1)
        for left in range(0, len(y), tile):
            columns = y[left : left + tile]
            scale = row_norms[:, None] + columns.square().sum(1)
            squared = torch.addmm(scale, rows, columns.T, alpha=-2)
            i, j = (squared <= scale * _CANCELLED).nonzero(as_tuple=True)
            squared[i, j] = (rows[i] - columns[j]).square().sum(1)
            yield top, left, squared.sqrt_()
