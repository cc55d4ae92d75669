"""Rectified flow: straight paths from noise to images.

Reference: Liu, Gong, Liu, arXiv:2209.03003; logit-normal times after Esser et al., arXiv:2403.03206.
"""

from __future__ import annotations

import torch
from torch import Tensor

from medtrust.ops.schedules import Schedule
from medtrust_generators.diffusion import DiffusionModel, noise_schedule
from medtrust_generators.diffusion_factory import DiffusionFactory

__all__ = ["Flow", "FlowModel"]


class FlowModel(DiffusionModel):
    """X = (1 - t) image + t noise, trained at logit-normal t, sampled by Euler's or Heun's method."""

    def make_schedule(self, steps: int) -> Schedule:
        """Lay out the sampler's rows."""
        return noise_schedule(f"flow_{self.sampler}", steps)

    def levels(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha and sigma at t."""
        return 1 - times, times

    def draw_angles(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw logit-normal t."""
        t = torch.sigmoid(torch.randn(n, generator=rng))
        return torch.atan2(t, 1 - t)


class Flow(DiffusionFactory):
    """Trains and opens rectified flows: the `factory` of the spec `flow`."""

    kind = "flow"
    model = FlowModel
    samplers = ("heun", "euler")
    steps = 8
