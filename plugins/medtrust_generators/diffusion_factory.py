"""Options that flow, DDPM and EDM share, and their network opened up for audits that look inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from medtrust_generators.diffusion import DiffusionModel
from medtrust_generators.factory import NeuralFactory
from medtrust_generators.neural import NeuralGenerator
from medtrust_generators.options import Options

__all__ = ["DiffusionFactory", "DiffusionGenerator"]


class DiffusionGenerator(NeuralGenerator):
    """A sampler whose network can be asked at any noise level: a `medtrust.types.Denoiser`."""

    prediction = "v"
    _model: DiffusionModel

    def normalise(self, images: Tensor) -> Tensor:
        """Whiten images [N, C, H, W] in the unit of `spec`, and divide each by the strength of its bands."""
        return self._model.contrast.even(self._model.whitening(images.to(self._device, torch.float32)))

    def noise_level(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha and sigma at the times of this kind's schedule."""
        return self._model.levels(t)

    def denoise(self, x_t: Tensor, t: Tensor, condition: Sequence[Any] | None = None) -> Tensor:
        """Evaluate the network at x_t [N, C, H, W] and t [N]: v of x_t / hypot(alpha, sigma); carries gradients.

        The network is not told the strengths of the bands, which x_t does not show.
        """
        alpha, sigma = self._model.levels(t)
        model, unit = self._model, x_t / torch.hypot(alpha, sigma)[:, None, None, None]
        codes = model.condition.absent(len(x_t)) if condition is None else model.condition.encode(condition)
        unknown = model.contrast.mean.new_zeros(len(x_t), model.contrast.count)
        return model.velocity(unit, torch.atan2(sigma, alpha), unknown, codes.to(x_t.device))


class DiffusionFactory(NeuralFactory):
    """Builds one kind of diffusion; subclasses name the model, its samplers and how many steps they take."""

    version = "3"
    family = "diffusion"
    generator = DiffusionGenerator
    model: type[DiffusionModel]
    samplers: tuple[str, ...]
    steps = 10
    recipe: Mapping[str, str | int | float] = {"steps": 400, "batch": 64, "lr": 2e-3, "width": 32}

    @property
    def sampling(self) -> Mapping[str, str | int | float]:
        """Options for sampling with their defaults."""
        return {"sampler": self.samplers[0], "steps": self.steps, "guidance": 1.0, "precision": "float32"}

    def build(
        self, shape: tuple[int, int, int], recipe: Options, sampling: Options, condition: dict[str, Any]
    ) -> DiffusionModel:
        """Make an untrained model."""
        return self.model(
            shape,
            recipe.whole("width", lo=16, hi=512, multiple=16),
            condition,
            sampling.choice("sampler", self.samplers),
            sampling.whole("steps", lo=1, hi=1000),
            sampling.number("guidance", lo=0.0, hi=100.0),
            sampling.choice("precision", ("float32", "bfloat16")) == "bfloat16",
        )
