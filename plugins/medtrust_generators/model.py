"""What every trainable model is: losses to minimise, and images from noise that no batch changes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from medtrust_generators.conditions import Condition
    from medtrust_generators.whitening import Whitening

__all__ = ["Draw", "Model", "Objective"]


class Draw(NamedTuple):
    """Which samples to make: numbers first … first + n - 1 of the series `seed`."""

    seed: int
    first: int
    n: int
    device: str


class Objective(NamedTuple):
    """One loss and the parameters that follow it.

    Args:
        loss: (images, codes, random numbers) -> scalar; all randomness comes from the CPU generator.
        parameters: What the loss moves.
        betas: Of Adam.
        decay: Decoupled weight decay.
        pace: Factor on the recipe's learning rate.
    """

    loss: Callable[[Tensor, Tensor, torch.Generator], Tensor]
    parameters: Sequence[nn.Parameter]
    betas: tuple[float, float] = (0.9, 0.999)
    decay: float = 0.01
    pace: float = 1.0


class Model(nn.Module, ABC):
    """A generative model over whitened images [N, C, H, W] float32."""

    shape: tuple[int, int, int]
    whitening: Whitening
    condition: Condition
    nfe = 1  # network evaluations per image

    def objectives(self) -> list[Objective]:
        """List what one training step minimises, in order; one loss for everything unless a model says otherwise."""
        return [Objective(self.loss, list(self.parameters()))]

    def loss(self, images: Tensor, codes: Tensor, rng: torch.Generator) -> Tensor:
        """Training loss of one batch."""
        raise NotImplementedError("a model has a loss or its own objectives")

    def begin(self, images: Tensor) -> None:
        """Learn from the whitened images what the network is told of them, before the first training step."""

    def finish(self, images: Tensor, codes: Tensor) -> None:
        """Do what remains after the last training step."""

    @abstractmethod
    def generate(self, draw: Draw, codes: Tensor) -> Tensor:
        """Make whitened images [N, C, H, W]; row i depends on (seed, first + i, codes[i]) alone."""
