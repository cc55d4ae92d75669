"""Which synthetic image belongs to which real one, and where in an image the body is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from medtrust import Insufficient, MetricInput
from medtrust.errors import ConfigError
from medtrust.types import SetData
from medtrust_fidelity.options import number, option

__all__ = ["Pairs", "body", "find_pairs", "tensors"]

Array = np.ndarray[Any, Any]
_EXACT = {"uint8", "uint16", "float32", "float64"}  # what the image kernels take; other types become float32


@dataclass(frozen=True, slots=True)
class Pairs:
    """Real images and the synthetic ones made to equal them.

    Args:
        real: The real set that the partners are from.
        left: Row of each pair in it.
        right: Row of each pair in synthetic.
        by: How they were found, in words.
        alone: Synthetic images without a partner.
    """

    real: SetData
    left: tuple[int, ...]
    right: tuple[int, ...]
    by: str
    alone: int


def find_pairs(data: MetricInput) -> Pairs:
    """Pair synthetic images with real ones as the user declared.

    The option `pair_by` is "name", the path below the set's folder without its suffix, or a column of both manifests;
    it must be given, since files may have equal names by accident. `pair_with` is the real set, holdout where there is
    one, else train.

    Raises:
        ConfigError: `pair_with` names no set that there is.
        Insufficient: `pair_by` is not given, a key is missing or doubled, or no synthetic image has a partner.
    """
    wanted = option(data, "paired", "pair_with", "holdout" if data.holdout is not None else "train")
    real = {"train": data.train, "holdout": data.holdout}.get(wanted)
    if real is None:
        raise ConfigError(f"the option pair_with is {wanted!r}: give a real set of this audit, train or holdout")
    column = str(option(data, "paired", "pair_by", ""))
    if not column:
        raise Insufficient(
            'nobody has said how synthetic images are paired with real ones: set pair_by = "name", or a column of both '
            "manifests, in [plugins.fidelity.paired]"
        )
    known = {key: row for row, key in enumerate(_keys(real, column))}
    left, right = [], []
    for row, key in enumerate(_keys(data.synthetic, column)):
        if key in known:
            left.append(known[key])
            right.append(row)
    by = "file name" if column == "name" else f"column {column}"
    if not left:
        raise Insufficient(
            f"no synthetic image has a partner in {wanted} by {by}; set pair_by to a column that both manifests have, "
            "or give the files the same names"
        )
    return Pairs(real, tuple(left), tuple(right), f"{by}, with {wanted}", len(data.synthetic) - len(left))


def _keys(data: SetData, column: str) -> list[str]:
    """What each image is paired by; each key once."""
    if column == "name":
        names = data.names or tuple(record.name for record in data.images)
        keys = [_stem(name) for name in names]
    else:
        keys = [str(row.get(column, "")) for row in data.attributes]
        if len(keys) != len(data) or not all(keys):
            missing = len(data) - sum(bool(key) for key in keys)
            raise Insufficient(
                f"{missing} images of {data.name} have no value in the column {column!r} that pairs are found by; fill "
                "it in the manifest"
            )
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise Insufficient(f"two images of {data.name} have the same key {key!r}; a pair needs one of each")
        seen.add(key)
    return keys


def _stem(name: str) -> str:
    path, mark, index = name.partition("#")
    pure = PurePosixPath(path)
    return str(pure.with_name(pure.name.split(".")[0] or pure.name)) + mark + index


def body(data: MetricInput, pixels: Array) -> Array | None:
    """Where the body is, by the option `body_above`: a threshold in the declared unit; None for the whole image.

    The largest connected part above the threshold, with its holes filled, in the real image; channels are averaged.

    Args:
        data: The metric's input.
        pixels: [C, H, W] or [C, D, H, W] of the real image.

    Returns:
        [H, W] or [D, H, W] bool, or None.
    """
    threshold = number(data, "paired", "body_above")
    if threshold is None:
        return None
    labels, count = ndimage.label(pixels.astype(np.float64).mean(axis=0) > threshold)
    if count == 0:
        return np.zeros(pixels.shape[1:], dtype=bool)
    largest = int(np.argmax(np.bincount(labels.ravel())[1:])) + 1
    filled: Array = ndimage.binary_fill_holes(labels == largest)
    return filled


def tensors(pairs: Pairs, synthetic: SetData) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Decode the pairs one by one, as tensors [1, C, H, W] or [1, C, D, H, W] of one type.

    Raises:
        Insufficient: The two images of a pair differ in shape, or one holds a value that is not finite.
    """
    for left, right in zip(pairs.left, pairs.right, strict=True):
        one, other = pairs.real.images[left], synthetic.images[right]
        yield same_kind(one.name, one.pixels, other.name, other.pixels)


def same_kind(name: str, x: Array, other_name: str, y: Array) -> tuple[torch.Tensor, torch.Tensor]:
    """Two images as tensors of one type that the kernels take.

    Raises:
        Insufficient: They differ in shape, or one holds a value that is not finite.
    """
    if x.shape != y.shape:
        raise Insufficient(
            f"the pair {name} and {other_name} differ in shape ({_words(x)} and {_words(y)}): bring them to one size"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise Insufficient(f"the pair {name} and {other_name} holds values that are not finite: leave it out")
    kind = x.dtype.name if x.dtype == y.dtype and x.dtype.name in _EXACT else "float64"
    return torch.as_tensor(x.astype(kind))[None], torch.as_tensor(y.astype(kind))[None]


def _words(pixels: Array) -> str:
    return " x ".join(map(str, pixels.shape))
