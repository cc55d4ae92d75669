"""From several contrasts to maps of proton density, T1 and T2, and back."""

from __future__ import annotations

import torch
from torch import Tensor

from medtrust_physics.signal import inversion_recovery, spin_echo

__all__ = ["fit_maps", "signal"]

_STEPS = 48
_PIXELS = 8192
_NOWHERE = (1000.0, 80.0)  # T1 and T2 in ms where there is no tissue


def signal(pd: Tensor, t1: Tensor, t2: Tensor, tr: Tensor, te: Tensor, ti: Tensor) -> Tensor:
    """Magnitude of a spin echo, or of an inversion recovery where `ti` is above 0; everything broadcasts, ms.

    Returns:
        The signal in the unit of `pd`.
    """
    plain: Tensor = spin_echo(pd, t1, t2, tr, te)
    inverted: Tensor = inversion_recovery(pd, t1, t2, tr, te, ti)
    return torch.where(ti > 0, inverted.abs(), plain)


def fit_maps(images: Tensor, tissue: Tensor, protocol: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fit each pixel by the best entry of a dictionary of T1 and T2; proton density is the factor that is left.

    Args:
        images: [N, C, H, W] float32, magnitudes without their noise floor.
        tissue: [N, H, W] bool, where there is signal.
        protocol: [3, C], TR, TE and TI (0 for none) in ms.

    Returns:
        Proton density in the unit of the images, 0 without tissue; T1 and T2 in ms; [N, H, W] each.

    Reference:
        Ma et al. 2013, doi:10.1038/nature11971 (matching a pixel's signals to a dictionary).
    """
    grid = torch.meshgrid(
        torch.logspace(2, 3.7, _STEPS), torch.logspace(1, 3.3, _STEPS), indexing="ij"
    )  # T1 100 … 5000 ms, T2 10 … 2000 ms
    t1, t2 = (axis.flatten() for axis in grid)
    t1, t2 = t1[t2 <= t1], t2[t2 <= t1]
    entries = signal(torch.ones(()), t1[:, None], t2[:, None], *protocol)
    unit = entries / entries.norm(dim=1, keepdim=True)
    pixels = images.permute(0, 2, 3, 1)[tissue]
    best = torch.cat([(part @ unit.T).argmax(1) for part in pixels.split(_PIXELS)] or [torch.zeros(0).long()])
    chosen = entries[best]
    density = (pixels * chosen).sum(1) / chosen.square().sum(1)
    maps = [torch.full(tissue.shape, value) for value in (0.0, *_NOWHERE)]
    for out, values in zip(maps, (density, t1[best], t2[best]), strict=True):
        out[tissue] = values
    return maps[0], maps[1], maps[2]
