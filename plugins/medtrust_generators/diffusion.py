"""Diffusion and flow over whitened images: one network, one loss; a kind adds where it trains and how it samples."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from medtrust import ops
from medtrust.ops.schedules import Schedule
from medtrust_generators.conditions import make_condition
from medtrust_generators.contrast import Contrast
from medtrust_generators.model import Draw, Model
from medtrust_generators.unet import UNet
from medtrust_generators.whitening import Whitening

__all__ = ["DiffusionModel"]

DROPPED = 0.1  # share of conditions that training hides, for classifier-free guidance
UNTOLD = 0.1  # share of images whose strengths training hides, so that the network can be asked about any image


class DiffusionModel(Model):
    """A network that says v = cos(a) noise - sin(a) image at x = cos(a) image + sin(a) noise.

    Images are whitened, and each is divided by the strength of its frequency bands, which the network is told.

    Every path alpha image + sigma noise is this circle at a = atan2(sigma, alpha) and another radius, so flow, DDPM and
    EDM share the network and its loss: they differ in how often they train at which a, and in how they sample. On the
    circle x and v have unit variance at every a, which is what EDM's preconditioning and v-prediction are for.

    v is the sum of a gain per channel and frequency band, read off the energies of x, which makes smooth and rough
    images two different things, and of a U-Net for everything else.

    Args:
        shape: (C, H, W).
        width: Width of the U-Net.
        condition: What the card says of the condition.
        sampler: Name of the sampler.
        steps: Steps of the sampler.
        guidance: Weight of classifier-free guidance.
        half: Evaluate the U-Net in bfloat16, on a GPU.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        width: int,
        condition: dict[str, Any],
        sampler: str,
        steps: int,
        guidance: float,
        half: bool,
    ) -> None:
        super().__init__()
        self.shape = shape
        self.sampler = sampler
        self.guidance = guidance
        self.half = half
        self.whitening = Whitening(shape)
        self.condition = make_condition(condition, shape, 4 * width)
        self.contrast = Contrast(self.whitening, shape[0], self.condition, 4 * width)
        energies = self.contrast.count
        self.register_buffer("waves", torch.exp(torch.linspace(0, -math.log(1e4), width // 2)), persistent=False)
        self.read = nn.Sequential(nn.Linear(2 * energies + width, 4 * width), nn.SiLU())
        self.gain = nn.Linear(4 * width, energies)
        nn.init.zeros_(self.gain.weight)
        nn.init.zeros_(self.gain.bias)
        self.embed = nn.Sequential(nn.Linear(4 * width, 4 * width), nn.SiLU())
        self.unet = UNet(shape, width, 4 * width, extra=self.condition.planes)
        self.schedule = self.make_schedule(steps)
        self.nfe = len(self.schedule) * (2 if guidance != 1 else 1)
        self._graphs: dict[tuple[int, ...], Callable[[Tensor], Tensor]] = {}

    @abstractmethod
    def make_schedule(self, steps: int) -> Schedule:
        """Lay out the sampler's rows; the prediction is v."""

    @abstractmethod
    def levels(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha and sigma at the schedule's times."""

    @abstractmethod
    def draw_angles(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw the a [n], in 0 … pi/2, at which a batch is trained."""

    def begin(self, images: Tensor) -> None:
        """Learn the range of the strengths."""
        self.contrast.fit(images)

    def finish(self, images: Tensor, codes: Tensor) -> None:
        """Learn the distribution of the strengths."""
        self.contrast.finish(images, codes)

    def velocity(self, x: Tensor, angle: Tensor, strengths: Tensor, codes: Tensor) -> Tensor:
        """V at unit-variance x [N, C, H, W], a [N] and standard strengths, all float32."""
        spectrum = self.whitening.spectrum(x)
        waves = (2000 / math.pi) * (math.pi / 2 - angle)[:, None] * self.waves
        read = self.read(torch.cat([self.whitening.energies(spectrum) / 2, waves.sin(), waves.cos(), strengths], 1))
        asked = self.condition.vector(codes)
        if asked is not None:
            read = read + asked
        banded = self.whitening.field(spectrum * self.whitening.spread(self.gain(read)))
        planes = self.condition.picture(codes)
        shown = x if planes is None else torch.cat([x, planes], 1)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.half and x.is_cuda):
            rest = self.unet(shown.contiguous(memory_format=torch.channels_last), self.embed(read))
        total: Tensor = banded + rest.float()
        return total

    def loss(self, images: Tensor, codes: Tensor, rng: torch.Generator) -> Tensor:
        """Mean squared error of v, whose variance is one at every a."""
        strengths = self.contrast.standard(self.contrast.measure(images))
        strengths = strengths * (torch.rand((len(images), 1), generator=rng) >= UNTOLD).to(strengths)
        images = self.contrast.even(images)
        noise = torch.randn(images.shape, generator=rng).to(images.device)
        angle = self.draw_angles(len(images), rng).to(images.device)
        codes = self.condition.drop(codes, DROPPED, rng)
        cos, sin = angle.cos()[:, None, None, None], angle.sin()[:, None, None, None]
        error = self.velocity(cos * images + sin * noise, angle, strengths, codes) - (cos * noise - sin * images)
        return error.square().mean()

    def generate(self, draw: Draw, codes: Tensor) -> Tensor:
        """Draw strengths, follow the sampler from noise to an image of such strengths, and put the two together."""
        shape = (draw.n, *self.shape)
        strengths = self.contrast.draw(draw.seed, draw.first, codes)
        told = self.contrast.standard(strengths)
        x = ops.start_noise(self.schedule, shape, draw.seed, draw.first, draw.device)
        if self.guidance != 1:
            codes = torch.cat([codes, self.condition.absent(draw.n).to(codes)])
            told = torch.cat([told, told])
        if x.is_cuda and not any(self.schedule.adds_noise(row) for row in range(len(self.schedule))):
            made = self._captured(x, told, codes)
        else:
            network = self._network(told, codes)
            made = ops.sampling_loop(network, self.schedule, x, seed=draw.seed, first=draw.first, scale=self.guidance)
        return self.contrast.within(self.contrast.scaled(made, strengths))

    def _network(self, told: Tensor, codes: Tensor) -> Callable[[Tensor, int], Tensor]:
        """The network as the sampling loop calls it."""
        alpha, sigma = self.levels(torch.from_numpy(self.schedule.times).to(torch.float32))
        angles = torch.atan2(sigma, alpha)[:, None].expand(-1, len(codes)).contiguous().to(codes.device)
        radius = torch.hypot(alpha, sigma) * torch.from_numpy(self.schedule.input_scale).to(torch.float32)
        factors = (1 / radius).tolist()

        def network(x: Tensor, row: int) -> Tensor:
            factor = factors[row]
            return self.velocity(x if abs(factor - 1) < 1e-6 else x * factor, angles[row], told, codes)

        return network

    def _captured(self, x: Tensor, told: Tensor, codes: Tensor) -> Tensor:
        """Launch the whole loop as one CUDA graph; strengths and codes are inputs like the noise."""
        key = tuple(x.shape)
        if key not in self._graphs:
            self._told, self._codes = told.clone(), codes.clone()
            network = self._network(self._told, self._codes)
            self._graphs[key] = ops.SamplingGraph(network, self.schedule, key, x.device, scale=self.guidance)
        self._told.copy_(told)
        self._codes.copy_(codes)
        return self._graphs[key](x)


def noise_schedule(kind: str, steps: int, **options: Any) -> Schedule:
    """A schedule of v-predictions."""
    return ops.schedule(kind, steps, prediction="v", **options)
