"""Checks of an explainer: is its answer a map, of its own image alone, and of the score rather than of the picture?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from medtrust.types import Score

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["EXPLAINER_CHECKS", "check_explainer"]

_SIDE = 20
_CORNER = (slice(3, 9), slice(11, 17))


def check_explainer(explainer: Any) -> tuple[str, ...]:
    """Run every check on a function `(score, images) -> maps`.

    Args:
        explainer: What an `ExplainerSpec` names.

    Returns:
        Names of the checks that ran.

    Raises:
        AssertionError: A check failed; the message says which and why.
    """
    for name, check in EXPLAINER_CHECKS.items():
        try:
            check(explainer)
        except AssertionError as failure:
            raise AssertionError(f"{name}: {failure}") from None
    return tuple(EXPLAINER_CHECKS)


def _network(seed: int, bright: bool) -> Any:
    """A convolution whose averaged answer rises with brightness, or with what random weights make of it."""
    import torch

    rng = torch.Generator().manual_seed(seed)
    maps = torch.nn.Conv2d(1, 4, 3, padding=1, bias=False)
    with torch.no_grad():
        weights = torch.randn(maps.weight.shape, generator=rng)
        maps.weight.copy_(weights.abs() if bright else weights)
    parts = (maps, torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    return torch.nn.Sequential(*parts).eval().requires_grad_(False)


def _score(seed: int = 0, bright: bool = True) -> Score:
    import torch

    network = _network(seed, bright)
    weights = torch.ones(4) if bright else torch.randn(4, generator=torch.Generator().manual_seed(seed + 1))
    return Score(lambda x: network(x) @ weights, network, "1", torch.zeros(4, 1, _SIDE, _SIDE))


def _images(n: int = 5) -> Tensor:
    import torch

    images = 0.05 * torch.rand(n, 1, _SIDE, _SIDE, generator=torch.Generator().manual_seed(7))
    images[:, :, _CORNER[0], _CORNER[1]] += 0.9
    return images


def _maps(explainer: Any, score: Score, images: Tensor) -> torch.Tensor:
    from medtrust.explaining import attribute

    try:
        return attribute(explainer, score, images)[0]
    except (TypeError, ValueError) as error:
        raise AssertionError(str(error)) from error


def _shape(explainer: Any) -> None:
    """A finite map of each image's size, for one image and for none."""
    for n in (5, 1, 0):
        _maps(explainer, _score(), _images(n))


def _untouched(explainer: Any) -> None:
    """The images and the network are as they were."""
    score, images = _score(), _images()
    before = images.clone()
    weights = {k: v.clone() for k, v in score.network.state_dict().items()}
    explainer(score, images)
    assert bool((images == before).all()), "it wrote into the images"
    same = all(bool((v == weights[k]).all()) for k, v in score.network.state_dict().items())
    assert same, "it changed the network's parameters"
    assert not score.network[0]._forward_hooks, "it left a hook in the network"


def _repeatable(explainer: Any) -> None:
    """The same call twice gives the same bits."""
    first, second = (_maps(explainer, _score(), _images()) for _ in range(2))
    assert bool((first == second).all()), "two calls gave two maps: draw random numbers from a fixed seed"


def _own_image(explainer: Any) -> None:
    """Map i depends on image i alone, whatever the batch around it."""
    import torch

    images = _images()
    whole = _maps(explainer, _score(), images)
    alone = torch.cat([_maps(explainer, _score(), one[None]) for one in images])
    gap = float((whole - alone).abs().max() / whole.abs().max().clamp_min(1e-12))
    assert gap < 1e-4, f"a map changed by {gap:.1e} of the largest value when its image was explained alone"


def _finds(explainer: Any) -> None:
    """The map of a score of brightness lies on the bright square."""
    maps = _maps(explainer, _score(), _images())
    inside = maps[:, 2:10, 10:18].sum() / maps.sum().clamp_min(1e-12)
    assert float(inside) > 0.5, f"{float(inside):.0%} of the map lies on the only thing that the score sees"


def _depends(explainer: Any) -> None:
    """Another network gives another map: a map of the picture alone would not change."""
    from medtrust.stats.attribution import rank_correlation

    images = _images()
    own = _maps(explainer, _score(), images)
    likeness = [
        float(rank_correlation(own, _maps(explainer, _score(seed, False), images)).mean()) for seed in range(1, 9)
    ]
    smallest = min(likeness)
    assert smallest < 0.5, f"eight random networks gave maps alike to the first by {smallest:.2f} or more"


EXPLAINER_CHECKS: dict[str, Callable[[Any], None]] = {
    "the answer is a map": _shape,
    "images and network are left as they were": _untouched,
    "the same call twice gives the same bits": _repeatable,
    "map i depends on image i alone": _own_image,
    "the map finds what the score sees": _finds,
    "the map depends on the network": _depends,
}
