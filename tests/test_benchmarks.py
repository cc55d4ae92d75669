"""The published figures are those of the result files."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUN = ROOT / "benchmarks" / "run.py"


@pytest.fixture(scope="module")
def run():
    """The runner of the benchmarks."""
    spec = importlib.util.spec_from_file_location("benchmarks_run", RUN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_shows_the_result_files(run):
    """docs/performance.md has the tables that the committed result files give; write them with run.py --tables."""
    text = run.PAGE.read_text()
    assert run.page(text, run.RESULTS) == text


def test_a_changed_figure_changes_the_page(run, tmp_path):
    """A figure, its ratio and its error reach the table."""
    machine = {
        "cpu": "a processor",
        "threads": 2,
        "load_before": 0.5,
        "torch": "2",
        "native": {"isa": "avx2"},
        "csrc": "d",
    }
    row = {"case": "c", "name": "peer", "note": "float32", "median_ms": 1234.5, "best_ms": 0.01234, "cpu_ms": 99.96}
    row |= {"ratio": 1.005, "cpu_ratio": 2, "error": 3e-7}
    (tmp_path / "x.t2.json").write_text(json.dumps({"machine": machine, "rounds": 3, "rows": [row]}))
    (tmp_path / "power.json").write_text(json.dumps({"machine": {}}))
    shown = run.page(f"before\n{run.BEGIN}\nold\n{run.END}\nafter\n", tmp_path)
    assert "**x, 2 threads.** a processor, avx2, torch 2, 3 rounds, load 0.5 at the start, csrc d." in shown
    assert "| c | peer (float32) | 1234 | 0.0123 | 100 | 1 | 2 | 3.0e-07 |" in shown
    assert "old" not in shown
    assert shown.startswith("before\n")
    assert shown.endswith("after\n")
