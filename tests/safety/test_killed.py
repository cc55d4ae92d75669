"""A killed audit leaves the old report or none, and the next run finishes with the same bytes."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from audit_sets import write_sets

from medtrust.report import verify

NAMES = ("report.json", "report.html")


def command(sets: dict[str, Path], out: Path, cache: Path) -> list[str]:
    words = [word for name, path in sets.items() for word in (f"--{name}", str(path))]
    options = ["--out", str(out), "--cache", str(cache), "--metrics", "fd,duplicates", "--quiet"]
    return [sys.executable, "-m", "medtrust", "audit", *words, *options, "--evidence", "full"]


def kill_and_go_on(root: Path, kills: int, seed: int) -> None:
    """Kill an audit at random moments; after each, check what is left and let the next run finish."""
    rng = random.Random(seed)
    sets = write_sets(root / "sets", seed=6, patients=20, synthetic=30)
    out, cache = root / "out", root / "cache"
    began = time.monotonic()
    first = subprocess.run(command(sets, out, cache), capture_output=True, check=False)
    whole = time.monotonic() - began
    assert first.returncode in (0, 1, 3), first.stderr
    expected = {name: (out / name).read_bytes() for name in NAMES}
    struck = 0
    for turn in range(kills):
        fresh = turn % 2 == 0  # every other time nothing is left of the run before
        if fresh:
            shutil.rmtree(out)
            shutil.rmtree(cache)
        process = subprocess.Popen(command(sets, out, cache), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0, whole))
        process.send_signal(signal.SIGKILL)
        struck += process.wait() == -signal.SIGKILL
        for name in NAMES:
            if (out / name).exists():
                assert (out / name).read_bytes() == expected[name]
            else:
                assert fresh
        done = subprocess.run(command(sets, out, cache), capture_output=True, check=False)
        assert done.returncode == first.returncode, done.stderr
        assert {name: (out / name).read_bytes() for name in NAMES} == expected
        verify((out / "report.json").read_bytes())
        json.loads((out / "run.json").read_bytes())
    assert struck >= kills // 3, "most kills came too late to hit a running audit"


def test_a_killed_audit_is_finished_by_the_next(tmp_path):
    """Two random moments: once with nothing left of an earlier run, once beside its report."""
    kill_and_go_on(tmp_path, 2, seed=1)


@pytest.mark.slow
def test_an_audit_killed_fifty_times_is_finished_by_the_next(tmp_path):
    """Fifty random moments, half of them with nothing left of an earlier run."""
    kill_and_go_on(tmp_path, 50, seed=2)
