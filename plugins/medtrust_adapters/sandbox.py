"""A process of its own for artefacts that are more than numbers; arrays come back as .npy, never as a pickle."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import sysconfig
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import medtrust
import medtrust_adapters
import medtrust_generators
from medtrust.errors import DataError, SafetyError

__all__ = ["Limits", "Sandbox"]

_LINE = 64 * 1024
_OURS = (medtrust, medtrust_adapters, medtrust_generators)
# our packages are found before the doors are shut: afterwards the folders that hold them cannot be listed
_BOOT = """
import sys
sys.path += sys.argv[1:]
import medtrust, medtrust_generators
from medtrust_adapters.worker import main
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
        file_mb: Size of one file that it writes.
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
        kind: What the worker shall open; a name of `worker_kinds`.
        name: What to call the artefact in messages.
        config: Handed to the worker's loader, as JSON.
        readable: Files and folders that it may read beside Python's own.
        limits: What it may use.

    Raises:
        DataError: The artefact cannot be opened, or the process ended before it was.
    """

    def __init__(
        self, kind: str, name: str, config: Mapping[str, Any], readable: Sequence[Path], limits: Limits | None = None
    ) -> None:
        self._name, self._limits = name, limits or Limits()
        self._scratch = tempfile.TemporaryDirectory(prefix="medtrust-", ignore_cleanup_errors=True)
        self._folder = Path(self._scratch.name).resolve()
        self._errors = (self._folder / "stderr").open("wb")
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self._folder), "TMPDIR": str(self._folder)}
        environment |= {
            key: os.environ[key] for key in ("LANG", "OMP_NUM_THREADS", "LD_LIBRARY_PATH") if key in os.environ
        }
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own module
            [sys.executable, "-I", "-c", _BOOT, *_homes()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, cwd=self._folder, env=environment,
            start_new_session=True,
        )  # fmt: skip
        self._finalizer = weakref.finalize(self, _end, self._process, self._scratch)
        self._pending = b""
        self._calls = 0
        setup = {
            "kind": kind,
            "config": dict(config),
            "readable": [str(Path(p).resolve()) for p in readable] + _python_places(),
            "scratch": str(self._folder),
            "limits": self._limits.as_worker(),
        }
        self.confinement: dict[str, str] = {str(k): str(v) for k, v in self._ask(setup)["confined"].items()}
        self.facts: dict[str, Any] = self._ask({"open": True})["facts"]

    def draw(self, request: Mapping[str, Any], shape: Sequence[int] | None) -> np.ndarray[Any, Any]:
        """Have images made.

        Args:
            request: What the worker's model is asked, as JSON: seeds, indices, condition.
            shape: [N, C, H, W] that must come back; None takes any with four axes.

        Returns:
            [N, C, H, W] float32, float64 or whole numbers; finite.

        Raises:
            DataError: The model failed or ran into a limit, or what came back is not that.
        """
        self._calls += 1
        path = self._folder / f"images-{self._calls}.npy"
        self._ask({"draw": dict(request), "to": path.name})
        try:
            return _read_array(path, shape, self._name)
        finally:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """End the process and remove what it wrote."""
        self._finalizer()

    def _ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None
        answer = json.loads(self._line())
        if not isinstance(answer, dict) or "error" in answer:
            text = str(answer.get("error") if isinstance(answer, dict) else answer)[:1000]
            kind = SafetyError if isinstance(answer, dict) and answer.get("unsafe") else DataError
            raise kind(f"{self._name} failed in its own process: {text}")
        return answer

    def _line(self) -> bytes:
        """Read one line of bounded length in bounded time."""
        assert self._process.stdout is not None
        ends = time.monotonic() + self._limits.wall_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                if len(self._pending) > _LINE:
                    self.close()
                    raise DataError(f"{self._name} answered with more than {_LINE} bytes where one line was expected")
                if not selector.select(max(ends - time.monotonic(), 0)):
                    self.close()
                    raise DataError(
                        f"{self._name} gave no answer within {self._limits.wall_s:g} s and was ended; "
                        "raise that with the option wall_s"
                    )
                block = os.read(self._process.stdout.fileno(), _LINE)
                if not block:
                    raise self._ended()
                self._pending += block
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _ended(self) -> DataError:
        code = self._process.wait(5)
        self._errors.close()
        with contextlib.suppress(OSError):
            tail = (self._folder / "stderr").read_bytes()[-2000:].decode("utf-8", "replace").strip().splitlines()
        why = f": {tail[-1][:500]}" if tail else ""
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        self.close()
        return DataError(
            f"{self._name}: its process {how}{why}; if it ran into a limit, raise it with the options "
            "memory_gb, cpu_s or file_mb"
        )


def _python_places() -> list[str]:
    paths = {sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), *_SYSTEM}
    # an editable install keeps its packages elsewhere; of the current folder only these are meant
    paths |= {str(Path(p).resolve()) for p in sys.path if p and Path(p).name in ("site-packages", "dist-packages")}
    paths |= {str(Path(p).resolve()) for package in _OURS for p in package.__path__}
    return sorted(paths)


def _homes() -> list[str]:
    """The folders that our packages lie in; an isolated interpreter looks at site-packages alone."""
    return sorted({str(Path(p).resolve().parent) for package in _OURS for p in package.__path__})


def _read_array(path: Path, shape: Sequence[int] | None, name: str) -> np.ndarray[Any, Any]:
    """Read a .npy whose header a stranger may have written: check it against the file before anything is allocated."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as stream:
            version = np.lib.format.read_magic(stream)
            if version != (1, 0):
                raise ValueError(f"version {version}")
            found, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
            count = int(np.prod(found, dtype=object))
            if dtype.kind not in "fiu" or fortran or len(found) != 4 or (shape is not None and found != tuple(shape)):
                wanted = list(shape) if shape is not None else "[N, C, H, W]"
                raise ValueError(f"{dtype} {list(found)} where numbers {wanted} were asked for")
            if os.fstat(stream.fileno()).st_size - stream.tell() != count * dtype.itemsize:
                raise ValueError("a header that does not fit the file")
            pixels = np.frombuffer(stream.read(), dtype).reshape(found)
    except (OSError, ValueError) as error:
        raise DataError(f"{name} returned no images: {error}") from error
    if not np.isfinite(pixels).all():
        raise DataError(f"{name} returned pixels that are not numbers (NaN or infinite)")
    return pixels


def _end(process: subprocess.Popen[bytes], scratch: tempfile.TemporaryDirectory[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    scratch.cleanup()
