"""What the FID Inception reads, in each convention by which people bring images to 299 x 299."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from medtrust.errors import DataError
from medtrust.types import Intensity

__all__ = ["CONVENTIONS", "SIDE", "prepare"]

SIDE = 299


def _half_pixel(images: torch.Tensor) -> torch.Tensor:
    """Bilinear with half-pixel centres, without antialias, on 0 … 1: pytorch-fid."""
    return 2 * _resized(images, antialias=False) - 1


def _antialiased(images: torch.Tensor) -> torch.Tensor:
    """Bilinear with antialias on 0 … 255: torchmetrics since 1.8."""
    return (_resized(images * 255, antialias=True) - 128) / 128


def _tensorflow(images: torch.Tensor) -> torch.Tensor:
    """Bilinear as TensorFlow 1 has it, sources at destination times scale, on 0 … 255: TTUR, torch-fidelity."""
    levels = images * 255
    for axis in (2, 3):
        size = levels.shape[axis]
        source = torch.arange(SIDE, device=levels.device, dtype=torch.float32) * (size / SIDE)
        low = source.floor().long().clamp_max(size - 1)
        high = (low + 1).clamp_max(size - 1)
        share = (source - low).reshape(-1, *(1,) * (3 - axis))
        below, above = levels.index_select(axis, low), levels.index_select(axis, high)
        levels = below + (above - below) * share
    return (levels - 128) / 128


def _pillow(images: torch.Tensor) -> torch.Tensor:
    """Pillow's bicubic, which widens its kernel when it reduces, per float channel, clipped to 0 … 255: clean-fid."""
    levels = (images * 255).cpu().numpy()
    out = np.empty((*levels.shape[:2], SIDE, SIDE), dtype=np.float32)
    for i, image in enumerate(levels):
        for c, plane in enumerate(image):
            out[i, c] = Image.fromarray(plane).resize((SIDE, SIDE), resample=Image.Resampling.BICUBIC)
    return (torch.from_numpy(out.clip(0, 255)).to(images.device) - 128) / 128


def _resized(images: torch.Tensor, *, antialias: bool) -> torch.Tensor:
    return torch.nn.functional.interpolate(
        images, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=antialias
    )


CONVENTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "pytorch-fid": _half_pixel,
    "clean-fid": _pillow,
    "torch-fidelity": _tensorflow,  # and torchmetrics before 1.8, or with antialias=False
    "torchmetrics": _antialiased,
}


def prepare(images: torch.Tensor, intensity: Intensity, convention: str = "pytorch-fid") -> torch.Tensor:
    """Bring images to what the network reads.

    The declared range is mapped to 0 … 1 (0 … 255 where the convention says so) in float32, never through 8 bits.

    Args:
        images: [N, C, H, W], any real dtype, in the unit of `intensity`; C is 1, which fills three channels, or 3.
        intensity: Declared range, mapped to about -1 … 1.
        convention: A key of `CONVENTIONS`.

    Returns:
        [N, 3, 299, 299] float32.

    Raises:
        DataError: Another shape, or an empty declared range.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
        raise DataError(
            f"inception reads images [N, C, H, W] with 1 or 3 channels and at least one pixel, got "
            f"{list(images.shape)}; choose one channel, or another feature space"
        )
    if not intensity.hi > intensity.lo:
        raise DataError(f"the declared range {intensity.lo} to {intensity.hi} is empty: declare the true one")
    unit = ((images.double() - intensity.lo) / (intensity.hi - intensity.lo)).float().expand(-1, 3, -1, -1)
    return CONVENTIONS[convention](unit)
