"""Runs a network that is a program (TorchScript, pt2) in a process of its own, which may compute and nothing else.

The process gets no environment but what Python needs. Before the file is opened it loses the network (a namespace
without interfaces, where the kernel grants one), may write no file, and take no more memory than it was allotted.
Tensors travel over its standard streams as raw float32. What a hostile program could still do is read files that the
user can read; it can return what it read as features only.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from medtrust.errors import DataError, SafetyError

__all__ = ["Sandboxed", "kind_of"]

MEMORY = 8 * 1024**3  # bytes beyond what torch itself takes
SECONDS = 600.0  # for one batch
MOST = 1024**3  # bytes of one answer
_HEADER = struct.Struct("<4q")
# Leaves the network before torch is imported, since a process with threads may not change its namespaces: flags are
# CLONE_NEWNET, and CLONE_NEWUSER where the user is not root.
_LAUNCH = """
import ctypes, os, runpy, sys
if sys.platform == "linux":
    unshare = ctypes.CDLL(None, use_errno=True).unshare
    if unshare(0x40000000) and unshare(0x50000000):
        print("no network namespace to be had", file=sys.stderr)
runpy.run_module("medtrust_features.sandbox", run_name="__main__", alter_sys=True)
"""


def kind_of(path: Path) -> str:
    """torchscript, pt2 or "" by what an archive holds."""
    import zipfile

    if not zipfile.is_zipfile(path):
        return ""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in names):
        return "pt2"
    if any("/code/" in name or name.endswith("/constants.pkl") for name in names):
        return "torchscript"
    return ""


class Sandboxed:
    """A network in a process of its own: call it with [N, C, H, W] float32.

    Args:
        path: TorchScript or pt2 file.
        kind: torchscript or pt2.
        output: Which output to return.
        memory: Bytes it may take beyond what torch takes.
        seconds: Longest time for one batch.

    Raises:
        SafetyError: This system cannot confine a process.
        DataError: The file cannot be loaded within the limits.
    """

    def __init__(
        self, path: Path, kind: str, *, output: int = 0, memory: int = MEMORY, seconds: float = SECONDS
    ) -> None:
        if sys.platform == "win32":
            raise SafetyError(f"{path} is a program, and Windows offers no limits to run it under; export it to ONNX")
        self.path, self.seconds = path, seconds
        keep = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "SYSTEMROOT", "VIRTUAL_ENV")
        environment = {name: os.environ[name] for name in keep if name in os.environ}
        self._scratch = tempfile.TemporaryDirectory(prefix="medtrust-")  # torch.export wants to make folders somewhere
        environment["TMPDIR"] = self._scratch.name
        environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())
        command = [
            sys.executable,
            "-m",
            "medtrust_features.sandbox",
            str(path.resolve()),
            kind,
            str(output),
            str(memory),
        ]
        self._process = subprocess.Popen(  # noqa: S603, our own interpreter and module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
        )  # fmt: skip
        self._close = weakref.finalize(self, _end, self._process)
        self._receive()  # the process says that the network is loaded

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Run one batch.

        Raises:
            DataError: The program failed, overstepped a limit, or returned something other than a float tensor.
        """
        array = np.ascontiguousarray(images.cpu().numpy(), dtype="<f4")
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(_HEADER.pack(*array.shape))
            self._process.stdin.write(array.tobytes())
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._failure("it ended") from error
        return self._receive()

    def close(self) -> None:
        """End the process."""
        self._close()

    def _receive(self) -> torch.Tensor:
        deadline = time.monotonic() + self.seconds
        shape = _HEADER.unpack(self._read(_HEADER.size, deadline))
        size = int(np.prod([max(0, side) for side in shape], dtype=np.float64)) * 4
        if min(shape) < 0 or size > MOST:
            raise self._failure(f"it returned a tensor of shape {list(shape)}")
        raw = self._read(size, deadline)
        array = np.frombuffer(raw, dtype="<f4").reshape(shape).astype(np.float32)
        return torch.from_numpy(array)

    def _read(self, size: int, deadline: float) -> bytes:
        stream = self._process.stdout
        assert stream is not None
        parts, left = [], size
        while left:
            ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self.close()
                raise self._failure(f"it gave no answer within {self.seconds:g} s")
            block = os.read(stream.fileno(), min(left, 1 << 20))
            if not block:
                raise self._failure("it ended")
            parts.append(block)
            left -= len(block)
        return b"".join(parts)

    def _failure(self, what: str) -> DataError:
        self.close()
        assert self._process.stderr is not None
        said = b"" if self._process.stderr.closed else self._process.stderr.read()  # it has ended, so this ends too
        lines = said[-4000:].decode("utf-8", "replace").strip().splitlines()
        reason = "".join(c if c.isprintable() else " " for c in lines[-1]) if lines else "it left no message"
        return DataError(
            f"{self.path}: the network could not be run in its confined process: {what} ({reason[:300]}); "
            "check its card, or export it to ONNX"
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):  # what it said on its error stream may still be read
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _confine(memory: int) -> None:
    """Give up files and memory for good; the hard limits cannot be raised again."""
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a forbidden write is an error that can be told, not a silent end
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    held = pages * resource.getpagesize()
    if held:
        resource.setrlimit(resource.RLIMIT_AS, (held + memory, held + memory))
    for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(limit, (0, 0))


def _answer(stream: IO[bytes], tensor: torch.Tensor) -> None:
    array = np.ascontiguousarray(tensor.detach().float().numpy(), dtype="<f4")
    shape = (*array.shape, *[1] * (4 - array.ndim))
    stream.write(_HEADER.pack(*shape))
    stream.write(array.tobytes())
    stream.flush()


def _load(path: str, kind: str) -> Any:
    if kind == "pt2":
        return torch.export.load(path).module()
    return torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]


def main() -> None:
    """The confined process: loads the network, then answers each batch."""
    path, kind, output, memory = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the program prints goes to the error stream
    torch.ones(64, 64) @ torch.ones(64, 64)  # starts the threads, which count as processes
    tempfile.tempdir = os.environ["TMPDIR"]  # found without the trial file that could no longer be written
    _confine(memory)
    network = _load(path, kind)
    with torch.no_grad():
        _answer(answers, torch.zeros(1))
        while header := sys.stdin.buffer.read(_HEADER.size):
            shape = _HEADER.unpack(header)
            raw = sys.stdin.buffer.read(int(np.prod(shape)) * 4)
            found = network(torch.from_numpy(np.frombuffer(raw, dtype="<f4").reshape(shape).astype(np.float32)))
            if isinstance(found, dict):
                found = list(found.values())
            if isinstance(found, tuple | list):
                found = found[output]
            if not isinstance(found, torch.Tensor) or found.ndim not in (2, 4):
                raise TypeError("the network must return a tensor [N, d] or [N, d, h, w]")
            _answer(answers, found)


if __name__ == "__main__":
    main()
