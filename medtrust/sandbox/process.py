"""A process of its own for artefacts that are more than numbers; arrays travel as bytes, never as a pickle."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import selectors
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from medtrust.errors import DataError, SafetyError

__all__ = ["Limits", "Sandbox"]

_MEDTRUST = Path(__file__).resolve().parents[1]
_LINE = 64 * 1024
_MOST = 2 * 1024**3  # bytes of one answer
_SAID = 4000  # bytes that are kept of what it prints
_KINDS = re.compile(r"[<|][fiu][1248]")
_AXES = {2: "[N, d]", 4: "[N, C, H, W]"}
# packages are found before the doors are shut: afterwards the folders that hold them cannot be listed
_BOOT = """
import importlib, sys
packages, homes = sys.argv[1].split(","), sys.argv[2:]
sys.path += homes
for package in packages:
    importlib.import_module(package)
from medtrust.sandbox.worker import main
main()
"""
_SYSTEM = (
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/dev/urandom",
    "/sys/devices/system/cpu",
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the process may use.

    Args:
        memory_gb: Address space; torch alone maps several GB that it never touches.
        cpu_s: Processor seconds of its whole life.
        wall_s: Seconds that one answer may take.
        file_mb: Size of one file that it writes; 0 forbids every byte.
        open_files: Files open at once.
    """

    memory_gb: float = 16
    cpu_s: int = 7200
    wall_s: float = 900
    file_mb: int = 2048
    open_files: int = 256

    def as_worker(self) -> dict[str, int]:
        """The limits as the worker is told them, in bytes and seconds."""
        memory, file = int(self.memory_gb * 1024**3), self.file_mb * 1024**2
        return {"memory": memory, "cpu": self.cpu_s, "file": file, "files": self.open_files}


class Sandbox:
    """One confined process that holds one opened artefact.

    Args:
        openers: "module:NAME" of a mapping from kind to a callable, which the process imports after it was confined. It
            gets `config` and returns a model with `facts` (JSON) and `run(**request)`, which answers with numbers.
        kind: Which of them opens the artefact.
        name: What to call the artefact in messages.
        config: Handed to the opener, as JSON.
        readable: Files and folders that it may read beside Python's own.
        packages: Packages that the openers import, beside `medtrust` and what lies in site-packages.
        limits: What it may use.
        advice: What to do where it failed or ran into a limit; ends those sentences.
        threads: Threads it may compute with; as many as the caller was told by its environment when not given.

    Raises:
        SafetyError: This system cannot confine a process, or the artefact is unsafe.
        DataError: The artefact cannot be opened, or the process ended before it was.
    """

    def __init__(
        self,
        openers: str,
        kind: str,
        name: str,
        config: Mapping[str, Any],
        readable: Sequence[Path],
        packages: Sequence[ModuleType],
        limits: Limits | None = None,
        *,
        advice: str,
        threads: int | None = None,
    ) -> None:
        if sys.platform == "win32":
            raise SafetyError(f"{name} is a program, and Windows offers no limits to run it under; use an ONNX file")
        self.name, self._limits, self._advice = name, limits or Limits(), advice
        places = [_MEDTRUST, *(Path(place).resolve() for package in packages for place in package.__path__)]
        self._scratch = tempfile.TemporaryDirectory(prefix="medtrust-", ignore_cleanup_errors=True)
        self._folder = Path(self._scratch.name).resolve()
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self._folder), "TMPDIR": str(self._folder)}
        environment |= {
            key: os.environ[key] for key in ("LANG", "OMP_NUM_THREADS", "LD_LIBRARY_PATH") if key in os.environ
        }
        if threads is not None:
            environment["OMP_NUM_THREADS"] = str(threads)
        names = ",".join(["medtrust", *(package.__name__ for package in packages)])
        homes = sorted({str(place.parent) for place in places})  # an isolated interpreter looks at site-packages alone
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own module
            [sys.executable, "-I", "-c", _BOOT, names, *homes],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, cwd=self._folder,
            env=environment, start_new_session=True,
        )  # fmt: skip
        self._finalizer = weakref.finalize(self, _end, self._process, self._scratch)
        assert self._process.stdin is not None
        assert self._process.stderr is not None
        os.set_blocking(self._process.stdin.fileno(), False)  # it may never read what it is sent
        self._said = bytearray()
        self._listener = threading.Thread(target=_listen, args=(self._process.stderr, self._said), daemon=True)
        self._listener.start()
        self._pending = bytearray()
        setup = {
            "openers": openers,
            "kind": kind,
            "config": dict(config),
            "readable": [str(Path(p).resolve()) for p in readable]
            + _python_places()
            + [str(place) for place in places],
            "scratch": str(self._folder),
            "limits": self._limits.as_worker(),
        }
        self.confinement = {key: str(value) for key, value in self._told(setup, "confined").items()}
        self.facts = self._told({"open": True}, "facts")

    def run(
        self,
        request: Mapping[str, Any],
        given: npt.NDArray[Any] | None = None,
        *,
        axes: Sequence[int] = (4,),
        shape: Sequence[int] | None = None,
        seconds: float | None = None,
    ) -> npt.NDArray[Any]:
        """Have the model answer with an array.

        Args:
            request: Keywords of the model's `run`, as JSON.
            given: Numbers that it gets as the keyword `given`.
            axes: How many axes the answer may have.
            shape: The shape that must come back; any when not given.
            seconds: Longest time; `Limits.wall_s` when not given.

        Returns:
            Whole or floating-point numbers, little-endian; not necessarily finite.

        Raises:
            DataError: The model failed or ran into a limit, or what came back is not that.
        """
        ends = time.monotonic() + (self._limits.wall_s if seconds is None else seconds)
        content = b""
        told: dict[str, Any] | None = None
        if given is not None:
            array = np.ascontiguousarray(given, given.dtype.newbyteorder("<"))
            told, content = {"dtype": array.dtype.str, "shape": list(array.shape)}, array.tobytes()
        answer = self._ask({"request": dict(request), "given": told}, content, seconds)
        dtype, found = _announced(answer, self.name, axes, shape)
        size = math.prod(found) * dtype.itemsize
        self._fill(size, ends, seconds)
        taken, self._pending = self._pending[:size], self._pending[size:]
        return np.frombuffer(bytes(taken), dtype).reshape(found)

    def close(self) -> None:
        """End the process and remove what it wrote."""
        self._finalizer()

    def _told(self, message: Mapping[str, Any], what: str) -> dict[str, Any]:
        found = self._ask(message).get(what)
        if not isinstance(found, dict):
            self.close()
            raise DataError(f"{self.name} answered something else when its {what} were asked for")
        return found

    def _ask(self, message: Mapping[str, Any], content: bytes = b"", seconds: float | None = None) -> dict[str, Any]:
        ends = time.monotonic() + (self._limits.wall_s if seconds is None else seconds)
        self._send(json.dumps(message).encode() + b"\n" + content, ends, seconds)
        while b"\n" not in self._pending:
            if len(self._pending) > _LINE:
                self.close()
                raise DataError(f"{self.name} answered with more than {_LINE} bytes where one line was expected")
            self._fill(len(self._pending) + 1, ends, seconds)
        line, _, rest = self._pending.partition(b"\n")
        self._pending = bytearray(rest)
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError) as error:
            self.close()
            raise DataError(f"{self.name} answered with what is not JSON ({type(error).__name__})") from error
        if not isinstance(answer, dict) or "error" in answer:
            text = str(answer.get("error") if isinstance(answer, dict) else answer)[:1000]
            kind = SafetyError if isinstance(answer, dict) and answer.get("unsafe") else DataError
            raise kind(f"{self.name} failed in its own process: {text}")
        return answer

    def _send(self, content: bytes, ends: float, seconds: float | None) -> None:
        pipe, left = self._process.stdin, memoryview(content)
        assert pipe is not None
        if pipe.closed:
            raise self._ended()
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_WRITE)
            while left:
                if not selector.select(max(ends - time.monotonic(), 0)):
                    raise self._late(seconds)
                try:
                    left = left[os.write(pipe.fileno(), left) :]
                except BrokenPipeError:
                    raise self._ended() from None

    def _fill(self, size: int, ends: float, seconds: float | None) -> None:
        """Read until `size` bytes are pending, in bounded time."""
        pipe = self._process.stdout
        assert pipe is not None
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while len(self._pending) < size:
                if not selector.select(max(ends - time.monotonic(), 0)):
                    raise self._late(seconds)
                block = os.read(pipe.fileno(), 1 << 20)
                if not block:
                    raise self._ended()
                self._pending += block

    def _late(self, seconds: float | None) -> DataError:
        self.close()
        limit = self._limits.wall_s if seconds is None else seconds
        return DataError(f"{self.name} gave no answer within {limit:g} s and was ended; {self._advice}")

    def _ended(self) -> DataError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self.close()
        self._listener.join(5)
        lines = bytes(self._said).decode("utf-8", "replace").strip().splitlines()
        why = ": " + "".join(c if c.isprintable() else " " for c in lines[-1])[:500] if lines else ""
        code = self._process.returncode
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        return DataError(f"{self.name}: its process {how}{why}; {self._advice}")


def _announced(
    answer: Mapping[str, Any], name: str, axes: Sequence[int], shape: Sequence[int] | None
) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Check what a stranger says is coming before a byte of it is read."""
    told = answer.get("array")
    told = told if isinstance(told, dict) else {}
    kind, stated = str(told.get("dtype")), told.get("shape")
    sides = stated if isinstance(stated, list) else []
    found = tuple(side for side in sides if type(side) is int and 0 <= side < 2**40)
    asked = len(found) in axes if shape is None else found == tuple(shape)
    if not _KINDS.fullmatch(kind) or len(found) != len(sides) or not asked:
        wanted = list(shape) if shape is not None else " or ".join(_AXES.get(n, f"{n} axes") for n in axes)
        raise DataError(f"{name} returned {kind[:20]} {str(stated)[:100]} where numbers {wanted} were asked for")
    dtype = np.dtype(kind)
    if math.prod(found) * dtype.itemsize > _MOST:
        raise DataError(f"{name} returned {kind} {list(found)}, more than {_MOST >> 30} GiB at once")
    return dtype, found


def _python_places() -> list[str]:
    paths = {sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), *_SYSTEM}
    # an editable install keeps its packages elsewhere; of the current folder only these are meant
    paths |= {str(Path(p).resolve()) for p in sys.path if p and Path(p).name in ("site-packages", "dist-packages")}
    return sorted(paths)


def _listen(stream: IO[bytes], said: bytearray) -> None:
    """Keep the end of what the process prints, however much that is."""
    with contextlib.suppress(OSError, ValueError), stream:
        while block := stream.read(65536):
            said += block
            del said[:-_SAID]


def _end(process: subprocess.Popen[bytes], scratch: tempfile.TemporaryDirectory[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()
    for pipe in (process.stdin, process.stdout):  # what it said on its error stream may still be read
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    scratch.cleanup()
