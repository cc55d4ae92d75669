"""Is what a site says possible at all? Shapes, types, and numbers that contradict each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from medtrust.federated.packing import Arrays
from medtrust.stats.sufficient import whole_matrix

__all__ = ["complaint"]

_ROUNDING = 1e-9


def complaint(arrays: Arrays, wanted: Mapping[str, tuple[tuple[int | None, ...], str]], *, noisy: bool = False) -> str:
    """Say what is wrong with the arrays of a statement; empty if nothing is.

    Args:
        arrays: What was said.
        wanted: Shape and type by name; None is any length.
        noisy: Noise was added on purpose, so that only shapes and types can be checked.
    """
    if not wanted:
        return "it does not say how many folds of train and holdout it holds, as this study asks"
    extra, missing = sorted(set(arrays) - set(wanted)), sorted(set(wanted) - set(arrays))
    if extra or missing:
        return f"it lacks {missing[0]}" if missing else f"it holds {extra[0][:80]!r}, for which the study did not ask"
    for name, (shape, kind) in wanted.items():
        found = arrays[name]
        fits = len(found.shape) == len(shape) and all(b in (None, a) for a, b in zip(found.shape, shape, strict=True))
        if not fits or found.dtype.name != kind:
            asked = ["any" if side is None else side for side in shape]
            return f"{name} is {found.dtype} {list(found.shape)} where the study asks for {kind} {asked}"
        if kind == "int64" and (found < 0).any():
            return f"{name} holds counts below 0"
    for name in wanted:
        problem = _contradiction(name, arrays, noisy)
        if problem:
            return problem
    return ""


def _contradiction(name: str, arrays: Arrays, noisy: bool) -> str:
    prefix, _, part = name.rpartition("/")

    def of(other: str) -> Any:
        return arrays[f"{prefix}/{other}"]

    if part == "moments.n" and (
        (of("moments.n") < 2).any() or (of("moments.units") < 1).any() or (of("moments.units") > of("moments.n")).any()
    ):
        return f"{name} and the patients beside it contradict each other"
    if part == "moments.m2" and not noisy:
        dim = of("moments.mean").shape[1]
        diagonal = whole_matrix(torch.from_numpy(arrays[name].copy()), dim).diagonal(dim1=1, dim2=2)
        if bool((diagonal < 0).any()):
            return f"{name} holds a scatter below 0"
    if part == "fourier.total" and not noisy:
        norms = np.square(arrays[name]).sum(1)
        n = of("moments.n")
        if (norms > n.astype(np.float64) ** 2 * (1 + _ROUNDING)).any() or (
            of("fourier.pairs") < n * (1 - _ROUNDING)
        ).any():
            return f"{name} is longer than so many images can make it"
    if part == "histogram.shares" and not noisy:
        gaps = np.abs(arrays[name].sum(1) - of("histogram.units"))
        if (arrays[name] < -_ROUNDING).any() or (gaps > 1e-6 * of("histogram.units")).any():
            return f"{name} does not add up to its patients"
    if part == "counts.hits":
        hits, lengths, patients = of("counts.hits"), of("counts.lengths"), of("counts.patients")
        steps = np.diff(hits, prepend=0)
        if (
            len(hits) < 1
            or hits.shape != lengths.shape
            or (of("counts.planted").shape[2] != len(hits))
            or (np.diff(lengths, prepend=0) < 1).any()
            or (steps < 0).any()
            or (steps > np.diff(lengths, prepend=0)).any()
            or patients.min() < 1
            or lengths[-1] > patients.sum()
            or hits[-1] > patients[0]
        ):
            return f"{name}, its lengths and its patients contradict each other"
    if part.startswith("balls.") and (
        (arrays[name] < 0).any()
        or (arrays[name][1] > arrays[name][0]).any()
        or (arrays[name][1] > arrays[name][2]).any()
    ):
        return f"{name} counts more images inside than there are"
    if part == "nearest.distance" and ((arrays[name] < 0).any() or (np.diff(arrays[name], axis=1) < 0).any()):
        return f"{name} is not sorted, or below 0"
    if part == "ranks.u" and not 0 <= arrays[name][0] <= float(np.prod(of("ranks.n"))):
        return f"{name} is no number of pairs of so many images"
    return ""
