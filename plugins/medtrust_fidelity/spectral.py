"""Power spectra of images and of their noise, averaged over directions, in decibels relative to the declared range."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from medtrust import Insufficient
from medtrust.types import Intensity, SetData

__all__ = ["FLOOR_DB", "noise_spectrum", "on_common_grid", "radial_spectrum", "spectra_of"]

Array = np.ndarray[Any, Any]
Spectrum = tuple[Array, Array]

FLOOR_DB = -120.0  # power that counts as none: 24 bits below full range
LEAST_SIDE = 16
_SHARE_OF_PATCHES = 0.25  # the flattest ones, in which structure hides least of the noise
_GRID = 32


def radial_spectrum(planes: Array) -> Spectrum:
    """Power of planes against spatial frequency, averaged over directions.

    Each plane's mean is taken off, and a Hann window laid on so that opposite borders may differ.

    Args:
        planes: [K, H, W] float64 in declared ranges (0 … 1).

    Returns:
        Frequencies [B] in cycles per pixel, from 1/side to 1/2, and power [B] in dB of a full range squared.
    """
    window = np.outer(np.hanning(planes.shape[1] + 2)[1:-1], np.hanning(planes.shape[2] + 2)[1:-1])
    mean = (planes * window).sum(axis=(1, 2), keepdims=True) / window.sum()
    power = np.abs(np.fft.fft2((planes - mean) * window)) ** 2 / (window**2).sum()
    return _radial(power.mean(axis=0))


def noise_spectrum(planes: Array, patch: int) -> Spectrum | None:
    """Power spectrum of what is left of the flattest patches without their quadratic trend.

    Args:
        planes: [K, H, W] float64 in declared ranges.
        patch: Pixels per side of a patch.

    Returns:
        As `radial_spectrum`; None where every patch is constant, as in an image without noise.

    Reference:
        IEC 62220-1 and Dobbins et al. 2006, doi:10.1118/1.2188816: detrended regions, periodograms averaged.
    """
    rows, columns = planes.shape[1] // patch, planes.shape[2] // patch
    cut = planes[:, : rows * patch, : columns * patch]
    patches = cut.reshape(len(planes), rows, patch, columns, patch).transpose(0, 1, 3, 2, 4).reshape(-1, patch**2)
    trend = _trends(patch)
    residual = patches - (patches @ trend) @ trend.T
    variance = (residual**2).mean(axis=1)
    noisy = variance > 10 ** (FLOOR_DB / 10)  # saturated background has none
    if not noisy.any():
        return None
    order = np.argsort(variance[noisy], kind="stable")
    chosen = residual[noisy][order[: max(1, math.ceil(_SHARE_OF_PATCHES * len(order)))]]
    power = np.abs(np.fft.fft2(chosen.reshape(-1, patch, patch))) ** 2 / patch**2
    return _radial(power.mean(axis=0))


def spectra_of(data: SetData, intensity: Intensity, patch: int | None) -> list[Spectrum | None]:
    """Spectrum of each image of a set; of its noise where `patch` is given.

    Args:
        data: The set; volumes are read plane by plane.
        intensity: Declared range, in which power is measured.
        patch: Pixels per side of the patches that noise is taken from; None for the whole image.

    Raises:
        Insufficient: An image is smaller than 16 pixels, or than two patches; or holds values that are not finite.
    """
    found = []
    least = LEAST_SIDE if patch is None else 2 * patch
    for record in data.images:
        pixels = record.pixels
        height, width = pixels.shape[-2:]
        if min(height, width) < least:
            raise Insufficient(f"{record.name} of {data.name} has {height} x {width} pixels; {least} a side are needed")
        if not np.isfinite(pixels).all():
            raise Insufficient(f"{record.name} of {data.name} holds values that are not finite: leave it out")
        planes = (pixels.reshape(-1, height, width).astype(np.float64) - intensity.lo) / (intensity.hi - intensity.lo)
        found.append(radial_spectrum(planes) if patch is None else noise_spectrum(planes, patch))
    return found


def on_common_grid(spectra: dict[str, list[Spectrum | None]]) -> tuple[Array, dict[str, Array]]:
    """Interpolate spectra of images of any size to the frequencies that all of them have.

    Args:
        spectra: Per set, the spectrum of each image; None, no noise at all, becomes the floor.

    Returns:
        Frequencies [32] in cycles per pixel, and per set [n, 32] dB.
    """
    lowest = max((one[0][0] for of_set in spectra.values() for one in of_set if one is not None), default=1 / 16)
    grid = np.linspace(lowest, 0.5, _GRID)
    return grid, {
        name: np.stack([np.full(_GRID, FLOOR_DB) if one is None else np.interp(grid, *one) for one in of_set])
        for name, of_set in spectra.items()
    }


def _radial(power: Array) -> Spectrum:
    """Average power [H, W] over rings of equal spatial frequency."""
    frequency, ring, counts = _rings(*power.shape)
    mean = np.bincount(ring.ravel(), power.ravel())[1 : len(counts)] / counts[1:]
    return frequency, np.maximum(10 * np.log10(np.maximum(mean, 1e-300)), FLOOR_DB)


@lru_cache(maxsize=64)
def _rings(height: int, width: int) -> tuple[Array, Array, Array]:
    """Frequency of each ring without the first, which holds the mean; ring of each pixel; pixels per ring."""
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    last = min(height, width) // 2
    ring = np.rint(radius * min(height, width)).astype(int)
    ring[ring > last] = last + 1  # the corners beyond the Nyquist frequency of the axes
    counts = np.bincount(ring.ravel(), minlength=last + 2)[: last + 1]
    sums = np.bincount(ring.ravel(), radius.ravel(), minlength=last + 2)[: last + 1]
    return np.minimum(sums[1:] / counts[1:], 0.5), ring, counts


@lru_cache(maxsize=8)
def _trends(patch: int) -> Array:
    """Orthonormal columns [patch², 6] that span the quadratic surfaces."""
    y, x = np.mgrid[-1 : 1 : patch * 1j, -1 : 1 : patch * 1j]
    surfaces = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).reshape(-1, 6)
    return np.linalg.qr(surfaces)[0]
