"""DDPM with v-prediction and the cosine schedule, sampled by DDIM, DPM-Solver++ or its own chain.

Reference: Ho, Jain, Abbeel, arXiv:2006.11239; v-prediction: Salimans, Ho, arXiv:2202.00512; cosine schedule: Nichol,
Dhariwal, arXiv:2102.09672; DDIM: Song, Meng, Ermon, arXiv:2010.02502; DPM-Solver++: Lu et al., arXiv:2211.01095.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from medtrust.ops.schedules import Schedule
from medtrust_generators.diffusion import DiffusionModel, noise_schedule
from medtrust_generators.diffusion_factory import DiffusionFactory

__all__ = ["Ddpm", "DdpmModel"]

_LENGTH = 1000


class DdpmModel(DiffusionModel):
    """X = sqrt(share) image + sqrt(1 - share) noise at 1000 training steps, each as often as the others."""

    def make_schedule(self, steps: int) -> Schedule:
        """Lay out the sampler's rows."""
        return noise_schedule(self.sampler, steps, noise=_cosine_shares().tolist(), spacing="trailing")

    def levels(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha and sigma at training steps."""
        share = _cosine_shares()[times.round().long().cpu()].to(times)
        return share.sqrt(), (1 - share).sqrt()

    def draw_angles(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw training steps."""
        share = _cosine_shares()[torch.randint(_LENGTH, (n,), generator=rng)]
        return torch.atan2((1 - share).sqrt(), share.sqrt()).float()


class Ddpm(DiffusionFactory):
    """Trains and opens denoising diffusion models: the `factory` of the spec `ddpm`."""

    kind = "ddpm"
    model = DdpmModel
    samplers = ("dpmpp2m", "ddim", "ddpm", "dpmpp2m_sde")
    steps = 16


@lru_cache
def _cosine_shares() -> Tensor:
    """Share of the image's variance after each training step, float64; equation 17 of arXiv:2102.09672."""
    steps = torch.arange(_LENGTH + 1, dtype=torch.float64)
    share = torch.cos((steps / _LENGTH + 0.008) / 1.008 * (math.pi / 2)) ** 2
    betas = (1 - share[1:] / share[:-1]).clamp(max=0.999)
    return torch.cumprod(1 - betas, 0)
