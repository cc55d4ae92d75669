"""Traits that a processing pipeline leaves in an image or its file, whatever the image shows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medtrust.images import normalise
from medtrust.types import ImageRecord, Intensity

__all__ = ["TRAITS", "Trait", "columns", "measure"]

Array = npt.NDArray[Any]
_BLOCK = 8  # side of JPEG's blocks in pixels
_LEVELS = 65536  # integer levels looked at for a common step


@dataclass(frozen=True, slots=True)
class Trait:
    """One trait.

    Args:
        name: Short name, as in the facts.
        words: What differs, as the reader is told.
        remedy: What to do about it.
        ordered: A number on a scale; otherwise a category.
        pipeline: Set by files and processing alone, so that a difference in it says nothing of the images' content.
    """

    name: str
    words: str
    remedy: str
    ordered: bool
    pipeline: bool


TRAITS: tuple[Trait, ...] = (
    Trait("format", "file format", "write all sets in one format", False, True),
    Trait("size", "image size", "bring all sets to one size", False, True),
    Trait("depth", "pixel type and bit depth", "store all sets with the same bits", False, True),
    Trait("border", "width of the constant border", "crop or pad all sets alike", True, True),
    Trait("step", "step between grey levels", "quantise all sets alike", True, True),
    Trait("levels", "share of the grey levels in use", "quantise all sets alike", True, False),
    Trait("jpeg", "8 x 8 block edges, as JPEG leaves them", "compress all sets alike, or none", True, False),
    Trait("spectrum", "share of the energy at high frequencies", "look at sharpening and resampling", True, False),
    Trait("grid", "energy on the grid of a doubled resolution", "look at the upsampling of the generator", True, False),
)


def measure(record: ImageRecord, intensity: Intensity) -> tuple[str | float, ...]:
    """Measure every trait of one image, in the order of `TRAITS`.

    Args:
        record: The image, in native values.
        intensity: Declared range.
    """
    pixels = record.pixels
    grey = normalise(pixels, intensity).astype(np.float64).mean(axis=0)
    grey = grey.reshape(-1, grey.shape[-1]) if grey.ndim != 2 else grey
    bits = record.header.attributes.get("bits_stored", "")
    step, levels = _quantisation(pixels)
    high, grid = _spectrum(grey)
    return (
        _format(record.name),
        " x ".join(map(str, pixels.shape)),
        f"{pixels.dtype}{f', {bits} bit' if bits else ''}",
        float(_border(pixels)),
        step,
        levels,
        _blockiness(grey),
        high,
        grid,
    )


def _format(name: str) -> str:
    suffix = re.search(r"\.([A-Za-z0-9]{1,5}(?:\.gz)?)(?:#.*)?$", name)
    return suffix.group(1).lower() if suffix else "none"


def _border(pixels: Array) -> int:
    """Rows and columns at the edges that hold one value only, counted on all four sides."""
    plane = pixels.reshape(-1, *pixels.shape[-2:])
    if plane.min() == plane.max():
        return 0  # a blank image is all border, or none
    total = 0
    for image in (plane, plane.transpose(0, 2, 1)):
        flat = (image == image[:, :1, :1]).all(axis=(0, 2))  # rows that equal the first corner
        total += int(np.argmin(flat))
        flat = (image == image[:, -1:, -1:]).all(axis=(0, 2))[::-1]
        total += int(np.argmin(flat))
    return total


def _quantisation(pixels: Array) -> tuple[float, float]:
    """Largest step that all levels are multiples of, and the share of the possible levels between the extremes in use.

    Float images have no levels of their own: the step is 0 and the share is that of distinct values among the pixels.
    """
    if pixels.dtype.kind not in "iu":
        return 0.0, len(np.unique(pixels)) / pixels.size
    found = np.unique(pixels.astype(np.int64))[:_LEVELS]
    if len(found) < 2:
        return 1.0, 1.0
    step = int(np.gcd.reduce(np.diff(found)))
    return float(step), len(found) / min(pixels.size, (int(found[-1]) - int(found[0])) // step + 1)


def _blockiness(grey: Array) -> float:
    """Mean second difference across the edges of 8 x 8 blocks, less that elsewhere, in standard errors."""
    score = 0.0
    for plane in (grey, grey.T):
        if plane.shape[1] < 2 * _BLOCK:
            continue
        jump = np.abs(plane[:, :-3] - 3 * plane[:, 1:-2] + 3 * plane[:, 2:-1] - plane[:, 3:]).mean(axis=0)
        phase = (np.arange(len(jump)) + 2) % _BLOCK == 0  # the difference centred between columns 8k - 1 and 8k
        rest = jump[~phase]
        score += float((jump[phase].mean() - rest.mean()) / (rest.std() / np.sqrt(phase.sum()) + 1e-9))
    return score


def _spectrum(grey: Array) -> tuple[float, float]:
    """Log share of the energy above half the Nyquist frequency, and the log excess on the lines of a doubled grid."""
    window = np.hanning(grey.shape[0] + 2)[1:-1, None] * np.hanning(grey.shape[1] + 2)[None, 1:-1]
    power = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2
    fy, fx = np.abs(np.fft.fftfreq(grey.shape[0]))[:, None], np.abs(np.fft.fftfreq(grey.shape[1]))[None]
    total = power.sum()
    if total <= 0:
        return 0.0, 0.0
    high = (np.hypot(fy, fx) > 0.25) & (np.maximum(fy, fx) <= 0.5)
    edge = high & ((fy > 0.47) | (fx > 0.47))
    inner = high & ~edge
    tiny = 1e-12 * total
    share = float(np.log((power[high].sum() + tiny) / (total + tiny)))
    return share, float(np.log((power[edge].mean() + tiny) / (power[inner].mean() + tiny))) if inner.any() else 0.0


def columns(records: Sequence[tuple[str | float, ...]]) -> list[list[str | float]]:
    """Rows of measurements as one list per trait."""
    return [[row[i] for row in records] for i in range(len(TRAITS))]
