"""Checks of a feature space: row i describes image i alone, and the digest names what computed it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from medtrust.testing.cases import Images
from medtrust.testing.kit import Check, Conformance, Subject, hold, require, resolve
from medtrust.testing.watching import left_alone
from medtrust.types import FeatureSpec

__all__ = ["FEATURES_CHECKS", "FEATURES_FLOOR", "FeaturesGiven", "check_features", "features_subject"]

FEATURES_FLOOR = 7
N = 6


@dataclass(frozen=True, slots=True)
class FeaturesGiven:
    """What the author of a feature space gives its checks.

    Args:
        images: What images to check it on.
        options: Arguments of the factory beside `device`, such as `weights`.
        tolerance: Largest difference between a row computed in a batch and alone, as a share of the largest feature.
    """

    images: Images = field(default_factory=Images)
    options: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-5


def features_subject(
    features: str | FeatureSpec,
    *,
    expected_failures: Mapping[str, str] | None = None,
    floor: int = FEATURES_FLOOR,
    **given: Any,
) -> Subject:
    """Find a feature space, with what its checks need (see `check_features`)."""
    told = FeaturesGiven(**given)
    return resolve("features", features, expected=expected_failures or {}, floor=floor, given=told)


def check_features(features: str | FeatureSpec, **options: Any) -> Conformance:
    """Run every check of a feature space.

    Args:
        features: Name of an installed feature space, or a `FeatureSpec` that is not installed.
        options: `expected_failures`: checks that are known to fail, each with the reason. `floor`: how many checks must
            run. `images`, `options`, `tolerance`: see `FeaturesGiven`.

    Returns:
        The account of every check.

    Raises:
        AssertionError: A check failed, one that was expected to fail passed, or too few ran.
    """
    return hold(FEATURES_CHECKS, features_subject(features, **options))


def _open(subject: Subject) -> Any:
    if "extractor" not in subject.kept:
        subject.kept["extractor"] = subject.load()(device="cpu", **subject.given.options)
    return subject.kept["extractor"]


def _images(subject: Subject) -> torch.Tensor:
    drawn = subject.given.images.draw(np.random.default_rng(8), N)
    return torch.from_numpy(np.ascontiguousarray(drawn))


def _extract(subject: Subject, images: torch.Tensor) -> torch.Tensor:
    values: torch.Tensor = _open(subject).extract(images, subject.given.images.intensity)
    require(isinstance(values, torch.Tensor), f"extract() returned a {type(values).__name__}, wanted a tensor")
    return values


def _same(subject: Subject, found: torch.Tensor, wanted: torch.Tensor, what: str) -> None:
    gap = float((found - wanted).abs().max() / wanted.abs().max().clamp_min(1e-12))
    require(gap <= subject.given.tolerance, f"{what}, features change by {gap:.1e} of the largest one")


def declarations_are_sound(subject: Subject) -> None:
    """It has names without doubles, and a digest that two instances share."""
    extractor = _open(subject)
    names = tuple(extractor.names)
    require(len(set(names)) == len(names), "two columns have one name")
    require(isinstance(extractor.digest, str) and extractor.digest, "it has no digest: features could not be cached")
    again = subject.load()(device="cpu", **subject.given.options)
    require(again.digest == extractor.digest, "two instances have two digests: features would never be found again")


def shape_and_type(subject: Subject) -> None:
    """Features are finite float32 [N, d], on the CPU, with a name per column where there are names."""
    values = _extract(subject, _images(subject))
    require(values.ndim == 2 and len(values) == N, f"features are {tuple(values.shape)} for {N} images, wanted [N, d]")
    require(values.dtype == torch.float32, f"features are {values.dtype}, wanted float32")
    require(values.device.type == "cpu", f"features are on {values.device}, wanted the CPU")
    require(not values.requires_grad, "features carry a gradient; detach them")
    names = tuple(_open(subject).names)
    require(not names or len(names) == values.shape[1], f"{len(names)} names for {values.shape[1]} columns")
    require(bool(values.isfinite().all()), "a feature is NaN or infinite")


def batch_invariance(subject: Subject) -> None:
    """Row i is the same alone, in a batch, and beside other images."""
    images = _images(subject)
    whole = _extract(subject, images)
    _same(subject, torch.cat([_extract(subject, one[None]) for one in images]), whole, "one by one")
    halves = torch.cat([_extract(subject, images[: N // 2]), _extract(subject, images[N // 2 :])])
    _same(subject, halves, whole, "in two halves")


def order_follows(subject: Subject) -> None:
    """Images in another order give the same rows in that order."""
    images, order = _images(subject), torch.tensor([4, 0, 5, 2, 1, 3])
    _same(subject, _extract(subject, images[order]), _extract(subject, images)[order], "in another order")


def repeats(subject: Subject) -> None:
    """The same images twice give the same bits, whatever the global random state is."""
    images = _images(subject)
    first = _extract(subject, images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        second = _extract(subject, images)
    require(torch.equal(first, second), "two calls gave two answers")


def memory_layout(subject: Subject) -> None:
    """A view that is not contiguous gives the same features."""
    images = _images(subject)
    spread = torch.empty((*images.shape[:-1], 2 * images.shape[-1]), dtype=images.dtype)
    spread[..., ::2] = images
    _same(subject, _extract(subject, spread[..., ::2]), _extract(subject, images), "from a view of other memory")


def tells_images_apart(subject: Subject) -> None:
    """Different images have different features."""
    values = _extract(subject, _images(subject))
    require(float((values - values[:1]).abs().max()) > 0, "six different images have one and the same features")


def flat_images(subject: Subject) -> None:
    """A constant image has finite features, at either end of the range."""
    images = _images(subject)
    intensity = subject.given.images.intensity
    for value in (intensity.lo, intensity.hi):
        flat = torch.full_like(images[:1], value)
        require(
            bool(_extract(subject, flat).isfinite().all()), f"an image of {value:g} throughout gives NaN or infinity"
        )


def input_untouched(subject: Subject) -> None:
    """Images are after the call what they were before it."""
    images = _images(subject)
    before = images.clone()
    _extract(subject, images)
    require(torch.equal(images, before), "it wrote into the images; work on a copy")


def leaves_the_process_alone(subject: Subject) -> None:
    """Random states, threads, environment, functions of torch and numpy, and standard output are left alone."""
    images = _images(subject)
    _extract(subject, images)  # a library's own initialisation is not the space's doing
    with left_alone():
        _extract(subject, images)


FEATURES_CHECKS: Sequence[Check] = tuple(
    Check(check.__name__, (check.__doc__ or "").strip(), check)
    for check in (
        declarations_are_sound,
        shape_and_type,
        batch_invariance,
        order_follows,
        repeats,
        memory_layout,
        tells_images_apart,
        flat_images,
        input_untouched,
        leaves_the_process_alone,
    )
)
