"""Template captions over what can be measured in an image, and the words they are made of."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_WORDS", "describe", "words_of"]

MAX_WORDS = 24
_WORD = re.compile(r"[a-z0-9-]+")
_SIDES = ("left", "right", "centre")


def words_of(sentence: str) -> list[str]:
    """Lower-case words of a sentence; punctuation parts them and is dropped."""
    return _WORD.findall(sentence.lower())


def describe(images: Sequence[npt.NDArray[np.float32]]) -> list[str]:
    """Describe each image [C, H, W] by brightness, texture, and where its darkest area lies, relative to the set.

    The words are terciles of the set: a third of the images is "dark", a third "bright". A dark spot counts as there
    when a quarter of the width is darker than the rest by more than the median such difference.

    Returns:
        Sentences such as "a dark smooth image with a spot on the left" or "a bright rough image without a spot".
    """
    grey = np.stack([image.mean(0) for image in images]).astype(np.float64)
    brightness = grey.mean((1, 2))
    texture = np.log(np.abs(np.diff(grey, axis=2)).mean((1, 2)) + 1e-6)
    width = grey.shape[2]
    third = max(1, width // 3)
    parts = np.stack(
        [grey[:, :, :third], grey[:, :, width - third :], grey[:, :, (width - third) // 2 :][:, :, :third]]
    ).mean((2, 3))
    depth = brightness - parts.min(0)
    there = depth > np.median(depth)
    shade, grain = _terciles(brightness, ("dark", "medium", "bright")), _terciles(texture, ("smooth", "plain", "rough"))
    sentences = []
    for i, side in enumerate(parts.argmin(0)):
        where = "in the centre" if _SIDES[side] == "centre" else f"on the {_SIDES[side]}"
        spot = f"with a spot {where}" if there[i] else "without a spot"
        sentences.append(f"a {shade[i]} {grain[i]} image {spot}")
    return sentences


def _terciles(values: npt.NDArray[np.float64], names: tuple[str, str, str]) -> list[str]:
    cuts = np.quantile(values, [1 / 3, 2 / 3])
    return [names[int(np.searchsorted(cuts, value, side="right"))] for value in values]
