"""Names, shapes and types of what a statement holds, and how it becomes plain sums and comes back.

A name is `<space>/<set>/<statistic>.<part>`, or `copies/<statistic>.<part>`. The first axis of what belongs to a set
are its folds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medtrust.federated.packing import Arrays
from medtrust.federated.study import RATES, REPETITIONS, Study
from medtrust.stats.sufficient import FourierSums, Histogram, Moments, upper, whole_matrix

__all__ = [
    "NEAREST", "REAL_SETS", "Layout", "expected_arrays", "from_sums", "public_folds", "read_fourier", "read_histograms",
    "read_moments",    "to_sums", "write_fourier", "write_histograms", "write_moments",
]  # fmt: skip

Layout = tuple[tuple[str, tuple[int, ...]], ...]
Wanted = dict[str, tuple[tuple[int | None, ...], str]]
REAL_SETS = ("train", "holdout")
NEAREST = 6  # patients whose distances make up a copy score
_MOST_FOLDS = 100
_PUBLIC_FOLDS = 20


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


def write_fourier(prefix: str, folds: list[FourierSums]) -> dict[str, npt.NDArray[Any]]:
    """Arrays of some folds' Fourier sums; their counts are those of the moments beside them."""
    return {
        f"{prefix}/fourier.total": torch.stack([part.total for part in folds]).numpy(),
        f"{prefix}/fourier.own": np.array([part.own for part in folds], np.float64),
        f"{prefix}/fourier.pairs": np.array([part.pairs for part in folds], np.float64),
    }


def read_fourier(prefix: str, arrays: Arrays) -> tuple[FourierSums, ...]:
    """Undo `write_fourier`."""
    n, units = arrays[f"{prefix}/moments.n"].tolist(), arrays[f"{prefix}/moments.units"].tolist()
    total = torch.from_numpy(arrays[f"{prefix}/fourier.total"].copy())
    own, pairs = arrays[f"{prefix}/fourier.own"].tolist(), arrays[f"{prefix}/fourier.pairs"].tolist()
    return tuple(FourierSums(*part) for part in zip(n, units, total, own, pairs, strict=True))


def write_histograms(prefix: str, folds: list[Histogram], moved: float) -> dict[str, npt.NDArray[Any]]:
    """Arrays of some folds' histograms, and how far the rule on small cells moved intensities, summed over patients."""
    return {
        f"{prefix}/histogram.units": np.array([part.units for part in folds], np.int64),
        f"{prefix}/histogram.shares": torch.stack([part.shares for part in folds]).numpy(),
        f"{prefix}/histogram.moved": np.array([moved], np.float64),
    }


def read_histograms(prefix: str, arrays: Arrays) -> tuple[Histogram, ...]:
    """Undo `write_histograms`."""
    shares = torch.from_numpy(arrays[f"{prefix}/histogram.shares"].copy())
    return tuple(Histogram(*part) for part in zip(arrays[f"{prefix}/histogram.units"].tolist(), shares, strict=True))


def expected_arrays(study: Study, facts: Mapping[str, Any]) -> Wanted:
    """Shape and type of every array that a statement with these facts must hold; None for a length left open.

    Facts that do not say how many folds there are give none.
    """
    folds = facts.get("folds")
    if not isinstance(folds, Mapping) or not all(_is_count(folds.get(name)) for name in REAL_SETS):
        return {}
    if study.secure_sums and {folds[name] for name in REAL_SETS} != {study.folds}:
        return {}
    wanted: Wanted = {}
    samples = int(study.header["synthetic"]["images"])
    for name in REAL_SETS:
        for space in study.spaces.values():
            parts = _of_space(folds[name], space.dim, 2 * len(space.frequencies) if study.asks("fidelity.mmd") else 0)
            wanted |= {f"{space.name}/{name}/{part}": kind for part, kind in parts}
        if study.asks("fidelity.precision") and name == "holdout":
            for each in study.spaces:
                wanted |= {
                    f"{each}/balls.synthetic": ((3, len(public_folds(samples))), "float64"),
                    f"{each}/balls.holdout": ((3, folds[name]), "float64"),
                }
        if study.asks("fidelity.intensity"):
            wanted |= {
                f"intensity/{name}/histogram.units": ((folds[name],), "int64"),
                f"intensity/{name}/histogram.shares": ((folds[name], study.bins), "float64"),
                f"intensity/{name}/histogram.moved": ((1,), "float64"),
            }
    return wanted | dict(_of_copies(study))


def public_folds(rows: int) -> list[torch.Tensor]:
    """How the synthetic images, which are public, are dealt to folds: rows of each."""
    count = max(2, min(_PUBLIC_FOLDS, rows // 2))
    return [torch.arange(f, rows, count) for f in range(count)]


def _is_count(value: Any) -> bool:
    return type(value) is int and 1 <= value <= _MOST_FOLDS


def _of_space(folds: int, dim: int, waves: int) -> Iterator[tuple[str, tuple[tuple[int | None, ...], str]]]:
    yield "moments.n", ((folds,), "int64")
    yield "moments.units", ((folds,), "int64")
    yield "moments.mean", ((folds, dim), "float64")
    yield "moments.m2", ((folds, dim * (dim + 1) // 2), "float64")
    if waves:
        yield "fourier.total", ((folds, waves), "float64")
        yield "fourier.own", ((folds,), "float64")
        yield "fourier.pairs", ((folds,), "float64")


def _of_copies(study: Study) -> Iterator[tuple[str, tuple[tuple[int | None, ...], str]]]:
    samples = int(study.header["synthetic"]["images"])
    if study.asks("privacy.cpm") and study.secure_sums:
        yield "copies/fisher.total", ((1,), "float64")
        yield "copies/fisher.top", ((3,), "float64")
        yield "copies/fisher.planted", ((len(RATES), REPETITIONS), "float64")
        yield "copies/fisher.unfair", ((1,), "float64")
    elif study.asks("privacy.cpm"):
        yield "copies/counts.patients", ((2,), "int64")
        yield "copies/counts.lengths", ((None,), "int64")
        yield "copies/counts.hits", ((None,), "int64")
        yield "copies/counts.planted", ((len(RATES), REPETITIONS, None), "int64")
        yield "copies/counts.split_p", ((1,), "float64")
        if study.header["copies"]["reveal"] == "distances":
            yield "copies/nearest.distance", ((samples, NEAREST), "float64")
            yield "copies/nearest.patient", ((samples,), "int64")
            yield "copies/nearest.train", ((samples,), "int64")
    if study.asks("privacy.ct") and study.secure_sums:
        yield "copies/elteren.sums", ((2,), "float64")
    elif study.asks("privacy.ct"):
        yield "copies/ranks.u", ((1,), "float64")
        yield "copies/ranks.n", ((2,), "int64")


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


def from_sums(layout: Layout, vector: npt.NDArray[np.float64], wanted: Wanted) -> dict[str, npt.NDArray[Any]]:
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
            arrays[name] = np.rint(found).astype(np.int64) if wanted[name][1] == "int64" else found
    return arrays
