"""A linear, invertible change of coordinates in which images of a training set have a flat spectrum.

Natural and medical images hold most of their variance in the lowest frequencies. A network that is trained in pixels
spends its capacity there and leaves the fine texture noisy or blurred. After decorrelating the channels and dividing
each frequency by its standard deviation, all scales count alike, and plain Gaussian noise already has the colour and
the spectrum of the training set.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["Whitening"]

# Upper ends of the frequency bands, as a fraction of the sampling frequency times two; the first band is the mean.
_EDGES = (1e-6, 1 / 16, 1 / 8, 7 / 32, 11 / 32, 1 / 2, 23 / 32)
_FLOOR = 0.01  # smallest standard deviation of a frequency, relative to that of a pixel


class Whitening(nn.Module):
    """Pixels to whitened images and back; both are [N, C, H, W] float32.

    Args:
        shape: (C, H, W).
    """

    bands = len(_EDGES) + 1

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = shape
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("colour", torch.eye(channels))
        self.register_buffer("scale", torch.ones(shape))
        self.register_buffer("rows", _cosines(height), persistent=False)
        self.register_buffer("columns", _cosines(width), persistent=False)
        frequency = torch.hypot(torch.arange(height)[:, None] / height, torch.arange(width)[None] / width)
        band = torch.bucketize(frequency.flatten(), torch.tensor(_EDGES))
        self.register_buffer("member", nn.functional.one_hot(band, self.bands).float(), persistent=False)  # [HW, B]
        self.register_buffer("ring", (frequency * max(height, width)).round().long(), persistent=False)

    def fit(self, images: Tensor) -> None:
        """Learn mean, colour axes and the standard deviation of each frequency ring from images [N, C, H, W]."""
        self.mean.copy_(images.mean((0, 2, 3)))
        centred = images - self.mean[:, None, None]
        pixels = centred.transpose(0, 1).flatten(1).double()
        self.colour.copy_(torch.linalg.eigh(pixels @ pixels.T / pixels.shape[1]).eigenvectors)
        power = self.spectrum(torch.einsum("nchw,cd->ndhw", centred, self.colour)).square().mean(0).flatten(1)
        ring = self.ring.flatten()
        count = torch.bincount(ring).clamp(min=1)
        total = torch.zeros(len(power), len(count)).index_add_(1, ring, power)
        floor = _FLOOR * centred.square().mean().sqrt().clamp(min=1e-6)
        self.scale.copy_((total / count).sqrt()[:, ring].view_as(self.scale).clamp(min=floor))

    def forward(self, images: Tensor) -> Tensor:
        """Whiten."""
        centred = torch.einsum("nchw,cd->ndhw", images - self.mean[:, None, None], self.colour)
        return self.field(self.spectrum(centred) / self.scale)

    def inverse(self, whitened: Tensor) -> Tensor:
        """Return to pixels."""
        centred = self.field(self.spectrum(whitened) * self.scale)
        return torch.einsum("ndhw,cd->nchw", centred, self.colour) + self.mean[:, None, None]

    def spectrum(self, field: Tensor) -> Tensor:
        """Orthonormal DCT-II over H and W."""
        return self.rows @ field @ self.columns.T

    def field(self, spectrum: Tensor) -> Tensor:
        """Inverse of `spectrum`."""
        return self.rows.T @ spectrum @ self.columns

    def energies(self, spectrum: Tensor) -> Tensor:
        """Log of the mean power in each channel and band: [N, C * B]."""
        power = spectrum.square().flatten(2) @ (self.member / self.member.sum(0).clamp(min=1))
        return (power + 1e-4).log().flatten(1)

    def of_means(self, per_band: Tensor) -> Tensor:
        """Numbers of the first band, which is the mean: [C] of [C * B], a view."""
        return per_band.view(-1, self.bands)[:, 0]

    def spread(self, per_band: Tensor) -> Tensor:
        """Lay one number per channel and band, [N, C * B], out over the frequencies: [N, C, H, W]."""
        return (per_band.unflatten(1, (-1, self.bands)) @ self.member.T).unflatten(2, self.ring.shape)


def _cosines(n: int) -> Tensor:
    """Build the orthonormal DCT-II matrix [n, n]."""
    k = torch.arange(n, dtype=torch.float64)
    matrix = torch.cos(math.pi * (k[None] + 0.5) * k[:, None] / n) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix.float()
