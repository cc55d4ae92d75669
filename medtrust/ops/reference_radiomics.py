"""Float64 twin of the radiomics kernels: the IBSI's formulas as they are printed, one image at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from medtrust.ops._radiomics_names import names_of

__all__ = ["describe"]

Array = np.ndarray[Any, Any]

DIRECTIONS = ((0, 1), (1, -1), (1, 0), (1, 1))  # right, down-left, down, down-right
AROUND = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0))


def describe(
    images: Tensor, mask: Tensor | None, binning: list[float], levels: int, merged: bool, families: list[str]
) -> tuple[Tensor, Tensor]:
    """Describe each plane.

    Args:
        images: `[N, C, H, W]`, any real dtype.
        mask: `[N, H, W]` bool, or None.
        binning: lo, multiply, divide: the level is 1 + floor((x - lo) * multiply / divide), clipped to 1..levels.
        levels: Number of grey levels.
        merged: Add up the four directions' matrices instead of averaging their features.
        families: Keys of FAMILIES, in its order.

    Returns:
        Values `[N * C, F]` float64, and states `[N * C]` int64: 0 fine, 1 an empty region, 2 a non-finite value in it;
        a plane that is not fine has zeros.
    """
    count, channels, height, width = images.shape
    lo, multiply, divide = binning
    table = np.zeros((count * channels, len(names_of(families, 1))))
    states = np.zeros(count * channels, dtype=np.int64)
    for plane in range(count * channels):
        pixels = images[plane // channels, plane % channels].double().numpy()
        inside = np.ones((height, width), bool) if mask is None else mask[plane // channels].numpy()
        values = pixels[inside]
        states[plane] = 1 if values.size == 0 else 0 if np.isfinite(values).all() else 2
        if states[plane]:
            continue
        position = (np.where(inside, pixels, lo) - lo) * multiply / divide
        grey = np.where(inside, np.clip(np.floor(position), 0, levels - 1).astype(np.int64) + 1, 0)
        table[plane] = np.concatenate([_family(family, values, grey, levels, merged) for family in families])
    return torch.from_numpy(table), torch.from_numpy(states)


def _family(family: str, values: Array, grey: Array, levels: int, merged: bool) -> Array:
    """Features of one family, from the values [n] of a region and the levels [H, W], 0 outside it."""
    if family == "firstorder":
        return first_order(values, grey, levels)
    if family == "glcm":
        return cooccurrence(grey, levels, merged)
    if family == "glrlm":
        return run_lengths(grey, levels, merged)
    if family == "glszm":
        return size_matrix(zones(grey, levels), values.size, energy=False)
    if family == "ngtdm":
        return tone_difference(grey, levels)
    return size_matrix(dependence(grey, levels), values.size, energy=True)


def _entropy(p: Array) -> float:
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum())


def _mean(rows: list[Array]) -> Array:
    result: Array = np.mean(rows, axis=0)
    return result


def _over(top: float, bottom: float, otherwise: float = 0.0) -> float:
    return top / bottom if bottom else otherwise


def first_order(x: Array, grey: Array, levels: int) -> Array:
    """The 20 first-order features of the values [n] of a region and of their levels."""
    mean = x.mean() if x.min() < x.max() else x[0]
    d = x - mean
    variance = (d**2).mean()
    p10, p25, median, p75, p90 = np.percentile(x, (10, 25, 50, 75, 90))
    robust = x[(x >= p10) & (x <= p90)]
    p = np.bincount(grey[grey > 0], minlength=levels + 1) / x.size
    return np.array(
        [
            mean,
            variance,
            _over((d**3).mean(), variance**1.5),
            _over((d**4).mean(), variance**2, 3.0) - 3,
            median,
            x.min(),
            p10,
            p90,
            x.max(),
            p75 - p25,
            x.max() - x.min(),
            np.abs(d).mean(),
            np.abs(robust - robust.mean()).mean() if robust.size else 0.0,
            np.abs(x - median).mean(),
            _over(variance**0.5, mean),
            _over(p75 - p25, p75 + p25),
            (x**2).sum(),
            (x**2).mean() ** 0.5,
            _entropy(p),
            (p**2).sum(),
        ]
    )


def _shifted(grey: Array, dy: int, dx: int) -> Array:
    """The level of each pixel's neighbour at (dy, dx), 0 outside."""
    padded = np.pad(grey, 1)
    height, width = grey.shape
    return padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]


def pairs(grey: Array, levels: int) -> list[Array]:
    """One symmetric co-occurrence matrix [levels, levels] per direction."""
    found = []
    for dy, dx in DIRECTIONS:
        there = _shifted(grey, dy, dx)
        both = (grey > 0) & (there > 0)
        matrix = np.zeros((levels, levels))
        np.add.at(matrix, (grey[both] - 1, there[both] - 1), 1)
        found.append(matrix + matrix.T)
    return found


def cooccurrence(grey: Array, levels: int, merged: bool) -> Array:
    """The 25 features of the grey level co-occurrence matrix (IBSI section 3.6)."""
    matrices = pairs(grey, levels)
    matrices = [m for m in ([np.sum(matrices, axis=0)] if merged else matrices) if m.any()]
    if not matrices:  # no pixel has a neighbour: each is paired with itself
        matrices = [np.diag(np.bincount(grey[grey > 0] - 1, minlength=levels).astype(float))]
    return _mean([_cooccurrence_features(m / m.sum()) for m in matrices])


def _cooccurrence_features(p: Array) -> Array:
    levels = len(p)
    i, j = np.meshgrid(np.arange(1.0, levels + 1), np.arange(1.0, levels + 1), indexing="ij")
    margin = p.sum(1)
    k, s = np.arange(float(levels)), np.arange(2.0, 2 * levels + 1)
    of_difference = np.bincount(np.abs(i - j).astype(int).ravel(), p.ravel(), minlength=levels)
    of_sum = np.bincount((i + j).astype(int).ravel() - 2, p.ravel(), minlength=2 * levels - 1)
    mean = (i * p).sum()
    variance = ((i - mean) ** 2 * p).sum()
    dissimilarity = (k * of_difference).sum()
    product = margin[:, None] * margin[None, :]
    used = product > 0
    joint, marginal = _entropy(p), _entropy(margin)
    crossed = -(p[used] * np.log2(product[used])).sum()
    independent = _entropy(product)
    return np.array(
        [
            p.max(),
            mean,
            variance,
            joint,
            dissimilarity,
            ((k - dissimilarity) ** 2 * of_difference).sum(),
            _entropy(of_difference),
            (s * of_sum).sum(),
            ((s - (s * of_sum).sum()) ** 2 * of_sum).sum(),
            _entropy(of_sum),
            (p**2).sum(),
            ((i - j) ** 2 * p).sum(),
            (np.abs(i - j) * p).sum(),
            (p / (1 + np.abs(i - j))).sum(),
            (p / (1 + np.abs(i - j) / levels)).sum(),
            (p / (1 + (i - j) ** 2)).sum(),
            (p / (1 + (i - j) ** 2 / levels**2)).sum(),
            (of_difference[1:] / k[1:] ** 2).sum(),
            ((i - mean) * (j - mean) * p).sum() / variance if np.count_nonzero(margin) > 1 else 1.0,
            (i * j * p).sum(),
            ((i + j - 2 * mean) ** 2 * p).sum(),
            ((i + j - 2 * mean) ** 3 * p).sum(),
            ((i + j - 2 * mean) ** 4 * p).sum(),
            (joint - crossed) / marginal if np.count_nonzero(margin) > 1 else 0.0,
            max(0.0, 1 - np.exp(-2 * (independent - joint))) ** 0.5,
        ]
    )


def size_matrix(counts: Array, pixels: float, *, energy: bool) -> Array:
    """The 16 features of a matrix [levels, sizes] of counts by level and size (IBSI sections 3.7, 3.8 and 3.11).

    The 13th is the number of entries per pixel, or with `energy` the sum of squared shares.
    """
    total = counts.sum()
    p = counts / total
    i, j = np.meshgrid(
        np.arange(1.0, counts.shape[0] + 1), np.arange(1.0, counts.shape[1] + 1), indexing="ij", sparse=True
    )
    by_level, by_size = counts.sum(1), counts.sum(0)
    return np.array(
        [
            (p / j**2).sum(),
            (p * j**2).sum(),
            (p / i**2).sum(),
            (p * i**2).sum(),
            (p / i**2 / j**2).sum(),
            (p * i**2 / j**2).sum(),
            (p * j**2 / i**2).sum(),
            (p * i**2 * j**2).sum(),
            (by_level**2).sum() / total,
            (by_level**2).sum() / total**2,
            (by_size**2).sum() / total,
            (by_size**2).sum() / total**2,
            (p**2).sum() if energy else total / pixels,
            ((i - (i * p).sum()) ** 2 * p).sum(),
            ((j - (j * p).sum()) ** 2 * p).sum(),
            _entropy(p),
        ]
    )


def _lines(grey: Array) -> Iterator[list[Array]]:
    """The lines of the image in each direction."""
    height, width = grey.shape
    mirrored = grey[:, ::-1]
    yield list(grey)
    yield [mirrored.diagonal(d) for d in range(1 - height, width)]
    yield list(grey.T)
    yield [grey.diagonal(d) for d in range(1 - height, width)]


def runs(grey: Array, levels: int) -> list[Array]:
    """One run length matrix [levels, longest side] per direction."""
    found = []
    for lines in _lines(grey):
        end = np.full(1, -1)
        row = np.concatenate([part for line in lines for part in (line, end)])  # ends keep lines apart
        starts = np.flatnonzero(np.concatenate([[True], row[1:] != row[:-1]]))
        lengths = np.diff(np.append(starts, len(row)))
        level = row[starts]
        matrix = np.zeros((levels, max(grey.shape)))
        np.add.at(matrix, (level[level > 0] - 1, lengths[level > 0] - 1), 1)
        found.append(matrix)
    return found


def run_lengths(grey: Array, levels: int, merged: bool) -> Array:
    """The 16 features of the grey level run length matrix (IBSI section 3.7)."""
    matrices, pixels = runs(grey, levels), float((grey > 0).sum())
    if merged:
        return size_matrix(np.sum(matrices, axis=0), len(DIRECTIONS) * pixels, energy=False)
    return _mean([size_matrix(m, pixels, energy=False) for m in matrices])


def zones(grey: Array, levels: int) -> Array:
    """Grey level size zone matrix [levels, largest zone] (IBSI section 3.8)."""
    sizes = [
        np.bincount(ndimage.label(grey == level, np.ones((3, 3)))[0].ravel())[1:] for level in range(1, levels + 1)
    ]
    matrix = np.zeros((levels, max(int(s.max(initial=0)) for s in sizes)))
    for level, found in enumerate(sizes):
        np.add.at(matrix[level], found - 1, 1)
    return matrix


def tone_difference(grey: Array, levels: int) -> Array:
    """The 5 features of the neighbourhood grey tone difference matrix (IBSI section 3.10)."""
    around = np.stack([_shifted(grey, *step) for step in AROUND])
    inside = (around > 0).sum(0)
    valid = (grey > 0) & (inside > 0)
    gap = np.abs(grey - around.sum(0) / np.maximum(inside, 1))[valid]
    counts = np.bincount(grey[valid], minlength=levels + 1)
    tones = np.bincount(grey[valid], gap, minlength=levels + 1)
    present = np.flatnonzero(counts)
    p, s, groups = counts[present] / max(1, counts.sum()), tones[present], len(present)
    i, j = present[:, None], present[None, :]
    pi, pj, si, sj = p[:, None], p[None, :], s[:, None], s[None, :]
    spread = (pi * pj * (i - j) ** 2).sum()
    return np.array(
        [
            min(1e6, _over(1.0, (p * s).sum(), 1e6)),
            spread / (groups * (groups - 1)) * s.sum() / counts.sum() if groups > 1 else 0.0,
            _over((p * s).sum(), np.abs(i * pi - j * pj).sum()),
            (np.abs(i - j) * (pi * si + pj * sj) / (pi + pj)).sum() / max(1, counts.sum()),
            _over(((pi + pj) * (i - j) ** 2).sum(), s.sum()),
        ]
    )


def dependence(grey: Array, levels: int) -> Array:
    """Neighbouring grey level dependence matrix [levels, 9], coarseness 0 (IBSI section 3.11)."""
    same = np.sum([_shifted(grey, *step) == grey for step in AROUND], axis=0)
    matrix = np.zeros((levels, 9))
    inside = grey > 0
    np.add.at(matrix, (grey[inside] - 1, same[inside]), 1)
    return matrix
