"""Where an image adds to the Fréchet distance: the distance as a score of single images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medtrust import Insufficient
from medtrust.types import Score

__all__ = ["frechet_influence", "frechet_score"]


def frechet_influence(synthetic: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """First-order effect on the Fréchet distance of one more synthetic image, as a quadratic form of its features.

    With means m, r and covariances S, R of synthetic and real features, one image with features f added to n moves the
    distance by I(f) / (n + 1) + O(1/n²), where I(f) = 2(m - r)·(f - m) + (f - m)ᵀ(1 - T)(f - m) - tr((1 - T)S) and T is
    the optimal transport map from S to R.

    Args:
        synthetic: [n, d] float64.
        real: [k, d] float64.

    Returns:
        m [d], the slope 2(m - r) [d], the curvature 1 - T [d, d], and the constant [].

    Raises:
        Insufficient: Fewer images than features, so that S has no inverse.
    """
    n, d = synthetic.shape
    if n <= d or len(real) <= d:
        raise Insufficient(f"the Fréchet map of {d} features needs more than {d} images in each set, it has {n}")
    m, r = synthetic.mean(0), real.mean(0)
    s, t = torch.cov(synthetic.T).reshape(d, d), torch.cov(real.T).reshape(d, d)
    root = _power(s, 0.5)
    back = _power(s, -0.5)
    transport = back @ _power(root @ t @ root, 0.5) @ back
    curvature = torch.eye(d, dtype=s.dtype) - transport
    return m, 2 * (m - r), curvature, (curvature * s).sum()


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    floor = values[-1].clamp_min(1e-300) * 1e-12
    return (vectors * values.clamp_min(float(floor)) ** exponent) @ vectors.T


def frechet_score(network: nn.Module, synthetic: Tensor, real: Tensor, layer: str = "") -> Score:
    """Score an image by how much it adds to the Fréchet distance in the features of a network.

    Args:
        network: Maps images [N, C, H, W] to features [N, d].
        synthetic: Images [n, C, H, W] of the generator.
        real: Real images [k, C, H, W].
        layer: Layer for class activation maps; empty leaves the choice to the explainer.

    Reference:
        Kynkäänniemi et al. 2023, arXiv:2203.06026, who add the image to the moments and differentiate; this is that
        derivative's limit in closed form, so that 1000 images cost one pass.
    """
    with torch.no_grad():
        features = [torch.cat([network(p) for p in x.split(256)]).double() for x in (synthetic, real)]
    centre, slope, curvature, constant = frechet_influence(*features)

    def score(images: Tensor) -> Tensor:
        away = network(images).double() - centre
        return away @ slope + ((away @ curvature) * away).sum(1) - constant

    return Score(score, network, layer, real)
