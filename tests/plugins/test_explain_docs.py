"""The code of docs/explain.md runs, and its tables are those of the result file."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explain.md").read_text()


def test_the_pages_code_runs():
    """Any scalar of any network, and the Fréchet map."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, "explain.md", "exec"), names)
    assert names["maps"].shape == names["where"].shape == (60, 16, 16)


def test_the_pages_tables_are_the_result_files():
    """Write them with `python benchmarks/explain.py --tables`."""
    result = ROOT / "benchmarks" / "results" / "explain.json"
    if not result.exists():
        pytest.skip("benchmarks/results/explain.json is not there yet")
    spec = importlib.util.spec_from_file_location("benchmarks_explain", ROOT / "benchmarks" / "explain.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shown = PAGE.split("<!-- explain: begin -->\n")[1].split("<!-- explain: end -->")[0]
    assert shown == module.tables(json.loads(result.read_text()))
