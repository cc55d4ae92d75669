"""Do synthetic images show what their captions say, to a scorer of images and sentences?"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from medtrust import Insufficient, MetricInput, Result
from medtrust.errors import ConfigError
from medtrust.seeding import derive_seed
from medtrust.types import SetData
from medtrust_fidelity.conditional import Kept, against_ceiling, conditions_of
from medtrust_fidelity.options import option
from medtrust_generators.captions import describe, words_of

__all__ = ["TextConsistency", "measured"]

_METRIC = "text_consistency"
_OTHERS = 32  # captions of other patients that each image is asked about
_SIDES, _NOT = ("left", "right"), ("without", "with")
Scorer = Callable[[Sequence[np.ndarray], Sequence[str], Sequence[np.ndarray]], np.ndarray]


class TextConsistency:
    """Is an image's own caption scored above another's, above its mirror, and above its negation?"""

    def compute(self, data: MetricInput) -> Mapping[str, Result]:
        """Score images against captions.

        The option `column` names the captions (caption). `scorer` is "measured", which reads brightness, texture and
        spots off the image, or "package.module:function" with (images, captions, train images) -> scores [N, M].
        """
        assert data.holdout is not None  # the spec asks for it
        column = str(option(data, _METRIC, "column", "caption"))
        scorer = _scorer(str(option(data, _METRIC, "scorer", "measured")))
        train = [record.pixels.astype(np.float32) for record in data.train.images]
        synthetic, holdout = (_asked(data, one, column, scorer, train) for one in (data.synthetic, data.holdout))
        told = {
            "text_match": ("that a caption is scored above another's", "Captions matched"),
            "text_negation": ("that a caption is scored above its negation", "Captions against negations"),
            "text_laterality": ("that a caption is scored above its mirror", "Captions against mirrors"),
        }
        results = {}
        for name, (what, title) in told.items():
            try:
                results[f"fidelity.{name}"] = against_ceiling(
                    data, synthetic[name], holdout[name], f"the chance {what}", title, {"chance": 0.5}
                )
            except Insufficient as shortage:
                results[f"fidelity.{name}"] = Result(status="insufficient", reason=str(shortage), title=title)
        return results


def measured(images: Sequence[np.ndarray], captions: Sequence[str], train: Sequence[np.ndarray]) -> np.ndarray:
    """Share of words that a caption has in common with what is measured in an image, relative to the train images.

    Args:
        images: N images [C, H, W].
        captions: M sentences.
        train: Images that "dark" and "bright" are relative to.

    Returns:
        [N, M] Jaccard index of the words.
    """
    seen = [set(words_of(sentence)) for sentence in describe([*train, *images])[len(train) :]]
    said = [set(words_of(sentence)) for sentence in captions]
    return np.array([[len(a & b) / max(len(a | b), 1) for b in said] for a in seen])


def _scorer(name: str) -> Scorer:
    if name == "measured":
        return measured
    module, _, function = name.partition(":")
    try:
        found: Scorer = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"the option scorer is {name!r}, which cannot be imported ({error}); write package.module:function or "
            "measured"
        ) from error
    return found


def _asked(
    data: MetricInput, one: SetData, column: str, scorer: Scorer, train: Sequence[np.ndarray]
) -> dict[str, Kept]:
    """How often each image prefers its own caption."""
    captions = conditions_of(one, column, _METRIC)
    images = [record.pixels.astype(np.float32) for record in one.images]
    every = sorted({*captions, *map(_mirrored, captions), *map(_negated, captions)})
    scores = np.asarray(scorer(images, every, train), np.float64)
    if scores.shape != (len(images), len(every)) or not np.isfinite(scores).all():
        raise ConfigError(f"the scorer returned {list(scores.shape)}, not finite scores {[len(images), len(every)]}")
    place = {caption: j for j, caption in enumerate(every)}
    rng = np.random.default_rng(derive_seed(data.seed, "others", one.name))
    match = []
    for i, own in enumerate(captions):
        others = [j for j, text in enumerate(captions) if one.patients[j] != one.patients[i] and text != own]
        chosen = rng.permutation(others)[:_OTHERS].astype(int)
        match.append(np.mean([_above(scores[i], place[own], place[captions[j]]) for j in chosen]) if others else np.nan)

    def flipped(flip: Callable[[str], str]) -> Kept:
        rows = [(place[own], place[flip(own)]) for own in captions]
        values = [_above(scores[i], a, b) if a != b else np.nan for i, (a, b) in enumerate(rows)]
        return np.array(values), one.patients

    return {
        "text_match": (np.array(match), one.patients),
        "text_negation": flipped(_negated),
        "text_laterality": flipped(_mirrored),
    }


def _above(scores: Any, own: int, other: int) -> float:
    return 0.5 if scores[own] == scores[other] else float(scores[own] > scores[other])


def _swap(text: str, a: str, b: str) -> str:
    return re.sub(rf"\b({a}|{b})\b", lambda found: b if found[1].lower() == a else a, text, flags=re.IGNORECASE)


def _mirrored(caption: str) -> str:
    """Left becomes right, and right left."""
    return _swap(caption, *_SIDES)


def _negated(caption: str) -> str:
    """With becomes without, and without with; "no x" becomes "x", and "x is" "x is not"."""
    swapped = _swap(caption, *_NOT)
    if swapped != caption:
        return swapped
    if re.search(r"\bno ", caption, re.IGNORECASE):
        return re.sub(r"\bno ", "", caption, count=1, flags=re.IGNORECASE)
    return re.sub(r"\b(is|are|shows)\b", r"\1 not", caption, count=1)
