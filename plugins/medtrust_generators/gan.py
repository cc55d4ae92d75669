"""Generative adversarial network: hinge loss, spectrally normalised critic with projection.

Reference: hinge loss and spectral normalisation: Miyato et al., arXiv:1802.05957; projection: Miyato, Koyama,
arXiv:1802.05637; two critics' views, in pixels and in whitened coordinates, are ours.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from medtrust import ops
from medtrust_generators.conditions import Condition, make_condition
from medtrust_generators.factory import NeuralFactory
from medtrust_generators.model import Draw, Model, Objective
from medtrust_generators.neural import NeuralGenerator
from medtrust_generators.options import Options
from medtrust_generators.unet import levels_for
from medtrust_generators.whitening import Whitening

__all__ = ["Gan", "GanModel"]


class _Modulated(nn.Module):
    """Upsampling convolution whose normalised activations the code scales and shifts."""

    def __init__(self, inputs: int, outputs: int, code: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.style = nn.Linear(code, 2 * inputs + 2 * outputs)
        self.sizes = [inputs, inputs, outputs, outputs]
        self.short = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        scale1, shift1, scale2, shift2 = self.style(code)[:, :, None, None].split(self.sizes, 1)
        h = functional.silu(functional.group_norm(x, 1) * (1 + scale1) + shift1)
        h = self.conv1(functional.interpolate(h, scale_factor=2.0))
        h = functional.silu(functional.group_norm(h, 1) * (1 + scale2) + shift2)
        wide: Tensor = self.short(functional.interpolate(x, scale_factor=2.0))
        return wide + self.conv2(h)


class _Critic(nn.Module):
    """Scores images; with classes, adds the agreement of what it saw with the class asked for."""

    def __init__(self, channels: int, width: int, steps: int, classes: int) -> None:
        super().__init__()
        sizes = [width * min(2**level, 4) for level in range(steps + 1)]
        layers: list[nn.Module] = [spectral_norm(nn.Conv2d(channels, width, 3, padding=1)), nn.LeakyReLU(0.1)]
        for a, b in itertools.pairwise(sizes):
            layers += [spectral_norm(nn.Conv2d(a, a, 3, padding=1)), nn.LeakyReLU(0.1)]
            layers += [spectral_norm(nn.Conv2d(a, b, 4, stride=2, padding=1)), nn.LeakyReLU(0.1)]
        self.body = nn.Sequential(*layers)
        self.score = spectral_norm(nn.Linear(sizes[-1] + 1, 1))
        self.classes = spectral_norm(nn.Embedding(classes, sizes[-1])) if classes else None

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        h = self.body(x)
        seen = h.mean((2, 3))
        # how much the batch varies: a generator that makes one image over and over is found out
        variety = (h.var(0, unbiased=False).mean() + 1e-6).sqrt().expand(len(x), 1)
        score: Tensor = self.score(torch.cat([seen, variety], 1))[:, 0]
        return score if self.classes is None else score + (self.classes(codes) * seen).sum(1)


class GanModel(Model):
    """Generator and critic over whitened images.

    Args:
        shape: (C, H, W).
        width: Channels of the finest convolution.
        latent: Length of the code.
        condition: What the card says of the condition.
        truncation: Bound on the normal numbers of a code: smaller, fewer odd images and less variety.
    """

    def __init__(
        self, shape: tuple[int, int, int], width: int, latent: int, condition: dict[str, Any], truncation: float
    ) -> None:
        super().__init__()
        self.shape = shape
        self.latent = latent
        self.truncation = truncation
        self.whitening = Whitening(shape)
        self.condition: Condition = make_condition(condition, shape, latent)
        channels, height, columns = shape
        steps = levels_for(height, columns, 4)
        sizes = [width * min(2**level, 4) for level in range(steps + 1)][::-1]
        self.coarse = (sizes[0], -(-height // 2**steps), -(-columns // 2**steps))
        self.code = nn.Sequential(nn.Linear(latent, 2 * latent), nn.SiLU())
        self.start = nn.Linear(2 * latent, self.coarse[0] * self.coarse[1] * self.coarse[2])
        self.up = nn.ModuleList(_Modulated(a, b, 2 * latent) for a, b in itertools.pairwise(sizes))
        self.grain = nn.ParameterList(nn.Parameter(torch.zeros(size, 1, 1)) for size in sizes[1:])
        self.leave = nn.Conv2d(width, channels, 3, padding=1)
        self.critic = _Critic(channels, width, steps, len(condition.get("classes", ())))

    def objectives(self) -> list[Objective]:
        """The critic's loss, then the generator's."""
        judged = list(self.critic.parameters())
        known = {id(parameter) for parameter in judged}
        making = [parameter for parameter in self.parameters() if id(parameter) not in known]
        return [
            Objective(self.critic_loss, judged, betas=(0.0, 0.9), decay=0.0, pace=2.0),
            Objective(self.loss, making, betas=(0.0, 0.9), decay=0.0),
        ]

    def critic_loss(self, images: Tensor, codes: Tensor, rng: torch.Generator) -> Tensor:
        """Hinge: real images above 1, made ones below -1."""
        with torch.no_grad():
            made = self.make(*self._noise(len(images), rng, images.device), codes)
        return (
            functional.relu(1 - self.critic(images, codes)).mean()
            + functional.relu(1 + self.critic(made, codes)).mean()
        )

    def loss(self, images: Tensor, codes: Tensor, rng: torch.Generator) -> Tensor:
        """Raise the critic's score of made images."""
        made = self.make(*self._noise(len(images), rng, images.device), codes)
        return -self.critic(made, codes).mean()

    def make(self, code: Tensor, grain: list[Tensor], codes: Tensor) -> Tensor:
        """Map codes [N, latent] and noise planes, one [N, 1, h, w] for each level, to whitened images."""
        asked = self.condition.vector(codes)
        style = self.code(code if asked is None else code + asked)
        h = self.start(style).unflatten(1, self.coarse)
        for block, plane, size in zip(self.up, grain, self.grain, strict=True):
            h = block(h, style)
            h = h + size * plane[:, :, : h.shape[2], : h.shape[3]]
        image: Tensor = self.leave(functional.silu(functional.group_norm(h, 1)))
        return image[:, :, : self.shape[1], : self.shape[2]]

    def _planes(self) -> list[tuple[int, int]]:
        return [(self.coarse[1] * 2 ** (i + 1), self.coarse[2] * 2 ** (i + 1)) for i in range(len(self.up))]

    def _noise(self, n: int, rng: torch.Generator, device: torch.device) -> tuple[Tensor, list[Tensor]]:
        code = torch.randn(n, self.latent, generator=rng).to(device)
        return code, [torch.randn(n, 1, *size, generator=rng).to(device) for size in self._planes()]

    def generate(self, draw: Draw, codes: Tensor) -> Tensor:
        """Decode noise to whitened images."""
        code = ops.truncated_normal((draw.n, self.latent), draw.seed, 0, self.truncation, draw.device, first=draw.first)
        grain = [
            ops.philox_normal((draw.n, 1, *size), draw.seed, i + 1, draw.device, first=draw.first)
            for i, size in enumerate(self._planes())
        ]
        return self.make(code, grain, codes)


class GanGenerator(NeuralGenerator):
    """A GAN, which says how long its code is."""

    @staticmethod
    def abilities(model: Model) -> dict[str, Any]:
        """Further fields of `caps`."""
        assert isinstance(model, GanModel)
        return {"latent": model.latent}


class Gan(NeuralFactory):
    """Trains and opens generative adversarial networks: the `factory` of the spec `gan`."""

    kind = "gan"
    version = "1"
    family = "gan"
    generator = GanGenerator
    recipe: Mapping[str, str | int | float] = {"steps": 1000, "batch": 32, "lr": 2e-4, "width": 16, "latent": 64}
    sampling: Mapping[str, str | int | float] = {"truncation": 4.0}

    def build(
        self, shape: tuple[int, int, int], recipe: Options, sampling: Options, condition: dict[str, Any]
    ) -> GanModel:
        """Make an untrained model."""
        return GanModel(
            shape,
            recipe.whole("width", lo=4, hi=512),
            recipe.whole("latent", lo=1, hi=4096),
            condition,
            sampling.number("truncation", lo=0.1, hi=6.0),
        )
