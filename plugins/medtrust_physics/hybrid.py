"""What generators that end in a scanner share: a flow over maps of the tissue, and noise that no batch changes."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from medtrust.errors import ConfigError
from medtrust.seeding import derive_seed
from medtrust.types import SampleBatch
from medtrust_generators.flow import Flow, FlowModel
from medtrust_generators.neural import CHUNK, NeuralGenerator
from medtrust_generators.options import Options
from medtrust_generators.training import threads

__all__ = ["HybridFactory", "HybridGenerator", "positive", "smoothed"]


class HybridGenerator(NeuralGenerator):
    """A flow draws maps of the tissue; a model of the scanner makes images of them: a `medtrust.types.Scanner`."""

    @abstractmethod
    def scan(self, maps: Tensor, noise: Sequence[torch.Generator], codes: Tensor) -> Tensor:
        """Scan each map once.

        Args:
            maps: [N, C', H, W] float32, as the network draws them.
            noise: Source of the noise of each.
            codes: How each is scanned.

        Returns:
            [N, C, H, W] float32 in the unit of `spec`.
        """

    def develop(self, made: Tensor, seed: int, start: int, codes: Tensor) -> Tensor:
        """Scan what the network drew."""
        return self.scan(made, _sources(seed, start, len(made), 0), codes)

    @torch.no_grad()
    def rescan(self, n: int, *, seed: int, repeat: int, first: int = 0) -> SampleBatch:
        """Scan the tissue of samples first … first + n - 1 again; only the noise is another, drawn by `repeat` >= 1.

        Raises:
            ConfigError: A number that is too small.
        """
        if n < 0 or first < 0 or repeat < 1:
            raise ConfigError(f"cannot scan {n} samples from number {first} on for the {repeat}th time")
        parts = [np.empty((0, *self.card["shape"]), np.dtype(self.card["dtype"]))]
        with threads(self._threads):
            for start in range(first - first % CHUNK, first + n, CHUNK):
                codes = self._model.condition.absent(CHUNK)
                images = self.scan(self._maps(seed, start, codes), _sources(seed, start, CHUNK, repeat), codes)
                parts.append(self.stored(images)[max(0, first - start) : first + n - start])
        return SampleBatch(np.concatenate(parts), tuple(range(first, first + n)), {"repeat": repeat})

    def _maps(self, seed: int, start: int, codes: Tensor) -> Tensor:
        """The maps of a chunk, kept because the same tissue is scanned several times."""
        key = (seed, start)
        kept: tuple[tuple[int, int], Tensor] | None = getattr(self, "_kept", None)
        if kept is None or kept[0] != key:
            kept = key, self._drawn(seed, start, codes)
            self._kept = kept
        return kept[1]


class HybridFactory(Flow):
    """Trains and opens such generators; the control without physics is `flow` on the same images."""

    version = "2"
    family = "hybrid"
    asks: Mapping[str, str] = {}
    own: ClassVar[Mapping[str, str | int | float]] = {}  # options of the scanner

    def _defaults(self) -> dict[str, str | int | float]:
        return {**super()._defaults(), **self.own}

    def build(
        self, shape: tuple[int, int, int], recipe: Options, sampling: Options, condition: dict[str, Any]
    ) -> FlowModel:
        """Make an untrained flow over the maps."""
        model = super().build(shape, recipe, sampling, condition)
        assert isinstance(model, FlowModel)
        return model


def _sources(seed: int, start: int, n: int, repeat: int) -> list[torch.Generator]:
    """A source of noise per sample, so that a sample's noise depends on the seed and its position alone."""
    return [torch.Generator().manual_seed(derive_seed(seed, "scan", str(repeat), start + i)) for i in range(n)]


def smoothed(images: Tensor, sigma: float) -> Tensor:
    """Convolve [N, C, H, W] with a Gaussian of `sigma` pixels, edges repeated; 0 leaves them as they are."""
    if sigma == 0:
        return images
    reach = math.ceil(3 * sigma)
    axis = torch.arange(-reach, reach + 1, dtype=images.dtype)
    kernel = torch.exp(-(axis**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, -1)
    padded = functional.pad(images, (reach,) * 4, mode="replicate")
    across = functional.conv2d(padded, kernel[:, :, None, :], groups=images.shape[1])
    return functional.conv2d(across, kernel[:, :, :, None], groups=images.shape[1])


def positive(recipe: Options, name: str, hi: float) -> float | None:
    """An option that is a number above 0, or None where it is to be measured."""
    return None if recipe.values[name] == "measured" else recipe.number(name, lo=1e-9, hi=hi)
