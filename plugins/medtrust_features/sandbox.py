"""Networks that are programs (TorchScript, pt2): which file is one, and how it runs in `medtrust.sandbox`."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import medtrust_features
from medtrust.sandbox.process import Limits, Sandbox

__all__ = ["OPENERS", "Sandboxed", "kind_of"]

LIMITS = Limits(memory_gb=16, cpu_s=10**7, wall_s=600, file_mb=0)  # an answer needs no file


def kind_of(path: Path) -> str:
    """torchscript, pt2 or "" by what an archive holds."""
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
        limits: What the process may use.

    Raises:
        SafetyError: This system cannot confine a process.
        DataError: The file cannot be loaded within the limits.
    """

    def __init__(self, path: Path, kind: str, *, output: int = 0, limits: Limits = LIMITS) -> None:
        self.seconds = limits.wall_s
        self._sandbox = Sandbox(
            "medtrust_features.sandbox:OPENERS", kind, str(path), {"path": str(path.resolve()), "output": output},
            [path], [medtrust_features], limits,
            advice="check its card, or export it to ONNX", threads=torch.get_num_threads(),
        )  # fmt: skip
        self.confinement = self._sandbox.confinement

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Run one batch.

        Raises:
            DataError: The program failed, overstepped a limit, or returned something other than a float tensor.
        """
        given = images.cpu().numpy().astype(np.float32, copy=False)
        found = self._sandbox.run({}, given, axes=(2, 4), seconds=self.seconds)
        return torch.from_numpy(found.astype(np.float32))

    def close(self) -> None:
        """End the process."""
        self._sandbox.close()


class _Network:
    """What the confined process holds."""

    facts: Mapping[str, Any] = {}

    def __init__(self, network: Callable[[torch.Tensor], Any], output: int) -> None:
        self._network, self._output = network, output

    def run(self, given: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            found = self._network(torch.from_numpy(given.copy()))
        if isinstance(found, dict):
            found = list(found.values())
        if isinstance(found, tuple | list):
            found = found[self._output]
        if not isinstance(found, torch.Tensor) or found.ndim not in (2, 4):
            raise TypeError("the network must return a tensor [N, d] or [N, d, h, w]")
        array: npt.NDArray[np.float32] = found.detach().float().numpy()
        return array


def _torchscript(config: Mapping[str, Any]) -> _Network:
    return _Network(torch.jit.load(config["path"], map_location="cpu").eval(), config["output"])  # type: ignore[no-untyped-call]


def _pt2(config: Mapping[str, Any]) -> _Network:
    return _Network(torch.export.load(config["path"]).module(), config["output"])


OPENERS = {"torchscript": _torchscript, "pt2": _pt2}
