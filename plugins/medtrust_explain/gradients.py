"""Expected gradients: attributions of pixels that add up to the change of the score from real images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from medtrust.errors import ConfigError
from medtrust.types import Attribution, Score

__all__ = ["expected_gradients", "gradients_at"]

_BASELINES, _STEPS = 8, 6
_CHUNK = 256


def expected_gradients(score: Score, images: Tensor) -> Attribution:
    """Average (x - x')·∂f(x' + α(x - x')) over real images x' and over α; what is positive raises the score.

    Eight baselines with six Gauss-Legendre nodes each stand for the expectation.

    Args:
        score: What to explain; must have baselines.
        images: [N, C, H, W].

    Returns:
        Maps [N, C, H, W], and the share of the change f(x) - E f(x') that they leave unexplained, over all images.

    Raises:
        ConfigError: The score has no baselines.

    Reference:
        Erion et al. 2021, doi:10.1038/s42256-021-00343-w; `captum.attr.GradientShap` draws α and x' at random instead.
    """
    if score.baselines is None or not len(score.baselines):
        raise ConfigError("expected_gradients needs baselines: real images that stand for nothing to see")
    baselines = score.baselines[:_BASELINES].to(images)
    nodes, weights = np.polynomial.legendre.leggauss(_STEPS)
    alphas = torch.from_numpy((nodes + 1) / 2).repeat(len(baselines))
    picks = torch.arange(len(baselines)).repeat_interleave(_STEPS)
    shares = torch.from_numpy(weights / 2).repeat(len(baselines)) / len(baselines)
    maps = torch.zeros_like(images, dtype=torch.float64)
    for pick, alpha, share in zip(picks.tolist(), alphas.tolist(), shares.tolist(), strict=True):
        at = torch.full((len(images),), alpha, dtype=images.dtype)
        maps += share * gradients_at(score, images, baselines[pick].expand_as(images), at).double()
    with torch.no_grad():
        change = score(images).double() - score(baselines).double().mean()
    gap = (maps.flatten(1).sum(1) - change).abs().sum()
    return Attribution(maps.to(images.dtype), float(gap / change.abs().sum().clamp_min(1e-12)))


def gradients_at(score: Score, images: Tensor, baselines: Tensor, alphas: Tensor) -> Tensor:
    """(x - x')·∂f at one point of the way from each baseline to its image, [N, C, H, W].

    Args:
        score: What to explain.
        images: [N, C, H, W].
        baselines: [N, C, H, W].
        alphas: [N]; 0 is the baseline, 1 the image.
    """
    parts = []
    for start in range(0, len(images), _CHUNK):
        rows = slice(start, start + _CHUNK)
        step = (images[rows] - baselines[rows]).detach()
        point = (baselines[rows] + alphas[rows].view(-1, 1, 1, 1).to(images) * step).requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(score(point).sum(), point)
        parts.append(step * gradient)
    return torch.cat(parts) if parts else torch.zeros_like(images)
