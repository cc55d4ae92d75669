"""The default feature space: hand-made, without weights, each number readable by a person."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch

from medtrust.types import Intensity
from medtrust_features.edges import EDGE_NAMES, edge_features
from medtrust_features.planes import as_array, chroma, luminance, scaled
from medtrust_features.rows import FLAT, entropy, moments, ratio, row_mean, signed_log
from medtrust_features.texture import GLCM_NAMES, glcm_features, quantise

__all__ = ["Radiomics"]

Array = np.ndarray[Any, Any]

VERSION = "2"
CHUNK_PIXELS = 65536  # pixels of one plane worked on at a time: a few half-megabyte arrays, which stay in the cache
DECIMALS = 12  # the colour difference of a grey image is zero, not the rounding noise of the luma weights

FIRST_ORDER_NAMES = (
    "firstorder.mean",
    "firstorder.sd",
    "firstorder.log_skewness",
    "firstorder.log_kurtosis",
    "firstorder.minimum",
    "firstorder.p10",
    "firstorder.p25",
    "firstorder.median",
    "firstorder.p75",
    "firstorder.p90",
    "firstorder.maximum",
    "firstorder.mean_absolute_deviation",
    "firstorder.root_mean_square",
    "firstorder.entropy",
    "firstorder.uniformity",
)
COLOUR_NAMES = (
    *(
        f"colour.{plane}_{statistic}"
        for plane in ("cb", "cr")
        for statistic in ("mean", "sd", "log_skewness", "p10", "p90")
    ),
    "colour.correlation_y_cb",
    "colour.correlation_y_cr",
    "colour.correlation_cb_cr",
)
QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


class Radiomics:
    """First-order statistics, co-occurrence texture, edges and colour, all over the declared intensity range.

    The grey plane is the channel of a grey image and the BT.601 luma of a colour image. Colour is described by the two
    colour differences; a grey image has zeros there. Third and fourth moments enter by their logarithms or roots, lest
    one flat image with a bright spot outweigh a thousand others. Runs on the CPU in float64: row i has the same bits in
    any batch.

    Args:
        bins: Grey levels over the declared range, for histogram and co-occurrence; a multiple of 16.
        device: Accepted as from every feature space; the arithmetic stays on the CPU.

    Raises:
        ValueError: `bins` is not a positive multiple of 16.

    Reference:
        Image Biomarker Standardisation Initiative, arXiv:1612.07003.
    """

    standardise = True  # columns have unlike scales, so distances need them divided by their spread in train
    names: tuple[str, ...] = (*FIRST_ORDER_NAMES, *GLCM_NAMES, *EDGE_NAMES, *COLOUR_NAMES)

    def __init__(self, bins: int = 32, *, device: str = "cpu") -> None:
        if bins < 16 or bins % 16:
            raise ValueError(f"bins must be a positive multiple of 16, got {bins}")
        self.bins = bins

    @property
    def digest(self) -> str:
        """Digest of version, bins and columns."""
        text = "\n".join(("radiomics", VERSION, str(self.bins), *self.names))
        return hashlib.sha256(text.encode()).hexdigest()

    def extract(self, images: torch.Tensor, intensity: Intensity) -> torch.Tensor:
        """Describe each image.

        Args:
            images: [N, C, H, W], any real dtype, in the unit of `intensity`; C is 1 or 3.
            intensity: Declared range; it fixes the bins, so that no image is stretched to its own extremes.

        Returns:
            [N, 51] float32; a row of NaN for an image that holds a non-finite pixel.

        Raises:
            DataError: Another shape, or an empty declared range.
        """
        pixels = as_array(images, "radiomics")
        step = max(1, CHUNK_PIXELS // (pixels.shape[2] * pixels.shape[3]))
        parts = [self._describe(scaled(pixels[i : i + step], intensity)) for i in range(0, len(pixels), step)]
        values = np.concatenate(parts) if parts else np.zeros((0, len(self.names)))
        return torch.from_numpy(values.astype(np.float32))

    def _describe(self, unit: Array) -> Array:
        finite = np.isfinite(unit).all(axis=(1, 2, 3))
        unit[~finite] = 0.0
        grey = np.ascontiguousarray(luminance(unit))
        parts = (
            _first_order(grey, self.bins),
            glcm_features(grey, self.bins),
            edge_features(grey),
            _colour(unit, grey),
        )
        values = np.round(np.concatenate(parts, axis=1), DECIMALS)
        values[~finite] = np.nan
        return values


def _quantiles(rows: Array, shares: tuple[float, ...]) -> list[Array]:
    """Quantiles of [N, K] with linear interpolation between order statistics."""
    ordered = np.sort(rows, axis=1)
    out = []
    for share in shares:
        position = share * (rows.shape[1] - 1)
        low = int(position)
        high = min(low + 1, rows.shape[1] - 1)
        out.append(ordered[:, low] + (position - low) * (ordered[:, high] - ordered[:, low]))
    return out


def _first_order(grey: Array, bins: int) -> Array:
    n, k = grey.shape[0], grey.shape[1] * grey.shape[2]
    rows = grey.reshape(n, k)
    mean, sd, skewness, kurtosis = moments(rows)
    levels = quantise(rows, bins) + np.arange(n)[:, None] * bins
    counts = np.bincount(levels.ravel(), minlength=n * bins).reshape(n, bins)
    columns = (
        mean,
        sd,
        signed_log(skewness),
        signed_log(kurtosis),
        *_quantiles(rows, QUANTILES),
        row_mean(np.abs(rows - mean[:, None])),
        np.sqrt(row_mean(rows * rows)),
        entropy(counts, k) / np.log2(bins),
        (counts * counts).sum(axis=1) / (float(k) * k),
    )
    return np.stack(columns, axis=1)


def _colour(unit: Array, grey: Array) -> Array:
    n = unit.shape[0]
    if unit.shape[1] == 1:
        return np.zeros((n, len(COLOUR_NAMES)))
    planes = [plane.reshape(n, -1) for plane in (grey, *chroma(unit, grey))]
    columns: list[Array] = []
    for plane in planes[1:]:
        mean, sd, skewness, _ = moments(plane)
        columns += [mean, sd, signed_log(skewness), *_quantiles(plane, (0.1, 0.9))]
    columns += [_correlation(planes[a], planes[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    return np.stack(columns, axis=1)


def _correlation(a: Array, b: Array) -> Array:
    """Pearson correlation of the rows of two [N, K]; 0 where either is constant."""
    a, b = a - row_mean(a)[:, None], b - row_mean(b)[:, None]
    sd_a, sd_b = np.sqrt(row_mean(a * a)), np.sqrt(row_mean(b * b))
    return ratio(row_mean(a * b), sd_a * sd_b, (sd_a >= FLAT) & (sd_b >= FLAT), 0.0)
