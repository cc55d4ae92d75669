"""Rectified flow: straight paths from noise to images, followed with Heun's method.

Reference: Liu, Gong, Liu, arXiv:2209.03003; logit-normal times after Esser et al., arXiv:2403.03206; Heun's method and
the idea of preconditioning after Karras et al., arXiv:2206.00364.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from medtrust_generators.neural import Model, NeuralFactory
from medtrust_generators.options import Options
from medtrust_generators.unet import UNet
from medtrust_generators.whitening import Whitening

__all__ = ["Flow", "FlowModel"]


class FlowModel(Model):
    """Velocity field over whitened images x_t = (1 - t) noise + t image.

    The velocity is the sum of three parts: the exact one for Gaussian data, which in whitened coordinates needs no
    learning; a gain per channel and frequency band that a small network reads off the energies of x_t, which makes
    smooth and rough images two different things; and a U-Net for everything else.

    Args:
        shape: (C, H, W).
        width: Width of the U-Net.
        evaluations: Network evaluations per image when sampling.
    """

    def __init__(self, shape: tuple[int, int, int], width: int, evaluations: int) -> None:
        super().__init__()
        self.shape = shape
        self.evaluations = evaluations
        self.noise_size = math.prod(shape)
        self.whitening = Whitening(shape)
        energies = shape[0] * self.whitening.bands
        self.register_buffer("waves", torch.exp(torch.linspace(0, -math.log(1e4), width // 2)), persistent=False)
        self.read = nn.Sequential(nn.Linear(energies + width, 4 * width), nn.SiLU())
        self.gain = nn.Linear(4 * width, energies)
        nn.init.zeros_(self.gain.weight)
        nn.init.zeros_(self.gain.bias)
        self.embed = nn.Sequential(nn.Linear(4 * width, 4 * width), nn.SiLU())
        self.unet = UNet(shape, width, 4 * width)

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """Velocity at x [N, C, H, W] and t [N], both float32."""
        t4 = t[:, None, None, None]
        norm = torch.hypot(1 - t4, t4)
        unit = x / norm  # unit variance at any t, since image and noise have it
        spectrum = self.whitening.spectrum(unit)
        angles = 1000 * t[:, None] * self.waves
        read = self.read(torch.cat([self.whitening.energies(spectrum) / 2, angles.sin(), angles.cos()], 1))
        banded = self.whitening.field(spectrum * self.whitening.spread(self.gain(read)))
        learned = banded + self.unet(unit.contiguous(memory_format=torch.channels_last), self.embed(read))
        return (2 * t4 - 1) / norm * unit + learned / norm

    def loss(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Mean squared error of the learned part, which has unit variance at every t."""
        noise = torch.randn(images.shape, generator=rng).to(images.device)
        t = torch.sigmoid(torch.randn(len(images), generator=rng)).to(images.device)
        t4 = t[:, None, None, None]
        error = self.velocity((1 - t4) * noise + t4 * images, t) - (images - noise)
        return (torch.hypot(1 - t4, t4) * error).square().mean()

    def generate(self, noise: Tensor) -> Tensor:
        """Follow the velocity from noise [N, C * H * W] to whitened images."""
        x = noise.view(-1, *self.shape)
        # The last step is a plain Euler step, so an odd number of evaluations is used exactly.
        times = torch.linspace(0, 1, (self.evaluations + 1) // 2 + 1).tolist()
        for now, then in itertools.pairwise(times):
            step = then - now
            slope = self.velocity(x, x.new_full((len(x),), now))
            if then < 1:
                ahead = self.velocity(x + step * slope, x.new_full((len(x),), then))
                slope = (slope + ahead) / 2
            x = x + step * slope
        return x


class Flow(NeuralFactory):
    """Trains and opens rectified flows: the `factory` of the spec `flow`."""

    kind = "flow"
    version = "1"
    recipe: Mapping[str, str | int | float] = {"steps": 400, "batch": 64, "lr": 2e-3, "width": 32}
    sampling: Mapping[str, str | int | float] = {"evaluations": 15}

    def build(self, shape: tuple[int, int, int], recipe: Options, sampling: Options) -> FlowModel:
        """Make an untrained model."""
        width = recipe.whole("width", lo=16, hi=512, multiple=16)
        return FlowModel(shape, width, sampling.whole("evaluations", lo=1, hi=10_000))
