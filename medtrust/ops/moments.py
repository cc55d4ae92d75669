"""Mean and covariance of features that arrive in batches, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medtrust.errors import DataError
from medtrust.ops._check import features, kernel_input

__all__ = ["Moments"]

CHUNK = 2048  # rows gathered before they are multiplied: the result depends on the rows' order, never on their batches
BLOCK = 256  # columns of a block of the outer product, of which only the upper half is computed


@dataclass(frozen=True)
class _State:
    """Sums of rows after a pivot was subtracted.

    Args:
        count: Rows summed.
        pivot: `[d]` float64, near the mean, so that nothing cancels.
        total: `[d]` float64, sum of (row - pivot).
        outer: `[d, d]` float64, sum of (row - pivot)(row - pivot)^T; what lies below the diagonal means nothing.
    """

    count: int
    pivot: Tensor
    total: Tensor
    outer: Tensor

    def plus(self, rows: Tensor, *, reuse: bool) -> _State:
        """The state after some more rows `[n, d]` float64; with `reuse` in the memory of both."""
        gaps = rows.sub_(self.pivot) if reuse else rows - self.pivot
        outer = self.outer if reuse else self.outer.clone()
        _add_gram(outer, gaps)
        return _State(self.count + len(rows), self.pivot, self.total + gaps.sum(0), outer)

    def settled(self) -> _State:
        """The same rows with their mean as the pivot, and both halves of a symmetric `outer`."""
        mean = self.pivot + self.total / self.count
        upper = (self.outer - torch.outer(self.total, self.total) / self.count).triu_()
        return _State(self.count, mean, torch.zeros_like(mean), upper + upper.triu(1).T)


def _add_gram(outer: Tensor, rows: Tensor) -> None:
    """Add rows^T rows to the upper half of `outer`, by blocks."""
    for a in range(0, rows.shape[1], BLOCK):
        outer[a : a + BLOCK, a:].addmm_(rows[:, a : a + BLOCK].T, rows[:, a:])


class Moments:
    """Streaming mean and covariance; the same rows in the same order give the same bits in any batches.

    Args:
        width: Number of features d, at least 1.

    Reference:
        Chan, Golub & LeVeque 1983, doi:10.1080/00031305.1983.10483115
    """

    def __init__(self, width: int) -> None:
        if width < 1:
            raise DataError(f"ops.Moments: width is {width}; give the number of features, at least 1")
        self.width = width
        self._state: _State | None = None
        self._rows: Tensor | None = None  # room for up to CHUNK rows, float64
        self._held = 0  # rows in it that are not yet multiplied

    @property
    def n(self) -> int:
        """Rows seen so far."""
        return (self._state.count if self._state else 0) + self._held

    @property
    def mean(self) -> Tensor:
        """Mean of the rows, `[d]` float64.

        Raises:
            DataError: No row was seen.
        """
        return self._complete(1).settled().pivot

    @property
    def cov(self) -> Tensor:
        """Covariance of the rows with n - 1 in the denominator, `[d, d]` float64, symmetric.

        Raises:
            DataError: Fewer than two rows were seen.
        """
        state = self._complete(2)
        return state.settled().outer / (state.count - 1)

    def update(self, rows: Tensor) -> Moments:
        """Take in a batch.

        Args:
            rows: Features `[n, d]`, float32 or float64, finite, on one device for all batches; n may be 0.

        Returns:
            This object.

        Raises:
            DataError: Shape, dtype or device do not fit, or a value is not finite.
        """
        features("Moments", rows=rows)
        if rows.shape[1] != self.width:
            raise DataError(f"ops.Moments: rows have {rows.shape[1]} features, this object was made for {self.width}")
        self._same_device(rows.device)
        rows = kernel_input("Moments", "rows", rows)
        while len(rows):
            some = rows[: CHUNK - self._held]
            self._room(len(some), rows.device)[self._held : self._held + len(some)].copy_(some)
            self._held += len(some)
            rows = rows[len(some) :]
            if self._held == CHUNK:
                self._state, self._held = self._flushed(reuse=True), 0
        return self

    def merge(self, other: Moments) -> Moments:
        """Take in all rows that another object has seen.

        Args:
            other: Moments of the same width and device; it stays as it is.

        Returns:
            This object.

        Raises:
            DataError: The widths or devices differ.
        """
        if other.width != self.width:
            raise DataError(
                f"ops.Moments: cannot merge width {other.width} into width {self.width}; use the same features"
            )
        if other.n == 0:
            return self
        theirs = other._complete(1).settled()
        self._same_device(theirs.pivot.device)
        if self.n == 0:
            self._state = theirs
            return self
        mine = self._complete(1).settled()
        count = mine.count + theirs.count
        gap = theirs.pivot - mine.pivot
        mean = mine.pivot + gap * (theirs.count / count)
        outer = mine.outer + theirs.outer + torch.outer(gap, gap) * (mine.count * theirs.count / count)
        self._state, self._held = _State(count, mean, torch.zeros_like(mean), outer), 0
        return self

    def _complete(self, least: int) -> _State:
        """The state with the waiting rows in it, this object unchanged."""
        if self.n < least:
            raise DataError(f"ops.Moments: {self.n} rows were seen, at least {least} are needed; update with more")
        state = self._flushed(reuse=False)
        assert state is not None
        return state

    def _room(self, more: int, device: torch.device) -> Tensor:
        """Memory for the rows held and some more; it grows, so that many small sets stay small."""
        need = self._held + more
        if self._rows is None or len(self._rows) < need or self._rows.device != device:
            size = min(CHUNK, max(need, 2 * self._held))
            grown = torch.empty((size, self.width), dtype=torch.float64, device=device)
            if self._rows is not None and self._held:
                grown[: self._held] = self._rows[: self._held]
            self._rows = grown
        return self._rows

    def _flushed(self, *, reuse: bool) -> _State | None:
        if self._rows is None or not self._held:
            return self._state
        rows, state = self._rows[: self._held], self._state
        if state is None:
            pivot = rows.mean(0)
            empty = torch.zeros((self.width, self.width), dtype=torch.float64, device=rows.device)
            state = _State(0, pivot, torch.zeros_like(pivot), empty)
        return state.plus(rows, reuse=reuse)

    def _same_device(self, device: torch.device) -> None:
        held = self._rows.device if self._rows is not None and self._held else None
        mine = held or (self._state.pivot.device if self._state else device)
        if mine != device:
            raise DataError(f"ops.Moments: rows are on {device}, earlier ones on {mine}; bring them to one device")
