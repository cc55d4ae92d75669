"""Variational autoencoder that learns texture as well as shape.

Reference: Kingma, Welling, arXiv:1312.6114; a learned noise level in place of a hand-set weight of the divergence, as
in Rybkin, Daniilidis, Levine, arXiv:2006.13202, here for each channel and frequency band and for each image.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from medtrust import ops
from medtrust_generators.conditions import make_condition
from medtrust_generators.factory import NeuralFactory
from medtrust_generators.model import Draw, Model
from medtrust_generators.neural import NeuralGenerator
from medtrust_generators.options import Options
from medtrust_generators.unet import levels_for, padding_to
from medtrust_generators.whitening import Whitening

__all__ = ["Vae", "VaeModel"]

_LOG_SIGMA = (-5.0, 2.0)


class VaeModel(Model):
    """Encoder, decoder of the mean, and decoder of the noise level of each frequency band, over whitened images.

    A sample is mean plus noise of that level: blurred means would lack the texture that the decoder knows is there.

    Args:
        shape: (C, H, W).
        width: Channels of the finest convolution.
        latent: Length of the code.
        condition: What the card says of the condition.
        temperature: Factor on the spread of sampled codes: below 1, fewer odd images and less variety.
    """

    def __init__(
        self, shape: tuple[int, int, int], width: int, latent: int, condition: dict[str, Any], temperature: float
    ) -> None:
        super().__init__()
        self.shape = shape
        self.latent = latent
        self.temperature = temperature
        self.condition = make_condition(condition, shape, latent)
        self.whitening = Whitening(shape)
        channels, height, columns = shape
        steps = levels_for(height, columns, 4)
        self.padding = padding_to(height, columns, 2**steps)
        sizes = [width * min(2**level, 4) for level in range(steps)]
        self.coarse = (sizes[-1], -(-height // 2**steps), -(-columns // 2**steps))
        asked = latent if condition else 0
        flat, energies = math.prod(self.coarse), channels * self.whitening.bands
        down: list[nn.Module] = []
        for a, b in itertools.pairwise([channels, *sizes]):
            down += [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.SiLU()]
        self.encode = nn.Sequential(*down, nn.Flatten())
        self.code = nn.Linear(flat + energies + asked, 2 * latent)
        self.decode = nn.Sequential(nn.Linear(latent + asked, flat), nn.SiLU(), nn.Unflatten(1, self.coarse))
        up: list[nn.Module] = []
        for a, b in itertools.pairwise(sizes[::-1]):
            up += [nn.Upsample(scale_factor=2.0), nn.Conv2d(a, b, 3, padding=1), nn.SiLU()]
        self.mean = nn.Sequential(*up, nn.Conv2d(width, 4 * channels, 3, padding=1), nn.PixelShuffle(2))
        self.level = nn.Sequential(nn.Linear(latent + asked, 4 * width), nn.SiLU(), nn.Linear(4 * width, energies))
        self.register_buffer("code_mean", torch.zeros(latent))
        self.register_buffer("code_factor", torch.eye(latent))

    def _told(self, x: Tensor, codes: Tensor) -> Tensor:
        """Join what is asked for to x [N, d]."""
        asked = self.condition.vector(codes)
        return x if asked is None else torch.cat([x, asked], 1)

    def posterior(self, images: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of the code, [N, latent] each."""
        padded = functional.pad(images, self.padding, mode="replicate")
        energies = self.whitening.energies(self.whitening.spectrum(images)) / 2
        mean, log_sigma = self.code(self._told(torch.cat([self.encode(padded), energies], 1), codes)).chunk(2, 1)
        return mean, log_sigma.clamp(-7, 2)

    def likelihood(self, code: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Mean image and log standard deviation of each frequency, [N, C, H, W] each."""
        code = self._told(code, codes)
        mean = self.mean(self.decode(code))[:, :, : self.shape[1], : self.shape[2]]
        return mean, self.whitening.spread(self.level(code).clamp(*_LOG_SIGMA))

    def loss(self, images: Tensor, codes: Tensor, rng: torch.Generator) -> Tensor:
        """Negative evidence lower bound in nats per pixel and channel, less a constant."""
        codes = self.condition.drop(codes, 0.1, rng)
        centre, log_spread = self.posterior(images, codes)
        draw = torch.randn(centre.shape, generator=rng).to(images.device)
        mean, log_sigma = self.likelihood(centre + draw * log_spread.exp(), codes)
        scaled = self.whitening.spectrum(images - mean) * (-log_sigma).exp()
        reconstruction = (scaled.square() / 2 + log_sigma).sum((1, 2, 3))
        divergence = (centre.square() / 2 + (2 * log_spread).exp() / 2 - log_spread - 0.5).sum(1)
        return (reconstruction + divergence).mean() / images[0].numel()

    def finish(self, images: Tensor, codes: Tensor) -> None:
        """Learn where codes lie on average: a normal distribution with their mean and covariance.

        The standard normal prior leaves regions that no image maps to; samples from there look like nothing.
        """
        parts = [self.posterior(*part) for part in zip(images.split(256), codes.split(256), strict=True)]
        centre = torch.cat([mean for mean, _ in parts]).double()
        spread = torch.cat([log_spread for _, log_spread in parts]).double().mul(2).exp().mean(0)
        apart = centre - centre.mean(0)
        self.code_mean.copy_(centre.mean(0))
        self.code_factor.copy_(torch.linalg.cholesky(apart.T @ apart / len(apart) + spread.diag()))

    def generate(self, draw: Draw, codes: Tensor) -> Tensor:
        """Decode noise to whitened images."""
        shape = (draw.n, *self.shape)
        code = ops.philox_normal((draw.n, self.latent), draw.seed, 0, draw.device, first=draw.first)
        grain = ops.philox_normal(shape, draw.seed, 1, draw.device, first=draw.first)
        mean, log_sigma = self.likelihood(self.temperature * code @ self.code_factor.T + self.code_mean, codes)
        return mean + self.whitening.field(grain * log_sigma.exp())


class VaeGenerator(NeuralGenerator):
    """A VAE whose code is open: a `medtrust.types.Encoder` and `Decoder`."""

    _model: VaeModel

    @staticmethod
    def abilities(model: Model) -> dict[str, Any]:
        """Further fields of `caps`."""
        assert isinstance(model, VaeModel)
        return {"latent": model.latent, "differentiable": True, "likelihood": "bound"}

    def encode(self, images: Tensor, condition: Sequence[Any] | None = None) -> tuple[Tensor, Tensor]:
        """Map images [N, C, H, W] in the unit of `spec` to mean and log variance of the code, [N, latent] each."""
        white = self._model.whitening(images.to(self._device, torch.float32))
        mean, log_spread = self._model.posterior(white, self._codes(len(images), condition))
        return mean, 2 * log_spread

    def decode(self, z: Tensor, condition: Sequence[Any] | None = None) -> Tensor:
        """Map codes [N, latent] to the mean images [N, C, H, W] in the unit of `spec`; carries gradients."""
        mean, _ = self._model.likelihood(z.to(self._device), self._codes(len(z), condition))
        image: Tensor = self._model.whitening.inverse(mean)
        return image

    def _codes(self, n: int, condition: Sequence[Any] | None) -> Tensor:
        asked = self._model.condition
        return (asked.absent(n) if condition is None else asked.encode(condition)).to(self._device)


class Vae(NeuralFactory):
    """Trains and opens variational autoencoders: the `factory` of the spec `vae`."""

    kind = "vae"
    version = "2"
    family = "vae"
    generator = VaeGenerator
    recipe: Mapping[str, str | int | float] = {"steps": 600, "batch": 64, "lr": 2e-3, "width": 32, "latent": 32}
    sampling: Mapping[str, str | int | float] = {"temperature": 0.9}

    def build(
        self, shape: tuple[int, int, int], recipe: Options, sampling: Options, condition: dict[str, Any]
    ) -> VaeModel:
        """Make an untrained model."""
        width = recipe.whole("width", lo=1, hi=512)
        latent = recipe.whole("latent", lo=1, hi=4096)
        return VaeModel(shape, width, latent, condition, sampling.number("temperature", lo=0.0, hi=1.0))
