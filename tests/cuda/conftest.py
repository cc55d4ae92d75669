"""Tests on a real device: poison in fresh memory, a side stream, and a skip that says why there is none."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from medtrust.ops import _native


def missing() -> str | None:
    """Why the CUDA kernels cannot run here, or None."""
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    if _native.extension is None:
        return str(_native.absence)
    if not _native.extension.with_cuda:
        return "the extension has no CUDA kernels; build it again with MEDTRUST_CUDA=1"
    return None


@pytest.fixture(autouse=True)
def _device() -> None:
    if reason := missing():
        pytest.skip(reason)


@contextlib.contextmanager
def poisoned_memory() -> Iterator[None]:
    """torch.empty gives NaN and the largest integers, on the device too."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@pytest.fixture
def on_side_stream() -> Callable[[Callable[[], Any]], Any]:
    """Runs a function on a busy stream of its own, where torch poisons fresh memory late: work elsewhere is undone."""

    def run(function: Callable[[], Any]) -> Any:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), poisoned_memory():
            torch.cuda._sleep(20_000_000)
            result = function()
        torch.cuda.current_stream().wait_stream(stream)
        return result

    return run
