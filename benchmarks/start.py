"""What it costs to start: `medtrust --help` and `medtrust plugins list` against the bare interpreter.

Run: python benchmarks/start.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 9
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "medtrust --help": [sys.executable, "-m", "medtrust", "--help"],
    "medtrust plugins list": [sys.executable, "-m", "medtrust", "plugins", "list"],
}


def main() -> None:
    spent: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True)
            spent[name].append(time.perf_counter() - began)
    bare = statistics.median(spent["python -c pass"])
    for name, seconds in spent.items():
        median = statistics.median(seconds)
        print(f"{name:<24} {median:.3f} s median of {ROUNDS}, {median / bare:.1f} x the bare interpreter")


if __name__ == "__main__":
    main()
