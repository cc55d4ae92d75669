"""Texture of a grey plane: the grey-level co-occurrence matrix (GLCM) and its features, IBSI definitions."""

from __future__ import annotations

from typing import Any

import numpy as np

from medtrust_features.rows import entropy, ratio, row_sum

__all__ = ["GLCM_NAMES", "cooccurrence", "glcm_features", "quantise"]

Array = np.ndarray[Any, Any]

DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1))  # right, down-right, down, down-left at distance 1

GLCM_NAMES = (
    "glcm.joint_maximum",
    "glcm.joint_entropy",
    "glcm.angular_second_moment",
    "glcm.contrast",
    "glcm.difference_average",
    "glcm.difference_entropy",
    "glcm.inverse_difference",
    "glcm.inverse_difference_moment",
    "glcm.correlation",
    "glcm.sum_entropy",
    "glcm.cluster_shade_root",
    "glcm.cluster_prominence_root",
    "glcm.information_correlation_1",
)


def quantise(plane: Array, bins: int) -> Array:
    """Bin a plane [N, H, W] in declared ranges into levels 0 … bins - 1 (int64); values outside go to the end bins."""
    levels: Array = np.clip(np.floor(plane * bins), 0, bins - 1).astype(np.int64)
    return levels


def cooccurrence(levels: Array, bins: int) -> tuple[Array, Array]:
    """Count neighbouring levels, both ways round, in each direction that the image is large enough for.

    Args:
        levels: [N, H, W] int64 in 0 … bins - 1.
        bins: Number of levels.

    Returns:
        Counts [N, D, bins, bins] int64, symmetric, and what each matrix adds up to [D]. D is 0 for a one-pixel image.
    """
    n, height, width = levels.shape
    image = np.arange(n)[:, None, None] * (bins * bins)
    counts, totals = [], []
    for down, right in DIRECTIONS:
        rows, columns = height - down, width - abs(right)
        if rows < 1 or columns < 1:
            continue
        start = max(0, -right)
        here = levels[:, :rows, start : start + columns]
        there = levels[:, down : down + rows, start + right : start + right + columns]
        flat = np.bincount((image + here * bins + there).ravel(), minlength=n * bins * bins)
        matrix = flat.reshape(n, bins, bins)
        counts.append(matrix + matrix.transpose(0, 2, 1))
        totals.append(2 * rows * columns)
    if not counts:
        return np.zeros((n, 0, bins, bins), dtype=np.int64), np.zeros(0, dtype=np.int64)
    return np.stack(counts, axis=1), np.array(totals)


def _along_antidiagonals(matrix: Array) -> Array:
    """Sum [N, B, B] over i + j, giving [N, 2B]; the last column is empty.

    Rows of 2B entries, read again as rows of 2B - 1, move one place to the right each: equal i + j then share a column.
    """
    n, bins, _ = matrix.shape
    wide = np.zeros((n, bins, 2 * bins), dtype=matrix.dtype)
    wide[:, :, :bins] = matrix
    skewed = wide.reshape(n, -1)[:, :-bins].reshape(n, bins, 2 * bins - 1)
    return np.pad(skewed.sum(axis=1), ((0, 0), (0, 1)))


def _by_difference(matrix: Array) -> Array:
    """Sum [N, B, B] over |i - j|, giving [N, B]."""
    bins = matrix.shape[1]
    signed = _along_antidiagonals(matrix[:, :, ::-1])  # entry (i, j) is at i - j + B - 1
    out: Array = signed[:, bins - 1 : 2 * bins - 1].copy()
    out[:, 1:] += signed[:, : bins - 1][:, ::-1]
    return out


def glcm_features(plane: Array, bins: int) -> Array:
    """Compute each GLCM feature per direction, then average over the directions.

    Contrast, difference average and the clusters are in units of the declared range (levels divided by bins - 1). Of
    cluster shade the cube root is taken after averaging, of cluster prominence the fourth root: a third and a fourth
    power have tails in which one image outweighs a thousand. Entropies are shares of the largest possible one. A plane
    of one level, or of one pixel, gives entropy and contrast 0, and correlation, angular second moment and joint
    maximum 1.

    Args:
        plane: [N, H, W] float64 in declared ranges, finite.
        bins: Number of grey levels over the declared range.

    Returns:
        [N, 13] float64, columns as in `GLCM_NAMES`.

    Reference:
        Image Biomarker Standardisation Initiative, arXiv:1612.07003, section 3.6 (averaged, symmetric, distance 1).
    """
    counts, totals = cooccurrence(quantise(plane, bins), bins)
    n = plane.shape[0]
    if not len(totals):
        one_level = np.zeros((n, len(GLCM_NAMES)))
        for name in (
            "joint_maximum",
            "angular_second_moment",
            "inverse_difference",
            "inverse_difference_moment",
            "correlation",
        ):
            one_level[:, GLCM_NAMES.index(f"glcm.{name}")] = 1.0
        return one_level
    per_direction = [_one_direction(counts[:, d], int(total), bins) for d, total in enumerate(totals)]
    values: Array = sum(per_direction[1:], start=per_direction[0]) / len(totals)
    shade, prominence = (GLCM_NAMES.index(f"glcm.cluster_{name}_root") for name in ("shade", "prominence"))
    values[:, shade] = np.cbrt(values[:, shade])
    values[:, prominence] = np.sqrt(np.sqrt(np.maximum(values[:, prominence], 0.0)))
    return values


def _one_direction(counts: Array, total: int, bins: int) -> Array:
    n, top = counts.shape[0], bins - 1
    cells = counts.reshape(n, -1)
    margin, sums, differences = counts.sum(axis=2), _along_antidiagonals(counts), _by_difference(counts)
    level = np.arange(bins)
    share = differences / total

    first, second = row_sum(margin * level), row_sum(margin * level * level)
    mean = first / total
    variance = (float(total) * second - first.astype(np.float64) ** 2) / (float(total) * total)
    contrast = row_sum(differences * level * level) / total
    one_level = cells.max(axis=1) == total
    deviation = (np.arange(2 * bins) - 2 * mean[:, None]) / top
    cubed = deviation * deviation * deviation * (sums / total)

    joint, marginal = entropy(cells, total), entropy(margin, total)
    columns = (
        cells.max(axis=1) / total,
        joint / (2 * np.log2(bins)),
        row_sum((cells / total) ** 2),
        contrast / top**2,
        row_sum(differences * level) / total / top,
        entropy(differences, total) / np.log2(bins),
        row_sum(share / (1 + level)),
        row_sum(share / (1 + level * level)),
        1 - ratio(contrast, 2 * variance, ~one_level, 0.0),
        entropy(sums, total) / np.log2(2 * bins - 1),
        row_sum(cubed),
        row_sum(cubed * deviation),
        ratio(joint - 2 * marginal, marginal, ~one_level, 0.0),
    )
    return np.stack(columns, axis=1)
