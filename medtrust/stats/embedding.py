"""The pixel embedding in which copies are looked for: small, centred, of unit length."""

from __future__ import annotations

import torch

from medtrust.errors import DataError
from medtrust.types import Intensity

__all__ = ["PIXEL_SIDE", "pixel_embedding"]

PIXEL_SIDE = 32
_FLAT = 1e-9  # root-mean-square contrast, as a share of the declared range, below which an image counts as constant


def pixel_embedding(images: torch.Tensor, intensity: Intensity) -> torch.Tensor:
    """Embed images so that Euclidean distance ignores brightness and contrast, and little else.

    Each channel is area-averaged to at most 32 x 32, scaled by the declared range, the mean over all channels and
    pixels is subtracted, and the rest is divided by its Euclidean norm. Hence d(a, b)² = 2 (1 - correlation).

    Args:
        images: [N, C, H, W], any real dtype, in the unit of `intensity`.
        intensity: Declared range of the pixel values.

    Returns:
        [N, C·min(H, 32)·min(W, 32)] float32; a constant image gives the zero vector, a non-finite pixel a row of NaN.

    Raises:
        DataError: The images are not [N, C, H, W] with at least one pixel, or the declared range is empty.
    """
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise DataError(f"the pixel embedding needs images [N, C, H, W], got {list(images.shape)}: reshape them first")
    if not intensity.hi > intensity.lo:
        raise DataError(f"the declared range {intensity.lo} to {intensity.hi} is empty: declare the true one")
    sides = (min(images.shape[2], PIXEL_SIDE), min(images.shape[3], PIXEL_SIDE))
    scaled = (images.double() - intensity.lo) / (intensity.hi - intensity.lo)
    if sides != tuple(images.shape[2:]):
        scaled = torch.nn.functional.adaptive_avg_pool2d(scaled, sides)
    flat = scaled.flatten(1)
    centred = flat - flat.mean(dim=1, keepdim=True)
    norm = centred.norm(dim=1, keepdim=True)
    unit = centred / norm.clamp_min(torch.finfo(torch.float64).tiny)
    return torch.where(norm <= _FLAT * flat.shape[1] ** 0.5, torch.zeros_like(unit), unit).float()
