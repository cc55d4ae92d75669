"""The only importer of the compiled extension; importing this module never fails and needs no torch."""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any

from medtrust.errors import NativeError

__all__ = ["ABI", "absence", "extension", "info", "kernels", "warn_slower"]

ABI = 12  # the same number as in csrc/bindings.cpp
REBUILD = "run `pip install .` in the source tree with a C++ compiler on the PATH"

extension: ModuleType | None
absence: str | None  # why there is no extension, or None where there is one
try:
    from medtrust import _C
except ImportError as error:
    extension, absence = None, f"the extension medtrust._C cannot be imported ({error}); {REBUILD}"
else:
    if getattr(_C, "abi", None) == ABI:
        extension, absence = _C, None
    else:
        extension = None
        absence = (
            f"the extension was built for interface {getattr(_C, 'abi', None)}, this package needs {ABI}; {REBUILD}"
        )

_warned: set[str] = set()


def kernels(op: str, device: str = "cpu") -> Any:
    """The extension where it has kernels for a device; otherwise None, after one warning that names the slower op.

    Args:
        op: Public name of the op that asks, such as "ssim".
        device: "cpu" or "cuda".

    Returns:
        The module `medtrust._C`, or None.
    """
    if extension is None:
        warn_slower(op, str(absence))
    elif device == "cuda" and not extension.with_cuda:
        warn_slower(op, "this build has no CUDA kernels; build it again with MEDTRUST_CUDA=1")
        return None
    return extension


def warn_slower(op: str, why: str) -> None:
    """Warn once per op that its torch twin serves, and why.

    Args:
        op: Public name of the op.
        why: Reason and remedy.
    """
    if op not in _warned:
        _warned.add(op)
        message = f"ops.{op} runs on its float64 torch twin: same values, slower by a factor of 3 to 100; {why}"
        warnings.warn(message, RuntimeWarning, stacklevel=3)


def info() -> dict[str, Any]:
    """What the native core of this installation can do.

    Returns:
        `native` (bool), `absence` (why not, or None), `abi`, `isa` ("scalar", "avx2" or "avx512"), `matrix` ("amx",
        "avx512bf16" or None), `cuda` (built with CUDA kernels), `archs` (list of compute capabilities) and
        `openmp_threads`.

    Raises:
        NativeError: MEDTRUST_CPU or MEDTRUST_MATRIX names what this processor or build does not have.
    """
    if extension is None:
        facts: dict[str, Any] = {"isa": None, "matrix": None, "cuda": False, "archs": [], "openmp_threads": None}
        return {"native": False, "absence": absence, "abi": ABI, **facts}
    try:
        isa, matrix = extension.isa(), extension.matrix() or None
    except RuntimeError as error:
        raise NativeError(str(error)) from error
    archs = [arch for arch in extension.archs.split(";") if arch]
    facts = {"isa": isa, "matrix": matrix, "cuda": extension.with_cuda, "archs": archs}
    facts["openmp_threads"] = extension.max_threads()
    return {"native": True, "absence": None, "abi": ABI, **facts}
