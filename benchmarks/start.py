"""What it costs to start: `medtrust --help` and `plugins list`, alone and among 50 plugins, against bare Python.

Run: python benchmarks/start.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 9
PLUGINS = 50
PLUGIN = """from medtrust import MetricSpec, hookimpl


@hookimpl
def medtrust_metrics():
    yield MetricSpec(name="m{i}", version="1", factory="many_{i}.heavy:Metric", pillar="fidelity")
"""


def install_many(site: Path) -> None:
    """Lay out distributions as pip would; what their factories name raises when it is imported."""
    for i in range(PLUGINS):
        package, facts = site / f"many_{i}", site / f"many_{i}-1.0.dist-info"
        package.mkdir()
        facts.mkdir()
        (package / "__init__.py").write_text("")
        (package / "plugin.py").write_text(PLUGIN.format(i=i))
        (package / "heavy.py").write_text("raise SystemExit('imported, although nobody used it')\n")
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: many-{i}\nVersion: 1.0\n")
        (facts / "entry_points.txt").write_text(f"[medtrust]\nmany_{i} = many_{i}.plugin\n")


def main() -> None:
    with tempfile.TemporaryDirectory() as site:
        install_many(Path(site))
        listing = [sys.executable, "-m", "medtrust", "plugins", "list"]
        among = f"plugins list, {PLUGINS} more"
        commands = {
            "python -c pass": ([sys.executable, "-c", "pass"], ""),
            "medtrust --help": ([sys.executable, "-m", "medtrust", "--help"], ""),
            "medtrust plugins list": (listing, ""),
            among: (listing, site),
        }
        spent: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(ROUNDS):
            for name, (command, path) in commands.items():
                began = time.perf_counter()
                subprocess.run(command, capture_output=True, check=True, env={**os.environ, "PYTHONPATH": path})
                spent[name].append(time.perf_counter() - began)
    bare = statistics.median(spent["python -c pass"])
    for name, seconds in spent.items():
        median = statistics.median(seconds)
        print(f"{name:<24} {median:.3f} s median of {ROUNDS}, {median / bare:.1f} x the bare interpreter")


if __name__ == "__main__":
    main()
