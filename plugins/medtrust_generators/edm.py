"""EDM: noise of any strength added to the image, trained at log-normal strengths, sampled by Heun's method.

Reference: Karras, Aittala, Aila, Laine, arXiv:2206.00364. Whitened images have unit variance, so sigma_data is 1 and
the paper's strengths, meant for sigma_data 0.5, are doubled.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medtrust.ops.schedules import Schedule
from medtrust_generators.diffusion import DiffusionModel, noise_schedule
from medtrust_generators.diffusion_factory import DiffusionFactory

__all__ = ["Edm", "EdmModel"]

_MEAN, _SPREAD = -1.2 + math.log(2), 1.2
_SIGMAS = (0.004, 160.0)


class EdmModel(DiffusionModel):
    """X = image + sigma noise; c_skip, c_in and c_out of the paper are v on the circle of unit variance."""

    def make_schedule(self, steps: int) -> Schedule:
        """Lay out the sampler's rows."""
        lo, hi = _SIGMAS
        return noise_schedule(self.sampler, steps, noise="karras", sigma_min=lo, sigma_max=hi)

    def levels(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha and sigma at sigma."""
        return torch.ones_like(times), times

    def draw_angles(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw log-normal sigma."""
        return torch.atan(torch.exp(_MEAN + _SPREAD * torch.randn(n, generator=rng)))


class Edm(DiffusionFactory):
    """Trains and opens EDM models: the `factory` of the spec `edm`."""

    kind = "edm"
    model = EdmModel
    samplers = ("heun", "euler", "dpmpp2m")
    steps = 10
