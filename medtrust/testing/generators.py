"""Checks of a generator: what it declares is what comes out, and sample i depends on seed, position and condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medtrust.sources import GeneratorSource, open_generator
from medtrust.testing.kit import Check, Conformance, NotApplicable, Subject, hold, require, resolve
from medtrust.testing.watching import left_alone
from medtrust.types import GeneratorSpec, SampleBatch

__all__ = ["GENERATOR_CHECKS", "GENERATOR_FLOOR", "GeneratorGiven", "check_generator", "generator_subject"]

GENERATOR_FLOOR = 8
N = 6


@dataclass(frozen=True, slots=True)
class GeneratorGiven:
    """What the author of a generator gives its checks.

    Args:
        path: The artefact to open: what stands after the colon of `kind:…`.
        options: What stands after its question mark.
        allow_code: The artefact may bring code.
    """

    path: str | Path = ""
    options: Mapping[str, str] = field(default_factory=dict)
    allow_code: bool = False


def generator_subject(
    generator: str | GeneratorSpec,
    *,
    expected_failures: Mapping[str, str] | None = None,
    floor: int = GENERATOR_FLOOR,
    **given: Any,
) -> Subject:
    """Find a generator, with what its checks need (see `check_generator`)."""
    told = GeneratorGiven(**given)
    return resolve("generator", generator, expected=expected_failures or {}, floor=floor, given=told)


def check_generator(generator: str | GeneratorSpec, **options: Any) -> Conformance:
    """Run every check of a generator.

    Args:
        generator: Name of an installed generator, or a `GeneratorSpec` that is not installed.
        options: `expected_failures`: checks that are known to fail, each with the reason. `floor`: how many checks must
            run. `path`, `options`, `allow_code`: see `GeneratorGiven`.

    Returns:
        The account of every check.

    Raises:
        AssertionError: A check failed, one that was expected to fail passed, or too few ran.
    """
    return hold(GENERATOR_CHECKS, generator_subject(generator, **options))


def _open(subject: Subject) -> Any:
    if "generator" not in subject.kept:
        given: GeneratorGiven = subject.given
        target = str(given.path)
        source = GeneratorSource(
            subject.contribution.full_name, Path(target) if target else None, dict(given.options), target
        )
        subject.kept["generator"] = open_generator(source, subject.host, "cpu", allow_code=given.allow_code)
    return subject.kept["generator"]


def _conditions(generator: Any, n: int) -> list[Any] | None:
    """Conditions for the first n samples; None where the generator may choose."""
    asked = generator.conditions
    if asked.kind == "label" and asked.classes:
        return [asked.classes[i % len(asked.classes)] for i in range(n)]
    if not asked.required:
        return None
    if asked.kind == "multilabel":
        return [(asked.classes[i % len(asked.classes)],) for i in range(n)]
    if asked.kind == "text":
        return [f"an image, number {i % 3}" for i in range(n)]
    if asked.kind in ("mask", "image"):
        return list(np.zeros((n, *asked.shape), np.uint8))
    return [dict.fromkeys(asked.classes, 0.0) for _ in range(n)]


def _sample(subject: Subject, n: int, *, seed: int = 3, first: int = 0) -> SampleBatch:
    generator = _open(subject)
    conditions = _conditions(generator, first + n)
    options: dict[str, Any] = {} if conditions is None else {"condition": conditions[first:]}
    batch: SampleBatch = generator.sample(n, seed=seed, first=first, **options)
    require(isinstance(batch, SampleBatch), f"sample() returned a {type(batch).__name__}, wanted a SampleBatch")
    require(
        isinstance(batch.pixels, np.ndarray), f"its pixels are a {type(batch.pixels).__name__}, wanted a numpy array"
    )
    return batch


def _whole(subject: Subject) -> SampleBatch:
    if "whole" not in subject.kept:
        subject.kept["whole"] = _sample(subject, N)
    batch: SampleBatch = subject.kept["whole"]
    return batch


def declarations_are_sound(subject: Subject) -> None:
    """`spec`, `conditions` and `caps` say something that an image can be held against."""
    generator = _open(subject)
    spec, caps = generator.spec, generator.caps
    require(len(spec.shape) in (3, 4), f"spec.shape is {spec.shape}, wanted [C, H, W] or [C, D, H, W]")
    np.dtype(spec.dtype)
    require(spec.range[0] < spec.range[1], f"spec.range is {spec.range}; the first must be smaller")
    require(spec.unit, "spec.unit is empty: HU, level or a.u.")
    if generator.conditions.required:
        require(generator.conditions.kind != "none", "a condition is required, but conditions.kind is none")
    if generator.conditions.kind in ("label", "multilabel", "tabular"):
        require(generator.conditions.classes, f"conditions.kind is {generator.conditions.kind} without classes")
    require(caps.trust in ("data", "graph", "code"), f"caps.trust is {caps.trust!r}")


def keeps_its_declarations(subject: Subject) -> None:
    """Shape, type, range and count of the images are those declared; no value is NaN or infinite."""
    generator, batch = _open(subject), _whole(subject)
    spec, pixels = generator.spec, batch.pixels
    require(len(pixels) == N, f"asked for {N} images, it made {len(pixels)}")
    require(len(batch.seeds) == N, f"asked for {N} images, it told {len(batch.seeds)} seeds")
    fits = len(pixels.shape) == len(spec.shape) + 1 and all(
        a in (-1, b) for a, b in zip(spec.shape, pixels.shape[1:], strict=True)
    )
    require(fits, f"images are {list(pixels.shape[1:])}, declared is {list(spec.shape)}")
    require(pixels.dtype.name == np.dtype(spec.dtype).name, f"pixels are {pixels.dtype}, declared is {spec.dtype}")
    require(bool(np.isfinite(pixels).all()), "it made NaN or infinity")
    lo, hi = float(pixels.min()), float(pixels.max())
    require(spec.range[0] <= lo and hi <= spec.range[1], f"values are {lo:g} … {hi:g}, declared is {spec.range}")


def seed_repeats(subject: Subject) -> None:
    """The same seed gives the same bytes."""
    if not _open(subject).caps.seedable:
        raise NotApplicable("its caps declare seedable=False")
    same = _sample(subject, N).pixels.tobytes() == _whole(subject).pixels.tobytes()
    require(same, "the same seed gave other images; draw from the seed alone, or declare caps.seedable=False")


def seeds_differ(subject: Subject) -> None:
    """Another seed gives other images, and no two positions the same image."""
    if not _open(subject).caps.seedable:
        raise NotApplicable("its caps declare seedable=False")
    whole = _whole(subject).pixels
    require(_sample(subject, N, seed=4).pixels.tobytes() != whole.tobytes(), "another seed gave the same images")
    require(len({one.tobytes() for one in whole}) > 1, "all positions of a series hold one and the same image")


def batch_invariance(subject: Subject) -> None:
    """Sample i has the same bytes alone, in a batch, and at the start or end of a request."""
    caps = _open(subject).caps
    if not (caps.seedable and caps.batch_invariant):
        raise NotApplicable("its caps declare seedable=False or batch_invariant=False")
    whole = _whole(subject).pixels
    for first, n in ((0, 1), (1, 2), (3, N - 3), (N - 1, 1)):
        part = _sample(subject, n, first=first).pixels
        require(
            part.tobytes() == whole[first : first + n].tobytes(),
            f"samples {first} to {first + n - 1} differ when they are asked for by themselves; draw sample i from "
            "(seed, first + i), or declare caps.batch_invariant=False",
        )


def nothing_is_asked(subject: Subject) -> None:
    """No image asked for gives an empty batch of the right shape."""
    batch, whole = _sample(subject, 0), _whole(subject).pixels
    require(batch.pixels.shape == (0, *whole.shape[1:]), f"asked for none, it answered {batch.pixels.shape}")
    require(batch.pixels.dtype == whole.dtype, f"an empty batch is {batch.pixels.dtype} instead of {whole.dtype}")


def batches_are_the_callers(subject: Subject) -> None:
    """Writing into a batch changes no later one."""
    first = _sample(subject, 2).pixels
    before = first.copy()
    if not first.flags.writeable:
        raise NotApplicable("its batches cannot be written to")
    first[...] = 0
    if _open(subject).caps.seedable:
        require(_sample(subject, 2).pixels.tobytes() == before.tobytes(), "it hands out its own memory; give a copy")


def conditions_are_answered(subject: Subject) -> None:
    """Each class can be asked for, and the batch says what was asked."""
    generator = _open(subject)
    conditions = _conditions(generator, N)
    if conditions is None:
        raise NotApplicable("it takes no condition")
    told = _whole(subject).condition
    if told is None:
        raise AssertionError("it was asked by condition, but SampleBatch.condition is None")
    require(len(told) == N, f"{len(told)} conditions for {N} samples")
    if generator.conditions.kind == "label":
        require(list(told) == conditions, f"asked for {conditions}, it says {list(told)}")
        for one in generator.conditions.classes:
            generator.sample(1, seed=1, condition=[one])


def capabilities_are_there(subject: Subject) -> None:
    """What `caps` and the spec promise exists: `decode` for a latent, `train` for trainable."""
    from medtrust.types import Decoder, Trainable

    generator = _open(subject)
    latent, sides = generator.caps.latent, len(generator.spec.shape)
    if latent is not None and isinstance(generator, Decoder):
        import torch

        shape = tuple(generator.decode(torch.zeros(2, latent)).shape)
        require(shape[0] == 2 and len(shape) == sides + 1, f"decode gave {shape} for two codes")
    if subject.spec.trainable:
        require(isinstance(subject.load()(), Trainable), "its spec says trainable, but its factory has no train")


def leaves_the_process_alone(subject: Subject) -> None:
    """Random states, threads, environment, functions of torch and numpy, and standard output are left alone."""
    _whole(subject)  # a library's own initialisation is not the generator's doing
    with left_alone():
        _sample(subject, 2)


def opens_again(subject: Subject) -> None:
    """Opened a second time, it makes the same images."""
    whole = _whole(subject).pixels
    kept = subject.kept.pop("generator")
    try:
        again = _sample(subject, N).pixels
    finally:
        subject.kept["generator"] = kept
    if not kept.caps.seedable:
        raise NotApplicable("its caps declare seedable=False")
    require(again.tobytes() == whole.tobytes(), "opened again, the same seed gave other images")


def unknown_options_are_refused(subject: Subject) -> None:
    """An option that it does not know is an error and no silence."""
    given: GeneratorGiven = subject.given
    target = str(given.path)
    options = {**given.options, "an_option_nobody_has": "1"}
    source = GeneratorSource(subject.contribution.full_name, Path(target) if target else None, options, target)
    try:
        open_generator(source, subject.host, "cpu", allow_code=given.allow_code)
    except Exception as error:
        require("an_option_nobody_has" in str(error), f"the error does not name the option: {error}")
        return
    raise AssertionError("it took `an_option_nobody_has=1` without a word; a misspelt option would go unnoticed")


GENERATOR_CHECKS: Sequence[Check] = tuple(
    Check(check.__name__, (check.__doc__ or "").strip(), check)
    for check in (
        declarations_are_sound,
        keeps_its_declarations,
        seed_repeats,
        seeds_differ,
        batch_invariance,
        nothing_is_asked,
        batches_are_the_callers,
        conditions_are_answered,
        capabilities_are_there,
        unknown_options_are_refused,
        opens_again,
        leaves_the_process_alone,
    )
)
