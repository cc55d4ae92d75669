"""Who searches neighbours: the kernels in this process, or somebody who spreads the search over several."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Searcher", "searcher", "searching_by"]


class Searcher(Protocol):
    """Answers as the ops `medtrust::nearest` and `medtrust::balls` do, bit for bit."""

    def nearest(
        self, queries: Tensor, reference: Tensor, k: int, query_groups: Tensor | None, reference_groups: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Squared distances and indices [n, k] of the k nearest references."""
        ...

    def balls(
        self, queries: Tensor, references: Tensor, query_radii: Tensor, reference_radii: Tensor, inclusive: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """How many reference balls hold each query; which references lie in a query's ball; whose ball holds one."""
        ...


_searcher: ContextVar[Searcher | None] = ContextVar("medtrust_searcher", default=None)


def searcher() -> Searcher | None:
    """Who searches here; None for the kernels."""
    return _searcher.get()


@contextmanager
def searching_by(chosen: Searcher) -> Iterator[None]:
    """Let somebody else search inside the block.

    Args:
        chosen: Who.
    """
    token = _searcher.set(chosen)
    try:
        yield
    finally:
        _searcher.reset(token)
