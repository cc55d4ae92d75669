"""Spread the search for neighbours: each worker takes some queries and all references.

A row of `ops.nearest` and of `ops.prdc` is proven to be exact, so the result has the same bits however it is cut.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import medtrust.ops.neighbours  # noqa: F401 - it registers the ops
from medtrust.ops._elsewhere import searching_by
from medtrust.scaling.work import Place, settle

__all__ = ["LEAST_WORK", "SpreadSearch", "search"]

LEAST_WORK = 10**11  # multiplications below which sending takes longer than searching
LEAST_ROWS = 256
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class _Common:
    """What every piece of one search needs: sent to each machine once."""

    place: Place
    op: str
    references: Array
    more: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some of the queries."""

    where: range
    queries: Array
    more: Array | None


def search(common: _Common, piece: _Piece) -> tuple[Array, ...]:
    """Run one piece on a worker."""
    settle(common.place)
    queries, references = _tensor(piece.queries), _tensor(common.references)
    own = None if piece.more is None else _tensor(piece.more)
    if common.op == "nearest":
        k, groups = common.more
        found = torch.ops.medtrust.nearest(queries, references, k, own, None if groups is None else _tensor(groups))
    else:
        radii, inclusive = common.more
        found = torch.ops.medtrust.balls(queries, references, own, _tensor(radii), inclusive)
    return tuple(part.numpy() for part in found)


def _tensor(array: Array) -> Tensor:
    with warnings.catch_warnings():  # shared memory is read-only, and nothing writes to it
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


class SpreadSearch:
    """A searcher (`medtrust.ops._elsewhere`) that cuts the queries into pieces.

    Args:
        send: Maps common data and pieces to answers, in the order of the pieces.
        place: What workers take over from this process.
        workers: How many there are.
        least: Multiplications below which this process searches by itself.
    """

    def __init__(
        self, send: Callable[[Any, Iterable[Any]], Iterator[Any]], place: Place, workers: int, least: int = LEAST_WORK
    ) -> None:
        self._send, self._place, self._workers, self._least = send, place, workers, least

    def searching(self) -> AbstractContextManager[None]:
        """Search inside the block."""
        return searching_by(self)

    def nearest(
        self, queries: Tensor, reference: Tensor, k: int, query_groups: Tensor | None, reference_groups: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Squared distances and indices [n, k] of the k nearest references."""
        if self._is_small(queries, reference):
            found: tuple[Tensor, Tensor] = torch.ops.medtrust.nearest(
                queries, reference, k, query_groups, reference_groups
            )
            return found
        groups = None if reference_groups is None else _array(reference_groups)
        common = _Common(self._place, "nearest", _array(reference), (k, groups))
        parts = list(self._send(common, self._pieces(queries, query_groups)))
        squared, indices = (torch.from_numpy(np.concatenate(column)) for column in zip(*parts, strict=True))
        return squared, indices

    def balls(
        self, queries: Tensor, references: Tensor, query_radii: Tensor, reference_radii: Tensor, inclusive: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """How many reference balls hold each query; which references lie in a query's ball; whose ball holds one."""
        if self._is_small(queries, references):
            found: tuple[Tensor, Tensor, Tensor] = torch.ops.medtrust.balls(
                queries, references, query_radii, reference_radii, inclusive
            )
            return found
        common = _Common(self._place, "balls", _array(references), (_array(reference_radii), inclusive))
        counts: list[Array] = []
        recalled = covered = np.zeros(len(references), bool)
        for count, in_query_ball, holds_query in self._send(common, self._pieces(queries, query_radii)):
            counts.append(count)
            recalled, covered = recalled | in_query_ball, covered | holds_query
        return torch.from_numpy(np.concatenate(counts)), torch.from_numpy(recalled), torch.from_numpy(covered)

    def _is_small(self, queries: Tensor, references: Tensor) -> bool:
        work = len(queries) * len(references) * queries.shape[1]
        return queries.is_cuda or len(queries) == 0 or work < self._least

    def _pieces(self, queries: Tensor, more: Tensor | None) -> Iterator[_Piece]:
        rows, beside = _array(queries), None if more is None else _array(more)
        step = max(LEAST_ROWS, -(-len(rows) // (2 * self._workers)))
        for start in range(0, len(rows), step):
            where = range(start, min(start + step, len(rows)))
            part = slice(where.start, where.stop)
            yield _Piece(where, rows[part], None if beside is None else beside[part])


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().contiguous().numpy()
    return array
