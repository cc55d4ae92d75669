"""A perceptual hash: which coarse waves of the luminance are stronger than the median one."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from medtrust.types import Intensity
from medtrust_features.planes import as_array, luminance, scaled
from medtrust_features.rows import row_sum

__all__ = ["PerceptualHash"]

VERSION = "1"
SIDE = 32
LOW = 8
DECIMALS = 9  # coefficients are compared after rounding, so that a flat image hashes to zeros and not to rounding noise


def _waves() -> np.ndarray:
    """The LOW lowest rows [LOW, SIDE] of the orthonormal DCT-II."""
    k, x = np.arange(LOW)[:, None], np.arange(SIDE)[None, :]
    waves: np.ndarray = np.cos(np.pi * (2 * x + 1) * k / (2 * SIDE)) * np.sqrt(np.where(k == 0, 1, 2) / SIDE)
    return waves


class PerceptualHash:
    """64 bits as 0.0 and 1.0: squared Euclidean distance is then the Hamming distance.

    The luminance in declared ranges is area-averaged to 32 x 32; bit (u, v) says whether DCT coefficient (u, v) of the
    lowest 8 x 8 lies above their median. Brightness, contrast, mild noise and recompression leave most bits alone.

    Args:
        device: Accepted as from every feature space; the arithmetic stays on the CPU.

    Reference:
        Zauner, Implementation and benchmarking of perceptual image hash functions, 2010 (DCT hash).
    """

    standardise = False
    names: tuple[str, ...] = tuple(f"dct_{u}_{v}" for u in range(LOW) for v in range(LOW))

    def __init__(self, *, device: str = "cpu") -> None:
        self.waves = _waves()

    @property
    def digest(self) -> str:
        """Digest of version and sizes."""
        return hashlib.sha256(f"phash\n{VERSION}\n{SIDE}\n{LOW}\n{DECIMALS}".encode()).hexdigest()

    def extract(self, images: torch.Tensor, intensity: Intensity) -> torch.Tensor:
        """Hash each image.

        Args:
            images: [N, C, H, W], any real dtype, in the unit of `intensity`; C is 1 or 3.
            intensity: Declared range.

        Returns:
            [N, 64] float32 of 0 and 1; a row of NaN for an image that holds a non-finite pixel.

        Raises:
            DataError: Another shape, or an empty declared range.
        """
        pixels = as_array(images, "phash")
        rows = [self._hash(scaled(pixels[i : i + 1], intensity)) for i in range(len(pixels))]
        return torch.from_numpy(np.concatenate(rows)) if rows else torch.zeros(0, LOW * LOW)

    def _hash(self, unit: np.ndarray) -> np.ndarray:
        if not np.isfinite(unit).all():
            return np.full((1, LOW * LOW), np.nan, dtype=np.float32)
        small = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(luminance(unit)), SIDE).numpy()[0]
        by_column = row_sum(self.waves[:, None, :] * small.T)  # [LOW, SIDE]: along each column
        coefficients = row_sum(by_column[:, None, :] * self.waves)  # [LOW, LOW]
        flat = np.round(coefficients, DECIMALS).reshape(1, -1)
        return (flat > np.median(flat)).astype(np.float32)
