"""What a plugin must leave as it was: random states, threads, standard output, functions of torch and numpy."""

from __future__ import annotations

import contextlib
import io
import os
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from medtrust.guarding import put_back, shared_functions

__all__ = ["left_alone"]


def _state() -> dict[str, Any]:
    return {
        "the random state of torch": torch.random.get_rng_state().numpy().tobytes(),
        "the random state of numpy": repr(np.random.get_state()),
        "the random state of Python": random.getstate(),
        "the number of threads of torch": torch.get_num_threads(),
        "torch's default type": torch.get_default_dtype(),
        "whether torch records gradients": torch.is_grad_enabled(),
        "whether torch uses deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "what numpy does on a floating-point error": repr(np.geterr()),
        "the environment": dict(os.environ),
        "the current folder": os.getcwd(),
    }


@contextlib.contextmanager
def left_alone() -> Iterator[None]:
    """Hold what the body leaves against what it found.

    Raises:
        AssertionError: It changed something that belongs to everybody, or printed to standard output; functions are
            put back.
    """
    before, shared = _state(), shared_functions()
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        yield
    after = _state()
    changed = [what for what, value in before.items() if after[what] != value] + put_back(shared)
    if changed:
        raise AssertionError(f"it changed {', '.join(changed)}; others in the same process get other numbers")
    if said.getvalue():
        raise AssertionError(f"it printed {said.getvalue()[:80]!r}; standard output belongs to medtrust, log instead")
