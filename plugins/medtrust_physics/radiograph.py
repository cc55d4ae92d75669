"""Digitally reconstructed radiographs: what a CT volume would look like on an X-ray detector, by parallel rays."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from medtrust.errors import DataError
from medtrust_physics.tomography import WATER, ParallelBeam

__all__ = ["radiograph"]


def radiograph(volume: Tensor, angles: int | Tensor, *, pixel_mm: float) -> Tensor:
    """Integrate the attenuation of a CT volume along parallel rays across its slices; carries gradients.

    Each slice gives one row. Rays are parallel, as from a source far away, and of one energy: neither magnification nor
    beam hardening is modelled.

    Args:
        volume: [D, H, W] in HU, slices first, pixels square; below -1000 counts as nothing.
        angles: [A] in degrees, or how many, spread evenly over the half turn; at 0 rays run down the columns, at 90
            along the rows.
        pixel_mm: Side of a pixel in mm.

    Returns:
        [A, D, max(H, W)] float32, the integral of attenuation: a share exp(-value) of the photons comes through.

    Raises:
        DataError: No volume, or no side.

    Reference:
        Kak and Slaney 1988, Principles of Computerized Tomographic Imaging, chapter 3; attenuation of water at 70 keV.
    """
    if volume.ndim != 3 or not volume.numel() or not bool(volume.isfinite().all()):
        raise DataError(f"a radiograph needs a finite volume [D, H, W] in HU, this is {list(volume.shape)}")
    if not pixel_mm > 0:
        raise DataError(f"the side of a pixel is {pixel_mm} mm; it must be above 0")
    attenuation = WATER * pixel_mm * (1 + volume.float() / 1000).clamp(min=0)
    height, width = attenuation.shape[1:]
    size = max(height, width, 2)
    # The turning point of the beam is pixel size // 2; a slice that is not square keeps its own there.
    top, left = size // 2 - height // 2, size // 2 - width // 2
    square = functional.pad(attenuation, (left, size - width - left, top, size - height - top))
    return ParallelBeam(size, angles, torch.float32).project(square).transpose(0, 1)
