"""Edges, fine grain and coarse structure of a grey plane."""

from __future__ import annotations

from typing import Any

import numpy as np

from medtrust_features.rows import moments, row_mean, signed_log

__all__ = ["EDGE_NAMES", "edge_features"]

Array = np.ndarray[Any, Any]

SCALES = (2, 4, 8)

EDGE_NAMES = (
    "gradient.magnitude_mean",
    "gradient.magnitude_sd",
    "gradient.magnitude_log_skewness",
    "gradient.magnitude_log_kurtosis",
    "gradient.laplacian_mean_absolute",
    "gradient.laplacian_sd",
    "gradient.noise",
    *(f"scale.sd_{size}" for size in SCALES),
)


def edge_features(plane: Array) -> Array:
    """Describe gradients, fine grain and the contrast that is left after averaging blocks.

    Filters run where they fit into the image, without padding. The Sobel magnitude is divided by 8, so that it is the
    change per pixel in declared ranges. An image that is too small for a filter, or a block, gets zeros.

    Args:
        plane: [N, H, W] float64 in declared ranges, finite.

    Returns:
        [N, 10] float64, columns as in `EDGE_NAMES`.

    Reference:
        Immerkær, Fast noise variance estimation, 1996, doi:10.1006/cviu.1996.0060 (for `gradient.noise`).
    """
    n = plane.shape[0]
    fine = _fine(plane) if min(plane.shape[1:]) >= 3 else [np.zeros(n)] * 7
    coarse = []
    block = plane
    for _ in SCALES:
        block = _halve(block)
        coarse.append(moments(block.reshape(n, -1))[1] if block.size else np.zeros(n))
    return np.stack([*fine, *coarse], axis=1)


def _fine(plane: Array) -> list[Array]:
    n = plane.shape[0]
    above, middle, below = plane[:, :-2], plane[:, 1:-1], plane[:, 2:]
    smooth_rows = above + 2 * middle + below
    across = smooth_rows[:, :, 2:] - smooth_rows[:, :, :-2]
    step = below - above
    down = step[:, :, :-2] + 2 * step[:, :, 1:-1] + step[:, :, 2:]
    magnitude = np.sqrt(across * across + down * down) / 8

    bend = above - 2 * middle + below  # second difference along columns
    horizontal = middle[:, :, :-2] - 2 * middle[:, :, 1:-1] + middle[:, :, 2:]
    laplacian = (bend[:, :, 1:-1] + horizontal).reshape(n, -1)
    both = bend[:, :, :-2] - 2 * bend[:, :, 1:-1] + bend[:, :, 2:]
    noise = row_mean(np.abs(both).reshape(n, -1)) * (np.sqrt(np.pi / 2) / 6)
    mean, sd, skewness, kurtosis = moments(magnitude.reshape(n, -1))
    shape = [mean, sd, signed_log(skewness), signed_log(kurtosis)]
    return [*shape, row_mean(np.abs(laplacian)), moments(laplacian)[1], noise]


def _halve(plane: Array) -> Array:
    """Average blocks of 2 x 2; an odd last row or column is left out."""
    height, width = plane.shape[1] // 2 * 2, plane.shape[2] // 2 * 2
    rows = plane[:, 0:height:2, :width] + plane[:, 1:height:2, :width]
    return (rows[:, :, 0::2] + rows[:, :, 1::2]) / 4  # type: ignore[no-any-return]
