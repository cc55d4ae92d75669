"""Known degradations at five strengths each: what a feature space must notice before its distances mean anything."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import ndimage

from medtrust.types import Intensity

__all__ = ["DEGRADATIONS", "STRENGTHS", "degrade", "scrambled"]

Array = np.ndarray[Any, Any]

STRENGTHS = 5
DEGRADATIONS = ("blur", "noise", "bias_field", "gamma", "downsampling", "texture_swap")

BLUR = (0.4, 0.7, 1.1, 1.8, 3.0)  # standard deviation in pixels of an image of 64 pixels
NOISE = (0.1, 0.2, 0.4, 0.8, 1.6)  # standard deviation in units of the images' own contrast
BIAS = (0.1, 0.2, 0.3, 0.45, 0.7)  # largest logarithm of the field
GAMMA = (1.1, 1.2, 1.4, 1.75, 2.2)  # exponent
DOWN = (1.25, 1.5, 2.0, 3.0, 4.0)  # factor
SWAP = (0.2, 0.4, 0.6, 0.8, 1.0)  # share of the fine structure's variance
FINE = 16  # fine structure is what a Gaussian of 1/16 of the shorter side takes away


def degrade(
    pixels: Array,
    kind: str,
    strength: int,
    intensity: Intensity,
    *,
    contrast: float,
    donor: Array,
    rng: np.random.Generator,
) -> Array:
    """Degrade one image; the result stays in the image's unit and is neither clipped nor rounded.

    Args:
        pixels: [C, H, W], any real dtype.
        kind: One of `DEGRADATIONS`.
        strength: 1 (hardly visible) to 5 (plain).
        intensity: Declared range: gamma bends it, and a bias field multiplies the distance from its lower end.
        contrast: Typical standard deviation within an image of the set, in the unit of `intensity`.
        donor: An image of the same shape, whose fine structure `texture_swap` puts in.
        rng: Source of noise and bias fields.

    Returns:
        [C, H, W] float32.

    Raises:
        ValueError: There is no such degradation or strength.
    """
    if kind not in DEGRADATIONS or not 1 <= strength <= STRENGTHS:
        raise ValueError(f"there is no degradation {kind!r} of strength {strength}")
    image = np.asarray(pixels, dtype=np.float64)
    at = strength - 1
    side = min(image.shape[1:])
    if kind == "blur":
        out = _smooth(image, BLUR[at] * max(1.0, side / 64))
    elif kind == "noise":
        out = image + rng.normal(0.0, NOISE[at] * contrast, image.shape)
    elif kind == "bias_field":
        out = (image - intensity.lo) * np.exp(BIAS[at] * _field(image.shape[1:], rng)) + intensity.lo
    elif kind == "gamma":
        out = _bent(image, GAMMA[at], intensity)
    elif kind == "downsampling":
        out = _coarsened(image, DOWN[at])
    else:
        coarse = _smooth(image, side / FINE)
        foreign = donor - _smooth(np.asarray(donor, dtype=np.float64), side / FINE)
        out = coarse + np.sqrt(1 - SWAP[at]) * (image - coarse) + np.sqrt(SWAP[at]) * foreign
    return out.astype(np.float32)


def scrambled(pixels: Array, rng: np.random.Generator) -> Array:
    """Give the phases of an image to chance: its power spectrum stays, its edges and its anatomy do not.

    Args:
        pixels: [C, H, W], any real dtype; all channels get the same phases, so that colours keep together.
        rng: Source of the phases.

    Returns:
        [C, H, W] float64.

    Reference:
        Theiler et al. 1992, doi:10.1016/0167-2789(92)90102-S (surrogate data).
    """
    image = np.asarray(pixels, dtype=np.float64)
    # the spectrum of white noise has the symmetry that keeps the result real
    noise = np.fft.rfft2(rng.normal(size=image.shape[1:]))
    phases = noise / np.maximum(np.abs(noise), np.finfo(np.float64).tiny)
    return np.asarray(np.fft.irfft2(np.abs(np.fft.rfft2(image)) * phases, s=image.shape[1:]))


def _smooth(image: Array, sigma: float) -> Array:
    smooth: Array = ndimage.gaussian_filter(image, (0, sigma, sigma), mode="nearest")
    return smooth


def _field(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """A random polynomial of second degree over the image, scaled to -1 … 1."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    weights = rng.normal(size=5)
    field = sum(w * term for w, term in zip(weights, (x, y, x * y, x * x - 1 / 3, y * y - 1 / 3), strict=True))
    largest = float(np.abs(field).max())
    return np.asarray(field / largest if largest > 0 else field)


def _bent(image: Array, exponent: float, intensity: Intensity) -> Array:
    """Bend the declared range; values outside it stay where they are."""
    unit = (image - intensity.lo) / (intensity.hi - intensity.lo)
    inside = (unit > 0) & (unit < 1)
    bent = np.where(inside, np.clip(unit, 0, 1) ** exponent, unit)
    return np.asarray(bent * (intensity.hi - intensity.lo) + intensity.lo)


def _coarsened(image: Array, factor: float) -> Array:
    height, width = image.shape[1:]
    small = (max(1, round(height / factor)), max(1, round(width / factor)))
    planes = torch.from_numpy(np.ascontiguousarray(image))[None]
    low = torch.nn.functional.interpolate(planes, size=small, mode="bilinear", antialias=True)
    return torch.nn.functional.interpolate(low, size=(height, width), mode="bilinear")[0].numpy()
