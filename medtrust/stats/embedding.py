"""The pixel embedding in which copies are looked for: small, centred, of unit length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from medtrust.errors import DataError
from medtrust.stats.searching import DEFAULT_SEARCH, image_versions
from medtrust.types import Intensity

__all__ = ["PIXEL_SIDE", "pixel_embedding", "pixel_views"]

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
    return _centre(scaled.flatten(1)).float()


def pixel_views(
    rows: torch.Tensor, shape: tuple[int, int, int], kinds: Sequence[str] = DEFAULT_SEARCH
) -> Iterator[torch.Tensor]:
    """Make the versions of embedded images in which a copy still counts as one: mirrored, and 90 % crops, unless told.

    Args:
        rows: [N, C·h·w] rows from `pixel_embedding`.
        shape: (C, h, w) of the embedded image.
        kinds: See `image_versions`.

    Yields:
        [N, C·h·w] float64, by default the mirror image, then the crops at the four corners and the centre.
    """
    for version in image_versions(rows.double().reshape(len(rows), *shape), kinds):
        yield _centre(version.flatten(1))


def _centre(flat: torch.Tensor) -> torch.Tensor:
    """Subtract each row's mean and divide by its norm; a constant row becomes zero."""
    centred = flat - flat.mean(dim=1, keepdim=True)
    norm = centred.norm(dim=1, keepdim=True)
    return centred.div_(norm.masked_fill(norm <= _FLAT * flat.shape[1] ** 0.5, torch.inf))
