"""Whatever a plugin's computation does, the other results are those of an audit without it, and it is named."""

from __future__ import annotations

import functools
import json
import mmap
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from audit_sets import write_sets

import medtrust
from medtrust import guarding
from medtrust.errors import ConfigError
from medtrust.guarding import OvertimeError, TamperingError, account, guarded, shared_functions
from medtrust.host import build_host

Install = Callable[..., list[str]]
OTHERS = ("kid", "intensity", "medtrust/prdc")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_sets(tmp_path_factory.mktemp("sets"), seed=3, patients=12, synthetic=24)


@pytest.fixture(scope="module")
def alone(sets: dict[str, Path]) -> list[dict]:
    """What the other metrics answer when nobody misbehaves."""
    return medtrust.audit(**sets, metrics=OTHERS).to_dict()["results"]


@pytest.mark.parametrize(
    ("name", "status", "error"),
    [
        ("prints", "ok", ""),
        ("mutates", "ok", ""),
        ("patches", "error", "TamperingError: it replaced numpy.random.default_rng, random.random, torch.manual_seed"),
        ("disturbs", "ok", ""),
        ("hangs", "error", "OvertimeError: took longer than 0.5 s (--metric-timeout)"),
        ("stubborn", "error", "OvertimeError: took longer than 0.5 s (--metric-timeout)"),
        ("exits", "error", "SystemExit: 0"),
        ("escapes", "error", "BaseException: no Exception at all"),
    ],
)
def test_others_answer_the_same(name, status, error, sets, alone, install: Install, capfd) -> None:
    """Prints, mutation, patches, hanging, leaving: the other rows are identical and the culprit is named."""
    install("misbehaves")
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), Path.cwd()
    functions = {key: one for key, (_, _, one) in shared_functions().items()}
    timeout = 0.5 if "Overtime" in error else None
    report = medtrust.audit(**sets, metrics=(f"misbehaves/{name}", *OTHERS), metric_timeout=timeout)
    row = report[f"fidelity.{name}"]
    others = [one for one in report.to_dict()["results"] if one["id"] != row.id]
    assert others == alone
    assert row.status == status
    assert capfd.readouterr().out == ""
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert (random.getstate(), Path.cwd()) == states[2:]
    assert {key: one for key, (_, _, one) in shared_functions().items()} == functions
    assert torch.get_default_dtype() == torch.float32
    if error:
        (failure,) = report.plugin_failures
        assert (failure.plugin, failure.distribution, failure.stage) == ("misbehaves", "misbehaves 1.0", "run")
        shown = set(error.replace("it replaced ", "").split(", ")) if "replaced" in error else {error}
        assert all(part.removeprefix("TamperingError: ") in failure.error for part in shown)
        assert failure.remedy
    else:
        assert report.plugin_failures == ()


def test_what_fails_at_exit_is_named_and_changes_no_exit_code(sets, install: Install, dists, tmp_path, monkeypatch):
    """A trap set at import and one set while computing: both are named, and the exit code is the verdict's."""
    paths = ":".join(str(dists / case) for case in ("misbehaves", "fails_at_exit"))
    words = [part for name, path in sets.items() for part in (f"--{name}", str(path))]
    command = [sys.executable, "-m", "medtrust", "audit", *words, "--metrics", "leavesatrap", "--out", str(tmp_path)]
    monkeypatch.setenv("PYTHONPATH", paths)
    ended = subprocess.run([*command, "--quiet"], capture_output=True, text=True, check=False)
    assert ended.returncode == json.loads((tmp_path / "report.json").read_bytes())["exit_code"]
    for name in ("misbehaves of misbehaves 1.0", "fails_at_exit of fails-at-exit 1.0"):
        assert f"plugin {name} failed at exit: SystemExit: 9" in ended.stderr


def test_a_limit_is_a_limit_and_no_more() -> None:
    """What is quick enough is left alone; what is late is told how late; the signal handler is put back."""
    import signal

    before = signal.getsignal(signal.SIGALRM)
    with guarded(30.0):
        assert sum(range(1000)) == 499500
    began = time.perf_counter()
    with pytest.raises(OvertimeError, match=r"longer than 0.2 s"), guarded(0.2):
        time.sleep(20)
    assert time.perf_counter() - began < 10
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_limit_is_refused_where_none_can_be_kept(sets) -> None:
    """In another thread there is no timer: that is an error at once, not a limit that does nothing."""
    caught: list[BaseException] = []

    def run() -> None:
        try:
            medtrust.audit(**sets, metrics="kid", metric_timeout=5)
        except ConfigError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert "main thread" in str(caught[0])


def test_native_code_that_hangs_ends_the_process_by_name(capsys) -> None:
    """Nothing inside a process can stop native code: the last resort says whose it is and leaves with 70."""
    codes: list[int] = []
    guarding._give_up(5, "d/hangs of d 1.0", codes.append)
    assert codes == [70]
    assert "d/hangs of d 1.0 took longer than 5 s and cannot be interrupted" in capsys.readouterr().err


def test_functions_are_put_back_even_when_the_body_raises() -> None:
    """The body's own error is the one that is told."""
    original = torch.randn

    def vandal() -> None:
        torch.randn = None  # type: ignore[assignment]
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"), guarded():
        vandal()
    assert torch.randn is original
    with pytest.raises(TamperingError, match=r"torch\.randn"), guarded():
        torch.randn = None  # type: ignore[assignment]
    assert torch.randn is original


def test_a_library_may_wrap_its_own_function() -> None:
    """What still calls the function that was there is left: torch wraps `manual_seed` when its compiler is imported."""
    original = torch.manual_seed

    @functools.wraps(original)
    def wrapped(seed):
        return original(seed)

    try:
        with guarded():
            torch.manual_seed = wrapped
        assert torch.manual_seed is wrapped
    finally:
        torch.manual_seed = original


def test_the_trace_shows_what_a_computation_took(sets, capsys) -> None:
    """MEDTRUST_TRACE prints a line per metric with milliseconds, distribution and memory."""
    medtrust.audit(**sets, metrics="kid", host=build_host(trace=True))
    told = [line for line in capsys.readouterr().err.splitlines() if "compute fidelity.kid[radiomics]" in line]
    assert len(told) == 1
    assert re.search(r"\d+\.\d\d ms  fidelity \(medtrust .*ok, memory rose by [\d.]+ MiB", told[0])


def test_memory_and_time_are_told_by_distribution(sets, tmp_path) -> None:
    """run.json says what each distribution took; a computation that keeps memory is seen to."""
    medtrust.audit(**sets, metrics=("kid", "intensity"), out=tmp_path)
    run = json.loads((tmp_path / "run.json").read_bytes())
    (label,) = run["plugins"]
    assert label.startswith("medtrust ")
    assert run["plugins"][label]["seconds"] > 0
    assert set(run["memory"]) == set(run["seconds"]["metrics"])
    kept = []
    with guarded() as used:
        kept.append(mmap.mmap(-1, 64 * 2**20))  # fresh pages: the heap may hold freed ones that count already
        np.frombuffer(kept[0], np.uint8)[:] = 1
    assert used.peak_mib > 50
    assert used.kept_mib > 50
    told = account([("b 1", "y"), ("a 1", "x"), ("a 1", "z")], {"x": 1.0, "y": 5.0, "z": 1.5}, {"x": used})
    assert [(name, row["seconds"]) for name, row in told.items()] == [("b 1", 5.0), ("a 1", 2.5)]
    assert told["a 1"]["kept_mib"] == used.kept_mib
