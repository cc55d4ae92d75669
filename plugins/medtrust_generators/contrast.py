"""How strong each frequency band of an image is, as a factor apart from what the image shows.

Some patches are smooth and some rough, far more so than a field of one roughness: a whitened spectrum has heavy tails.
A diffusion in few steps does not learn them. Divided by the strength of its own bands, every image is equally rough;
the strengths are a few numbers that a normal distribution describes well, and the network is told them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medtrust import ops
from medtrust_generators.conditions import Condition
from medtrust_generators.whitening import Whitening

__all__ = ["Contrast"]

_LEAST = 8  # coefficients that a band needs for its power to say more than its content
_PLACE = 2**41  # step of the noise that draws strengths, far from any sampler's
_RIDGE = 0.1


class Contrast(nn.Module):
    """Splits whitened images into strengths, the log power of each channel and band, and images of equal strength.

    Args:
        whitening: Knows the bands; belongs to the model.
        channels: Of the images.
        condition: What strengths may depend on; belongs to the model.
        embedding: Length of the condition's vector.
    """

    def __init__(self, whitening: Whitening, channels: int, condition: Condition, embedding: int) -> None:
        super().__init__()
        self._of = (whitening, condition)  # a tuple, so that they are not counted as parts of this module
        self.count = channels * whitening.bands
        keep = (whitening.member.sum(0) >= _LEAST).float().repeat(channels)
        self.register_buffer("keep", keep, persistent=False)
        told = embedding * (condition.facts.get("kind") in ("label", "text")) + condition.planes * whitening.bands
        for name in ("mean", "lo", "hi"):
            self.register_buffer(name, torch.zeros(self.count))
        self.register_buffer("spread", torch.ones(self.count))
        self.register_buffer("factor", torch.eye(self.count))
        self.register_buffer("slope", torch.zeros(told, self.count))
        self.register_buffer("centre", torch.zeros(told))

    def fit(self, images: Tensor) -> None:
        """Learn the range of strengths and means from whitened images [N, C, H, W]."""
        strengths = self.measure(images)
        self.mean.copy_(strengths.mean(0))
        self.spread.copy_(strengths.std(0, unbiased=False).clamp(min=1e-3))
        self.lo.copy_(strengths.amin(0))
        self.hi.copy_(strengths.amax(0))
        means = images.mean((2, 3))  # the first band of a channel is its mean alone, and has no strength
        self._of[0].of_means(self.lo).copy_(means.amin(0))
        self._of[0].of_means(self.hi).copy_(means.amax(0))

    def measure(self, images: Tensor) -> Tensor:
        """Strengths [N, count] of whitened images; 0 for bands of few coefficients."""
        whitening = self._of[0]
        return torch.cat([whitening.energies(whitening.spectrum(part)) for part in images.split(256)]) * self.keep

    def even(self, images: Tensor) -> Tensor:
        """Divide whitened images by their strengths."""
        return self.scaled(images, torch.zeros_like(self.mean).expand(len(images), -1))

    def scaled(self, images: Tensor, strengths: Tensor) -> Tensor:
        """Give images these strengths, whatever they had before."""
        whitening = self._of[0]
        spectrum = whitening.spectrum(images)
        change = strengths - whitening.energies(spectrum) * self.keep
        return whitening.field(spectrum * whitening.spread(change / 2).exp())

    def within(self, images: Tensor) -> Tensor:
        """Shift whitened images so that no channel's mean lies beyond the training set's range."""
        means, (lo, hi) = images.mean((2, 3)), (self._of[0].of_means(end) for end in (self.lo, self.hi))
        return images + (means.clamp(lo, hi) - means)[:, :, None, None]

    def standard(self, strengths: Tensor) -> Tensor:
        """Strengths in their standard deviations from the mean, as the network reads them; 0 where nothing is known."""
        return (strengths - self.mean) / self.spread

    def finish(self, images: Tensor, codes: Tensor) -> None:
        """Learn how strengths depend on the condition, and how they vary around that: a normal distribution."""
        y = self.standard(self.measure(images)).double()
        x = self._told(codes)
        if x is not None:
            x = x.double()
            self.centre.copy_(x.mean(0))
            x = x - x.mean(0)
            gram = x.T @ x / len(x)
            ridge = _RIDGE * gram.diagonal().mean().clamp(min=1e-9)
            slope = torch.linalg.solve(gram + ridge * torch.eye(len(gram)).to(gram), x.T @ y / len(x))
            self.slope.copy_(slope)
            y = y - x @ slope
        y = y - y.mean(0)
        self.factor.copy_(torch.linalg.cholesky(y.T @ y / len(y) + 1e-6 * torch.eye(self.count).to(y)))

    def draw(self, seed: int, first: int, codes: Tensor) -> Tensor:
        """Draw strengths [N, count] that fit the codes, within the range of the training set."""
        noise = ops.philox_normal((len(codes), self.count), seed, _PLACE, codes.device, first=first)
        standard = noise @ self.factor.T
        told = self._told(codes)
        if told is not None:
            standard = standard + (told - self.centre) @ self.slope
        return (standard * self.spread + self.mean).clamp(self.lo, self.hi) * self.keep

    def _told(self, codes: Tensor) -> Tensor | None:
        whitening, condition = self._of
        vector, planes = condition.vector(codes), condition.picture(codes)
        if planes is not None:
            return torch.cat([whitening.energies(whitening.spectrum(part)) for part in planes.split(256)])
        return vector
