"""Open a StyleGAN pickle: it brings code by design, so an allow-list keeps it to the code that it is known to bring."""

from __future__ import annotations

import importlib
import pickle
import re
from pathlib import Path
from typing import Any

from medtrust.errors import DataError, SafetyError
from medtrust_adapters.pickles import TENSOR_GLOBALS

__all__ = ["load_stylegan"]

_ALLOWED = (
    *TENSOR_GLOBALS,
    r"torch_utils\.persistence _reconstruct_persistent_obj",
    r"dnnlib(\.util)? EasyDict",
    r"torch\.storage _load_from_bytes",
    r"numpy(\._?core\.(multiarray|numeric))? (_reconstruct|ndarray|dtype|scalar|_frombuffer)",
    r"_codecs encode",
    r"builtins (set|frozenset|slice|complex|bytearray)",
)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if not any(re.fullmatch(pattern, f"{module} {name}") for pattern in _ALLOWED):
            raise SafetyError(f"the pickle would import {module}.{name}, which no StyleGAN pickle needs")
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _load_tensors
        found = importlib.import_module(module)
        return getattr(found, name)


def _load_tensors(content: bytes) -> Any:
    import io

    import torch

    return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")


def load_stylegan(path: str | Path) -> Any:
    """Unpickle the generator.

    Args:
        path: A .pkl with the entry `G_ema`, as the official repositories write.

    Raises:
        SafetyError: It would import something that no such pickle needs.
        DataError: There is no `G_ema`.
    """
    with Path(path).open("rb") as stream:
        found = _Unpickler(stream).load()
    if not isinstance(found, dict) or "G_ema" not in found:
        raise DataError(f"{path} holds no G_ema; give a pickle of StyleGAN2-ADA or StyleGAN3")
    return found["G_ema"]
