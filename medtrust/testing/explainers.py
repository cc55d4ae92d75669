"""Checks of an explainer: is its answer a map, of its own image alone, and of the score rather than of the picture?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from medtrust.testing.kit import Check, Conformance, Subject, hold, require, resolve
from medtrust.types import ExplainerSpec, Score

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["EXPLAINER_CHECKS", "EXPLAINER_FLOOR", "check_explainer", "explainer_subject"]

EXPLAINER_FLOOR = 6
_SIDE = 20
_CORNER = (slice(3, 9), slice(11, 17))
_Given = str | ExplainerSpec | Callable[..., Any]


def explainer_subject(
    explainer: _Given, *, expected_failures: Mapping[str, str] | None = None, floor: int = EXPLAINER_FLOOR
) -> Subject:
    """Find an explainer (see `check_explainer`)."""
    if isinstance(explainer, str | ExplainerSpec):
        return resolve("explainer", explainer, expected=expected_failures or {}, floor=floor)
    spec = ExplainerSpec(name="given", version="0", factory="builtins:object")
    subject = resolve("explainer", spec, expected=expected_failures or {}, floor=floor)
    subject.loaded = explainer
    return subject


def check_explainer(explainer: _Given, **options: Any) -> Conformance:
    """Run every check of an explainer.

    Args:
        explainer: Name of an installed explainer, an `ExplainerSpec`, or a function `(score, images) -> maps`.
        options: `expected_failures`: checks that are known to fail, each with the reason. `floor`: how many checks must
            run.

    Returns:
        The account of every check.

    Raises:
        AssertionError: A check failed, one that was expected to fail passed, or too few ran.
    """
    return hold(EXPLAINER_CHECKS, explainer_subject(explainer, **options))


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


def answer_is_a_map(subject: Subject) -> None:
    """A finite map of each image's size, for one image and for none."""
    explainer = subject.load()
    for n in (5, 1, 0):
        _maps(explainer, _score(), _images(n))


def input_untouched(subject: Subject) -> None:
    """The images and the network are as they were."""
    explainer = subject.load()
    score, images = _score(), _images()
    before = images.clone()
    weights = {k: v.clone() for k, v in score.network.state_dict().items()}
    explainer(score, images)
    require(bool((images == before).all()), "it wrote into the images")
    same = all(bool((v == weights[k]).all()) for k, v in score.network.state_dict().items())
    require(same, "it changed the network's parameters")
    require(not score.network[0]._forward_hooks, "it left a hook in the network")


def repeats(subject: Subject) -> None:
    """The same call twice gives the same bits."""
    explainer = subject.load()
    first, second = (_maps(explainer, _score(), _images()) for _ in range(2))
    require(bool((first == second).all()), "two calls did not give the same bits: draw from a fixed seed")


def batch_invariance(subject: Subject) -> None:
    """Map i depends on image i alone, whatever the batch around it."""
    explainer = subject.load()
    import torch

    images = _images()
    whole = _maps(explainer, _score(), images)
    alone = torch.cat([_maps(explainer, _score(), one[None]) for one in images])
    gap = float((whole - alone).abs().max() / whole.abs().max().clamp_min(1e-12))
    require(gap < 1e-4, f"a map changed by {gap:.1e} of the largest value when its image was explained alone")


def finds_what_the_score_sees(subject: Subject) -> None:
    """The map of a score of brightness lies on the bright square."""
    explainer = subject.load()
    maps = _maps(explainer, _score(), _images())
    inside = maps[:, 2:10, 10:18].sum() / maps.sum().clamp_min(1e-12)
    require(float(inside) > 0.5, f"{float(inside):.0%} of the map lies on the only thing that the score sees")


def depends_on_the_network(subject: Subject) -> None:
    """Another network gives another map: a map of the picture alone would not change."""
    explainer = subject.load()
    from medtrust.stats.attribution import rank_correlation

    images = _images()
    own = _maps(explainer, _score(), images)
    likeness = [
        float(rank_correlation(own, _maps(explainer, _score(seed, False), images)).mean()) for seed in range(1, 9)
    ]
    smallest = min(likeness)
    require(smallest < 0.5, f"eight random networks gave maps alike to the first by {smallest:.2f} or more")


def leaves_the_process_alone(subject: Subject) -> None:
    """Random states, threads, environment, functions of torch and numpy, and standard output are left alone."""
    from medtrust.testing.watching import left_alone

    explainer, score, images = subject.load(), _score(), _images()
    explainer(score, images)  # a library's own initialisation is not the explainer's doing
    with left_alone():
        explainer(score, images)


EXPLAINER_CHECKS: Sequence[Check] = tuple(
    Check(check.__name__, (check.__doc__ or "").strip(), check)
    for check in (
        answer_is_a_map,
        input_untouched,
        repeats,
        batch_invariance,
        finds_what_the_score_sees,
        depends_on_the_network,
        leaves_the_process_alone,
    )
)
