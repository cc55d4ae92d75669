"""Float64 torch twins: the plain definition of every op, on any device, differentiable where that makes sense."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["ssim_planes"]


def _filtered(maps: Tensor, taps: Sequence[float], reflect: bool) -> Tensor:
    """Separable filter of `[P, 1, (D,) H, W]` float64 maps, valid or with a mirrored border."""
    weights = torch.tensor(taps, dtype=torch.float64, device=maps.device)
    axes = maps.ndim - 2
    convolve = functional.conv2d if axes == 2 else functional.conv3d
    if reflect:
        maps = functional.pad(maps, [len(taps) // 2] * (2 * axes), mode="reflect")
    for axis in range(axes):
        shape = [1, 1, *(len(taps) if a == axis else 1 for a in range(axes))]
        maps = convolve(maps, weights.reshape(shape))
    return maps


def ssim_planes(
    x: Tensor, y: Tensor, taps: Sequence[float], c1: float, c2: float, covariance: float, reflect: bool
) -> Tensor:
    """Mean SSIM and contrast-structure of each channel.

    Args:
        x: Images `[N, C, H, W]` or `[N, C, D, H, W]`, any real dtype.
        y: The same shape.
        taps: Weights of the separable window along one axis, summing to 1.
        c1: Luminance constant (k1 L)^2.
        c2: Contrast constant (k2 L)^2.
        covariance: n / (n - 1) for sample covariance, 1 for population covariance.
        reflect: Mirror the border instead of using valid windows only.

    Returns:
        `[2, N, C]` float64: SSIM, then its contrast-structure factor.
    """
    shape = (-1, 1, *x.shape[2:])
    a, b = x.to(torch.float64).reshape(shape), y.to(torch.float64).reshape(shape)
    # Variance does not change with a constant; subtracting the plane's mean keeps float64 exact at any offset.
    dims = tuple(range(2, a.ndim))
    mean_a, mean_b = a.mean(dims, keepdim=True).detach(), b.mean(dims, keepdim=True).detach()
    a, b = a - mean_a, b - mean_b
    mu_a, mu_b = _filtered(a, taps, reflect), _filtered(b, taps, reflect)
    variances = covariance * (_filtered(a * a + b * b, taps, reflect) - mu_a**2 - mu_b**2)
    shared = covariance * (_filtered(a * b, taps, reflect) - mu_a * mu_b)
    mu_a, mu_b = mu_a + mean_a, mu_b + mean_b
    contrast = (2 * shared + c2) / (variances + c2)
    full = contrast * (2 * mu_a * mu_b + c1) / (mu_a**2 + mu_b**2 + c1)
    return torch.stack([m.mean(dims) for m in (full, contrast)]).reshape(2, *x.shape[:2])
