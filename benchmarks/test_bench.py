"""Our side of every benchmark under pytest-benchmark: `pytest benchmarks --benchmark-only`.

For the race against the peers, with errors and processor time, run `python benchmarks/run.py`.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
MODULES = [importlib.import_module(path.stem) for path in sorted(HERE.glob("bench_*.py"))]
CASES = [
    pytest.param(module, function, id=f"{module.__name__.removeprefix('bench_')}-{function.__name__}")
    for module in MODULES
    if hasattr(module, "compare")
    for _, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__ and list(inspect.signature(function).parameters) == ["rounds"]
]


@pytest.mark.parametrize(("module", "function"), CASES)
def test_ours(module: Any, function: Any, benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first case of a benchmark, run by us alone."""
    found: list[Any] = []

    def first(case: str, oracle: float, contenders: list[Any], rounds: int) -> list[Any]:
        found.append(contenders[0])
        return []

    monkeypatch.setattr(module, "compare", first)
    function(1)
    benchmark(found[0].run)
