"""What a network can be conditioned on: a label, a caption, a mask, or another image of the same place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from medtrust.errors import ConfigError
from medtrust.types import ConditionSpec
from medtrust_generators.captions import MAX_WORDS, words_of

__all__ = ["Condition", "make_condition"]


class Condition(nn.Module):
    """No condition at all, and what the others share.

    A condition travels as `codes`, a tensor with one row per sample. `absent` is the code of "anything", which training
    puts in place of some codes, so that one network learns both and can be guided.

    Args:
        facts: What the card says of it: kind, and what that kind needs.
        shape: (C, H, W) of the images.
        embedding: Length of the vector.
    """

    planes = 0  # channels that the network gets beside the image
    required = False

    def __init__(self, facts: dict[str, Any], shape: tuple[int, int, int], embedding: int) -> None:
        super().__init__()
        self.facts = facts
        self.shape = shape

    @property
    def spec(self) -> ConditionSpec:
        """What a user can ask for."""
        return ConditionSpec()

    def encode(self, values: Sequence[Any]) -> Tensor:
        """Turn what a user asked for into codes."""
        raise ConfigError("this generator knows no conditions; leave the condition out")

    def absent(self, n: int) -> Tensor:
        """Codes of "anything"."""
        return torch.zeros(n, 1)

    def drop(self, codes: Tensor, share: float, rng: torch.Generator) -> Tensor:
        """Replace a random share of the codes by absent ones."""
        if not self.facts:
            return codes
        dropped = (torch.rand(len(codes), generator=rng) < share).to(codes.device)
        nothing = self.absent(len(codes)).to(codes)
        return torch.where(dropped.view(-1, *[1] * (codes.ndim - 1)), nothing, codes)

    def vector(self, codes: Tensor) -> Tensor | None:
        """Embed the codes: [N, embedding], or None where they say nothing to the whole image."""
        return None

    def picture(self, codes: Tensor) -> Tensor | None:
        """Show the codes as planes [N, planes, H, W], or None."""
        return None


class _Label(Condition):
    """One of a few classes; drawn by their frequencies in the training set where none is asked for."""

    def __init__(self, facts: dict[str, Any], shape: tuple[int, int, int], embedding: int) -> None:
        super().__init__(facts, shape, embedding)
        self.classes = tuple(facts["classes"])
        self.table = nn.Embedding(len(self.classes) + 1, embedding)

    @property
    def spec(self) -> ConditionSpec:
        return ConditionSpec("label", self.classes)

    def encode(self, values: Sequence[Any]) -> Tensor:
        unknown = [value for value in values if str(value) not in self.classes]
        if unknown:
            raise ConfigError(f"{unknown[0]!r} is no class of this generator; it has {', '.join(self.classes)}")
        return torch.tensor([self.classes.index(str(value)) for value in values], dtype=torch.int64)

    def absent(self, n: int) -> Tensor:
        return torch.full((n,), len(self.classes), dtype=torch.int64)

    def vector(self, codes: Tensor) -> Tensor:
        embedded: Tensor = self.table(codes)
        return embedded


class _Caption(Condition):
    """A sentence: word embeddings, each weighed by its place, summed and read by a small network."""

    required = True

    def __init__(self, facts: dict[str, Any], shape: tuple[int, int, int], embedding: int) -> None:
        super().__init__(facts, shape, embedding)
        self.words = {word: i + 1 for i, word in enumerate(facts["vocabulary"])}
        self.table = nn.Embedding(len(self.words) + 1, embedding, padding_idx=0)
        self.place = nn.Parameter(torch.ones(MAX_WORDS, embedding))
        self.read = nn.Sequential(nn.SiLU(), nn.Linear(embedding, embedding))

    @property
    def spec(self) -> ConditionSpec:
        return ConditionSpec("text", tuple(self.words), required=True)

    def encode(self, values: Sequence[Any]) -> Tensor:
        codes = torch.zeros(len(values), MAX_WORDS, dtype=torch.int64)
        for row, value in enumerate(values):
            words = words_of(str(value))
            unknown = [word for word in words if word not in self.words]
            if unknown:
                known = ", ".join(self.words)
                raise ConfigError(f"{value!r}: the word {unknown[0]!r} was in no training caption; known are {known}")
            if not 0 < len(words) <= MAX_WORDS:
                raise ConfigError(f"{value!r} has {len(words)} words; give 1 to {MAX_WORDS}")
            codes[row, : len(words)] = torch.tensor([self.words[word] for word in words])
        return codes

    def absent(self, n: int) -> Tensor:
        return torch.zeros(n, MAX_WORDS, dtype=torch.int64)

    def vector(self, codes: Tensor) -> Tensor:
        read = (self.table(codes) * self.place).sum(1)
        embedded: Tensor = read + self.read(read)
        return embedded


class _Mask(Condition):
    """A map of classes, shown to the network as one plane per class."""

    required = True

    def __init__(self, facts: dict[str, Any], shape: tuple[int, int, int], embedding: int) -> None:
        super().__init__(facts, shape, embedding)
        self.classes = tuple(facts["classes"])
        self.planes = len(self.classes)

    @property
    def spec(self) -> ConditionSpec:
        return ConditionSpec("mask", self.classes, required=True, shape=(1, *self.shape[1:]))

    def encode(self, values: Sequence[Any]) -> Tensor:
        maps = torch.from_numpy(_stacked(values, (1, *self.shape[1:]), "mask").astype(np.int64))[:, 0]
        if len(maps) and not (int(maps.min()) >= 0 and int(maps.max()) < self.planes):
            raise ConfigError(
                f"a mask holds {int(maps.min())} to {int(maps.max())}; classes are 0 to {self.planes - 1}"
            )
        return functional.one_hot(maps, self.planes).permute(0, 3, 1, 2).to(torch.float32)

    def absent(self, n: int) -> Tensor:
        return torch.zeros(n, self.planes, *self.shape[1:])

    def picture(self, codes: Tensor) -> Tensor:
        return codes


class _Image(Condition):
    """Another image of the same place, such as the same slice in another contrast."""

    required = True

    def __init__(self, facts: dict[str, Any], shape: tuple[int, int, int], embedding: int) -> None:
        super().__init__(facts, shape, embedding)
        self.channels = int(facts["channels"])
        self.planes = self.channels + 1  # and one that says whether there is an image
        self.register_buffer("mean", torch.tensor(float(facts["mean"])))
        self.register_buffer("spread", torch.tensor(float(facts["spread"])))

    @property
    def spec(self) -> ConditionSpec:
        return ConditionSpec("image", required=True, shape=(self.channels, *self.shape[1:]))

    def encode(self, values: Sequence[Any]) -> Tensor:
        images = torch.from_numpy(_stacked(values, (self.channels, *self.shape[1:]), "image").astype(np.float32))
        if not bool(images.isfinite().all()):
            raise ConfigError("a source image is not finite; leave it out or repair it")
        there = torch.ones(len(images), 1, *self.shape[1:])
        return torch.cat([(images - self.mean.cpu()) / self.spread.cpu(), there], 1)

    def absent(self, n: int) -> Tensor:
        return torch.zeros(n, self.planes, *self.shape[1:])

    def picture(self, codes: Tensor) -> Tensor:
        return codes


_KINDS = {"label": _Label, "text": _Caption, "mask": _Mask, "image": _Image}


def make_condition(facts: dict[str, Any], shape: tuple[int, int, int], embedding: int) -> Condition:
    """Make the condition that a card describes; none where `facts` is empty."""
    return _KINDS[facts["kind"]](facts, shape, embedding) if facts else Condition({}, shape, embedding)


def _stacked(values: Sequence[Any], shape: tuple[int, ...], what: str) -> np.ndarray[Any, Any]:
    arrays = []
    for value in values:
        array = np.asarray(value)
        if array.ndim == 2:
            array = array[None]
        if array.shape != shape or array.dtype.kind not in "biuf":
            raise ConfigError(
                f"the {what} of a sample is {array.dtype} {list(array.shape)}; give numbers {list(shape)}"
            )
        arrays.append(array)
    return np.stack(arrays) if arrays else np.empty((0, *shape))
