"""Begin a training with weights that were fitted on other images, and keep on record whose images those were.

Reference: Yosinski et al., arXiv:1411.1792. Nothing is frozen; every parameter goes on learning.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medtrust.errors import DataError
from medtrust_generators.checkpoint import CARD, read_card, read_weights

__all__ = ["ancestors_of", "read_ancestor", "take_over"]

_KEPT = ("kind", "version", "data", "modality", "intensity", "shape", "licence", "weights_sha256", "start")
_LEAST = 0.5  # of the parameters; with fewer taken over, "fine-tuned" would be the wrong word
_ANCESTORS = 32  # checkpoints in a chain; more is a card that was tampered with


def read_ancestor(folder: Path, kind: str, version: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the checkpoint that a training begins with.

    Args:
        folder: A checkpoint of the same kind.
        kind: The kind.
        version: Version of the kind; weights of another mean something else.

    Returns:
        What the new card says of it, and its weights.

    Raises:
        ConfigError: It is of another kind.
        DataError: It is missing, damaged, or of another version.
    """
    card = read_card(folder, kind)
    if card.get("version") != version:
        raise DataError(
            f"{folder} is of version {card.get('version')} of {kind}, this is version {version}; train it again"
        )
    weights = read_weights(folder, card)
    return {name: card[name] for name in _KEPT if name in card}, weights


@torch.no_grad()
def take_over(model: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> float:
    """Copy every parameter that has a namesake of the same shape; the rest keeps its random start.

    Buffers, such as the whitening, belong to the images and are fitted anew. Images of another size or with other
    channels change the shape of a few layers, which then begin at random.

    Args:
        model: Changed in place.
        weights: Tensors of the ancestor.
        folder: Where they came from, for the message.

    Returns:
        Share of the parameters taken over.

    Raises:
        DataError: Less than half fits.
    """
    taken = total = 0
    for name, parameter in model.named_parameters():
        total += parameter.numel()
        found = weights.get(name)
        if found is not None and found.shape == parameter.shape:
            parameter.copy_(found)
            taken += parameter.numel()
    share = taken / total
    if share < _LEAST:
        raise DataError(
            f"only {share:.0%} of the parameters have the shape of those in {folder}; train with the recipe in its "
            f"{CARD}, or leave out start="
        )
    return share


def ancestors_of(card: Mapping[str, Any]) -> tuple[str, ...]:
    """Say on whose images a checkpoint's ancestors were fitted, the nearest first.

    Args:
        card: Of a checkpoint, or a part of one.

    Raises:
        DataError: The chain is broken.
    """
    return tuple(_lines(card))


def _lines(card: Mapping[str, Any]) -> Iterator[str]:
    ancestor = card.get("start")
    for _ in range(_ANCESTORS):
        if ancestor is None:
            return
        try:
            data, what = ancestor["data"], ancestor["modality"] or "images of no stated modality"
            yield (
                f"{ancestor['kind']} fitted on {data['images']} images of {data['patients']} patients ({what}, "
                f"set {str(data['digest'])[:12]}, licence {ancestor['licence']})"
            )
            ancestor = ancestor.get("start")
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{CARD} does not say what the checkpoint began with ({json.dumps(card.get('start'))[:200]}"
                "); train the checkpoint again"
            ) from error
    raise DataError(f"{CARD} names more than {_ANCESTORS} ancestors; train the checkpoint again")
