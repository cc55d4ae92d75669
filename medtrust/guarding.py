"""A guard around a plugin's computation: what it leaves behind is undone, a time limit is kept, memory is measured.

The limit interrupts Python code in the main thread. Code that does not come back from a native library cannot be
stopped inside its process: when it is late by `GRACE` seconds more, the process says whose code it was and exits
with 70.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtrust.errors import ConfigError

__all__ = [
    "GRACE",
    "OvertimeError",
    "TamperingError",
    "Usage",
    "account",
    "can_limit",
    "guarded",
    "put_back",
    "shared_functions",
]

GRACE = 30.0
_AGAIN = 1.0  # a plugin that swallows the interruption is interrupted again
_MIB = 1024**2


class TamperingError(RuntimeError):
    """A plugin replaced a function that everybody uses; it has been put back."""


class OvertimeError(Exception):
    """A plugin took longer than the limit."""


class _Interruption(BaseException):
    """Raised in a plugin's code when its time is over; no `except Exception` of the plugin swallows it."""


@dataclass(slots=True)
class Usage:
    """What a guarded computation took.

    Args:
        peak_mib: How far memory rose above where it began, MiB; 0 where the system does not say.
        kept_mib: How much more memory the process holds afterwards, MiB.
    """

    peak_mib: float = 0.0
    kept_mib: float = 0.0


def shared_functions() -> dict[str, tuple[Any, str, Any]]:
    """Functions whose replacement would change everybody's numbers: module, name and function by their full name."""
    import numpy as np
    import torch

    groups = (
        ("torch", torch, "manual_seed seed rand randn randint randperm normal bernoulli rand_like randn_like"),
        ("torch.random", torch.random, "manual_seed fork_rng get_rng_state set_rng_state"),
        ("numpy.random", np.random, "seed rand randn randint default_rng shuffle permutation get_state set_state"),
        ("random", random, "seed random shuffle choice sample getstate setstate"),
    )
    return {
        f"{where}.{name}": (module, name, getattr(module, name))
        for where, module, names in groups
        for name in names.split()
    }


def put_back(shared: Mapping[str, tuple[Any, str, Any]]) -> list[str]:
    """Undo replacements of shared functions; return which were replaced.

    A library may wrap its own function when imported late, as torch does with `manual_seed` for its compiler: what
    still calls the function that was there is no replacement.
    """
    replaced = []
    for name, (module, word, one) in shared.items():
        found = getattr(module, word, None)
        if found is not one and not _wraps(found, one):
            replaced.append(name)
            setattr(module, word, one)
    return replaced


def _wraps(found: Any, one: Any) -> bool:
    for _ in range(8):
        if found is one:
            return True
        found = getattr(found, "__wrapped__", None) or getattr(found, "_torchdynamo_orig_callable", None)
    return False


def can_limit() -> bool:
    """Whether a time limit can be kept here: on a system with interval timers, in the main thread."""
    return hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def guarded(limit: float | None = None, whose: str = "") -> Iterator[Usage]:
    """Run the body as a plugin's computation.

    Prints go to standard error. Random states, the number of threads, torch's default type and gradient mode, the
    environment, the current folder and the functions of `shared_functions` are put back, whatever the body does.

    Args:
        limit: Seconds that it may take; None for no limit.
        whose: Distribution with version and what of it is run, for the message of a process that has to end.

    Raises:
        TamperingError: The body replaced a shared function.
        OvertimeError: It took longer than the limit.
        ConfigError: A limit cannot be kept here.
    """
    import numpy as np
    import torch

    shared = shared_functions()
    python, numpy_state, threads = random.getstate(), np.random.get_state(), torch.get_num_threads()
    torch_state, dtype, gradients = torch.random.get_rng_state(), torch.get_default_dtype(), torch.is_grad_enabled()
    environment, folder = dict(os.environ), Path.cwd()
    usage, before = Usage(), _resident()
    _reset_peak()
    try:
        with contextlib.redirect_stdout(sys.stderr), _limited(limit, whose):
            yield usage
    finally:
        changed = put_back(shared)
        torch.random.set_rng_state(torch_state)
        random.setstate(python)
        np.random.set_state(numpy_state)
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(gradients)
        if dict(os.environ) != environment:
            os.environ.clear()
            os.environ.update(environment)
        os.chdir(folder)
        usage.peak_mib = round(max(0.0, _peak() - before), 1)
        usage.kept_mib = round(max(0.0, _resident() - before), 1)
    if changed:
        raise TamperingError(
            f"it replaced {', '.join(changed)}, which everybody's random numbers come from; they were put back"
        )


@contextlib.contextmanager
def _limited(limit: float | None, whose: str) -> Iterator[None]:
    if limit is None:
        yield
        return
    if not can_limit():
        raise ConfigError("a time limit can be kept in the main thread of a Unix process only; leave it out here")

    def interrupt(number: int, frame: Any) -> None:
        raise _Interruption

    over = threading.Timer(limit + GRACE, _give_up, (limit, whose))
    over.daemon = True
    before = signal.signal(signal.SIGALRM, interrupt)
    over.start()
    signal.setitimer(signal.ITIMER_REAL, limit, _AGAIN)
    late: BaseException | None = None
    try:
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _Interruption as interruption:
        late = interruption
    finally:
        over.cancel()
        signal.signal(signal.SIGALRM, before)
    if late is not None:
        raise OvertimeError(f"took longer than {limit:g} s (--metric-timeout)") from late


def _give_up(limit: float, whose: str, leave: Callable[[int], Any] = os._exit) -> None:
    print(
        f"medtrust: {whose} took longer than {limit:g} s and cannot be interrupted, because it hangs in native code; "
        f"the audit ends here, without a report. Leave it out with --metrics, or report it to its authors",
        file=sys.stderr,
        flush=True,
    )
    leave(70)


def account(
    jobs: Iterable[tuple[str, str]], seconds: Mapping[str, float], usage: Mapping[str, Usage]
) -> dict[str, Any]:
    """Sum up what each distribution's computations took, the longest first.

    Args:
        jobs: Distribution with version, and id of a computation.
        seconds: By id.
        usage: By id.
    """
    rows: dict[str, dict[str, float]] = {}
    for whose, job in jobs:
        row = rows.setdefault(whose, {"seconds": 0.0, "peak_mib": 0.0, "kept_mib": 0.0})
        used = usage.get(job, Usage())
        row["seconds"] = round(row["seconds"] + seconds.get(job, 0.0), 4)
        row["peak_mib"] = max(row["peak_mib"], used.peak_mib)
        row["kept_mib"] = round(row["kept_mib"] + used.kept_mib, 1)
    return dict(sorted(rows.items(), key=lambda item: (-item[1]["seconds"], item[0])))


def _resident() -> float:
    """Memory that the process holds, MiB; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / _MIB


def _reset_peak() -> None:
    with contextlib.suppress(OSError):  # not Linux, or not allowed: the peak is then that of the whole process
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0.0
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return float(line.split()[1]) / 1024
