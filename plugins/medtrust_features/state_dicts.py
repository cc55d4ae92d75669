"""Reading a state dict as data: safetensors, or torch's restricted unpickler where it is safe."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from medtrust.errors import DataError, SafetyError

__all__ = ["fill", "is_safetensors", "is_torchscript", "read_state_dict"]

_SAFE_UNPICKLER = (2, 10)  # earlier releases of torch have known holes in weights_only


def is_torchscript(path: Path) -> bool:
    """Say whether a file is a TorchScript archive, which is a program."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name or name.endswith("/constants.pkl") for name in archive.namelist())


def is_safetensors(path: Path) -> bool:
    """Say whether a file starts like safetensors."""
    with path.open("rb") as stream:
        start = stream.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size - 8


def read_state_dict(path: Path, *, trusted: bool = False) -> dict[str, torch.Tensor]:
    """Read tensors by name; nothing in the file is run.

    Args:
        path: The file; its content decides what it is, not its name.
        trusted: Its digest is one that is pinned, so any release of torch may unpickle it.

    Raises:
        DataError: It is no state dict.
        SafetyError: This torch cannot unpickle it safely.
    """
    if is_safetensors(path):
        try:
            return load_file(path)
        except SafetensorError as error:
            raise DataError(f"{path} is not a readable safetensors file ({error}); fetch it again") from error
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if not trusted and version < _SAFE_UNPICKLER:
        raise SafetyError(
            f"{path} is a pickled state dict of unknown origin and torch {torch.__version__} cannot read it safely; "
            "install torch 2.10 or later, or convert it to safetensors"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        first = str(error).strip().partition("\n")[0]
        raise DataError(
            f"{path} is no state dict that can be read without running code ({first}); give a plain state dict, "
            "or safetensors"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise DataError(f"{path} does not hold a state dict; save `network.state_dict()` and give that file")
    return state


def fill(network: torch.nn.Module, state: dict[str, torch.Tensor], path: Path, what: str, remedy: str) -> None:
    """Load a state dict, whole and nothing else, into a network.

    Args:
        network: To fill.
        state: Tensors by name.
        path: Where they come from, for the error.
        what: What the file should have been, such as "pytorch-fid's Inception".
        remedy: What to give instead.

    Raises:
        DataError: Names or shapes do not fit.
    """
    expected = network.state_dict()
    optional = {name for name in expected if name.endswith("num_batches_tracked")}  # old files lack these counters
    missing, extra = sorted(set(expected) - set(state) - optional), sorted(set(state) - set(expected))
    shapes = sorted(name for name in set(state) & set(expected) if state[name].shape != expected[name].shape)
    if missing or extra or shapes:
        example = (missing or extra or shapes)[0]
        raise DataError(
            f"{path} is not {what} ({len(missing)} tensors missing, {len(extra)} unknown, "
            f"{len(shapes)} of another shape, such as {example}); {remedy}"
        )
    network.load_state_dict(state, strict=False)
