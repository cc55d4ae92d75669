"""Fifty installed plugins: listing them imports what registers, and nothing that computes."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

START = Path(__file__).parents[2] / "benchmarks" / "start.py"
CODE = """
import json, sys
from medtrust.host import build_host
host = build_host()
heavy = sorted(name for name in sys.modules if name.startswith("many_") and name.endswith(".heavy"))
print(json.dumps({
    "listed": len([c for c in host.contributions("metric") if c.full_name.startswith("many-")]),
    "failures": len(host.failures), "heavy": heavy,
    "libraries": [name for name in ("torch", "numpy", "scipy") if name in sys.modules],
}))
"""


def test_fifty_plugins_are_listed_without_importing_what_they_compute(tmp_path: Path) -> None:
    """Their factories raise when imported; none is, and neither is torch or numpy."""
    spec = importlib.util.spec_from_file_location("benchmarks_start", START)
    start = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(start)
    start.install_many(tmp_path)
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    told = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, check=True).stdout
    assert json.loads(told) == {"listed": start.PLUGINS, "failures": 0, "heavy": [], "libraries": []}
