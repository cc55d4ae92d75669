"""Explanations: what is explained, what an explainer answers, and artefacts whose place is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from medtrust.types.images import SetName

if TYPE_CHECKING:
    import torch

__all__ = ["Attribution", "Explainer", "Probe", "Score", "Target"]


@dataclass(frozen=True, slots=True)
class Score:
    """A differentiable number per image, called as `score(images)`; the higher, the more it is what is asked for.

    Args:
        function: Maps images [N, C, H, W] float32 to [N]; row i depends on image i alone.
        network: The torch module that `function` runs the images through; None where there is none.
        layer: Name of the module of `network` whose activations are looked at; empty where an explainer may choose.
        baselines: Images [B, C, H, W] that stand for "nothing to see", such as real ones; None where there are none.
    """

    function: Callable[[torch.Tensor], torch.Tensor]
    network: Any = None
    layer: str = ""
    baselines: torch.Tensor | None = None

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Score images [N, C, H, W]; returns [N]."""
        return self.function(images)


@dataclass(frozen=True, slots=True)
class Attribution:
    """What an explainer answers where it has more to say than a map.

    Args:
        maps: [N, H, W] or [N, C, H, W]; higher is where the score comes from.
        residual: Share of the score's change that the maps leave unexplained, for methods that promise to add up.
    """

    maps: torch.Tensor
    residual: float | None = None


@runtime_checkable
class Explainer(Protocol):
    """What `ExplainerSpec.factory` names: a function of a score and images."""

    def __call__(self, score: Score, images: torch.Tensor) -> torch.Tensor | Attribution:
        """Say where in each image the score comes from.

        Args:
            score: What to explain.
            images: [N, C, H, W] float32; not to be changed.

        Returns:
            Maps [N, H, W] or [N, C, H, W], or an `Attribution` with them.
        """
        ...


@dataclass(frozen=True, slots=True)
class Probe:
    """A score that learned to see a planted artefact, with the place of the artefact in each image.

    Args:
        score: Score of the same kind as the one that is explained.
        images: [N, C, H, W] with the artefact.
        masks: [N, H, W] bool, where it is.
        artefact: What was planted, in words.
    """

    score: Score
    images: torch.Tensor
    masks: torch.Tensor
    artefact: str


@dataclass(frozen=True, slots=True)
class Target:
    """What a metric offers to explainers: its score and the images it was read on. It never enters a report.

    Args:
        score: What to explain.
        images: [N, C, H, W] float32, the most telling first.
        sources: Set and row of each image, so that the host can draw it as the evidence policy allows.
        question: What the maps show, such as "what the classifier takes for synthetic".
        randomised: Gives the score of the same network with fresh random parameters, by seed.
        probe: An artefact in a known place, so that an explanation can be marked.
        nothing: Why there is nothing to explain, such as a classifier that does no better than chance; else empty.
    """

    score: Score
    images: torch.Tensor
    sources: tuple[tuple[SetName, int], ...]
    question: str
    randomised: Callable[[int], Score] | None = None
    probe: Probe | None = None
    nothing: str = ""
