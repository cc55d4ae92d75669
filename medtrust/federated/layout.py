"""Names and shapes of what a statement holds, and how statistics become plain sums and come back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medtrust.federated.packing import Arrays
from medtrust.federated.study import Study
from medtrust.stats.sufficient import Moments, upper, whole_matrix

__all__ = [
    "REAL_SETS", "Layout", "check_arrays", "expected_arrays", "from_sums", "read_moments", "to_sums", "write_moments",
]  # fmt: skip

Layout = tuple[tuple[str, tuple[int, ...]], ...]
REAL_SETS = ("train", "holdout")
_MOST_FOLDS = 100


def write_moments(prefix: str, folds: list[Moments]) -> dict[str, npt.NDArray[Any]]:
    """Arrays of some folds' moments, covariances as triangles."""
    return {
        f"{prefix}/moments.n": np.array([part.n for part in folds], np.int64),
        f"{prefix}/moments.units": np.array([part.units for part in folds], np.int64),
        f"{prefix}/moments.mean": torch.stack([part.mean for part in folds]).numpy(),
        f"{prefix}/moments.m2": upper(torch.stack([part.m2 for part in folds])).numpy(),
    }


def read_moments(prefix: str, arrays: Arrays) -> tuple[Moments, ...]:
    """Undo `write_moments`."""
    n, units = arrays[f"{prefix}/moments.n"].tolist(), arrays[f"{prefix}/moments.units"].tolist()
    mean = torch.from_numpy(arrays[f"{prefix}/moments.mean"].copy())
    m2 = whole_matrix(torch.from_numpy(arrays[f"{prefix}/moments.m2"].copy()), mean.shape[1])
    return tuple(Moments(*part) for part in zip(n, units, mean, m2, strict=True))


def expected_arrays(study: Study, facts: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type of every array that a statement with these facts must hold; facts that are no table give none."""
    wanted: dict[str, tuple[tuple[int, ...], str]] = {}
    folds = facts.get("folds")
    if not isinstance(folds, Mapping) or not all(_is_count(folds.get(name)) for name in REAL_SETS):
        return wanted
    if study.secure_sums and {folds[name] for name in REAL_SETS} != {study.folds}:
        return wanted
    for name in REAL_SETS:
        for space in study.spaces.values():
            wanted |= {f"{space.name}/{name}/{part}": kind for part, kind in _moments(folds[name], space.dim)}
    return wanted


def _is_count(value: Any) -> bool:
    return type(value) is int and 1 <= value <= _MOST_FOLDS


def _moments(folds: int, dim: int) -> Iterator[tuple[str, tuple[tuple[int, ...], str]]]:
    yield "moments.n", ((folds,), "int64")
    yield "moments.units", ((folds,), "int64")
    yield "moments.mean", ((folds, dim), "float64")
    yield "moments.m2", ((folds, dim * (dim + 1) // 2), "float64")


def check_arrays(arrays: Arrays, wanted: Mapping[str, tuple[tuple[int, ...], str]]) -> str:
    """Say what is wrong with the arrays of a statement; empty if nothing is."""
    if not wanted:
        return "it does not say how many folds of train and holdout it holds, as this study asks"
    extra, missing = sorted(set(arrays) - set(wanted)), sorted(set(wanted) - set(arrays))
    if extra or missing:
        return f"it lacks {missing[0]}" if missing else f"it holds {extra[0][:80]!r}, for which the study did not ask"
    for name, (shape, kind) in wanted.items():
        found = arrays[name]
        if found.shape != shape or found.dtype.name != kind:
            return f"{name} is {found.dtype} {list(found.shape)} where the study asks for {kind} {list(shape)}"
        if kind == "int64" and (found < 0).any():
            return f"{name} holds counts below 0"
    for name in wanted:
        if name.endswith(".n"):
            n, units = arrays[name], arrays[name[:-1] + "units"]
            if (n < 2).any() or (units < 1).any() or (units > n).any():
                return f"{name} and the patients beside it contradict each other"
        if name.endswith("moments.m2"):
            dim = arrays[name.replace("m2", "mean")].shape[1]
            corner = whole_matrix(torch.from_numpy(arrays[name].copy()), dim).diagonal(dim1=1, dim2=2)
            if bool((corner < 0).any()):
                return f"{name} holds a scatter below 0"
    return ""


def to_sums(arrays: Arrays) -> tuple[Layout, npt.NDArray[np.float64]]:
    """Turn the arrays of a statement into one vector that can be added to other sites'."""
    sums: dict[str, npt.NDArray[np.float64]] = {}
    for name in sorted(arrays):
        prefix, _, part = name.rpartition("/")
        if part == "moments.n":
            folds = read_moments(prefix, arrays)
            plain = [each.sums() for each in folds]
            sums[f"{prefix}/moments.n"] = np.array([n for n, _, _ in plain])
            sums[f"{prefix}/moments.units"] = np.array([float(each.units) for each in folds])
            sums[f"{prefix}/moments.mean"] = torch.stack([total for _, total, _ in plain]).numpy()
            sums[f"{prefix}/moments.m2"] = upper(torch.stack([outer for _, _, outer in plain])).numpy()
        elif not part.startswith("moments."):
            sums[name] = arrays[name].astype(np.float64)
    layout = tuple((name, sums[name].shape) for name in sorted(sums))
    return layout, np.concatenate([sums[name].ravel() for name, _ in layout])


def from_sums(layout: Layout, vector: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[Any]]:
    """Turn the sum of the sites' vectors into the arrays of one statement about all of them."""
    sums: dict[str, npt.NDArray[np.float64]] = {}
    at = 0
    for name, shape in layout:
        size = int(np.prod(shape))
        sums[name] = vector[at : at + size].reshape(shape)
        at += size
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, found in sums.items():
        prefix, _, part = name.rpartition("/")
        if part == "moments.n":
            total = torch.from_numpy(sums[f"{prefix}/moments.mean"].copy())
            outer = whole_matrix(torch.from_numpy(sums[f"{prefix}/moments.m2"].copy()), total.shape[1])
            units = sums[f"{prefix}/moments.units"]
            folds = [
                Moments.from_sums(*each) for each in zip(found.tolist(), units.tolist(), total, outer, strict=True)
            ]
            arrays |= write_moments(prefix, folds)
        elif not part.startswith("moments."):
            arrays[name] = found
    return arrays
