"""What the trained generators share: sampling that no batch size can change."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from medtrust import ops
from medtrust.errors import ConfigError
from medtrust.types import Caps, ImageSpec, SampleBatch
from medtrust_generators.model import Draw, Model
from medtrust_generators.training import threads
from medtrust_generators.transferring import ancestors_of

if TYPE_CHECKING:
    pass

__all__ = ["CHUNK", "NeuralGenerator"]

CHUNK = 64  # images that one forward pass makes, whatever was asked for
_LABELS = 2**40  # step of the noise that draws labels, far from any sampler's


class NeuralGenerator:
    """Samples from a trained model; image i depends on the seed, on i and on its condition alone, bit for bit.

    Args:
        model: The model.
        card: The checkpoint's card.
        family: Of the generator's spec.
        device: cpu or cuda.
        cpu_threads: CPU threads to compute with.
    """

    def __init__(self, model: Model, card: Mapping[str, Any], family: str, device: str, cpu_threads: int) -> None:
        stated = card["intensity"]
        window = tuple(stated["window"]) if stated["window"] else None
        spacing = tuple(card["spacing_mm"]) if card.get("spacing_mm") else None
        self.spec = ImageSpec(
            tuple(card["shape"]),
            card["dtype"],
            (stated["lo"], stated["hi"]),
            stated["unit"],
            window,
            spacing,
            card.get("modality"),
        )
        self.conditions = model.condition.spec
        self.caps = Caps(family=family, steps=model.nfe, ancestors=ancestors_of(card), **self.abilities(model))
        self.card = card
        self._model = model.eval().to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device = device
        self._threads = cpu_threads
        self._dtype = np.dtype(card["dtype"])
        self._last: tuple[Any, np.ndarray[Any, Any]] | None = None

    @staticmethod
    def abilities(model: Model) -> dict[str, Any]:
        """Further fields of `caps`."""
        return {}

    @torch.no_grad()
    def sample(
        self, n: int, *, seed: int, condition: Sequence[Any] | None = None, first: int = 0, **opts: Any
    ) -> SampleBatch:
        """Draw samples first … first + n - 1.

        Libraries choose how to add numbers up by the size of the batch, so the same image in another batch can differ
        in its last bits. Here image i is always computed in the same place of the same chunk of 64; the last chunk is
        kept, so that asking for one image after the other costs no more than asking for all.

        Args:
            n: How many images.
            seed: Seed of the whole series.
            condition: What each of them shall show, as `conditions` says. Without it, labels are drawn by their
                frequencies in the training set.
            first: Position of the first image in the series.
            opts: None are known.

        Returns:
            [n, C, H, W] in the unit and dtype of the training set.

        Raises:
            ConfigError: A negative number, an unknown option, or a condition that does not fit.
        """
        if n < 0 or first < 0:
            raise ConfigError(f"cannot draw {n} samples from number {first} on; both numbers must be at least 0")
        if opts:
            raise ConfigError(f"this generator has no option {next(iter(opts))!r} for sampling")
        asked = self._asked(n, seed, condition, first)
        codes = self._model.condition.absent(n) if asked is None else self._model.condition.encode(asked)
        began, parts = time.perf_counter(), []
        with threads(self._threads):
            for start in range(first - first % CHUNK, first + n, CHUNK):
                lo, hi = max(first, start), min(first + n, start + CHUNK)
                whole = self._model.condition.absent(CHUNK)
                whole[lo - start : hi - start] = codes[lo - first : hi - first]
                parts.append(self._chunk(seed, start, whole)[lo - start : hi - start])
        pixels = np.concatenate([np.empty((0, *self.card["shape"]), self._dtype), *parts])
        meta = {
            "kind": self.card["kind"],
            "device": self._device,
            "nfe": self._model.nfe,
            "wall_s": time.perf_counter() - began,
        }
        return SampleBatch(pixels, tuple(range(first, first + n)), meta, asked)

    def _asked(self, n: int, seed: int, condition: Sequence[Any] | None, first: int) -> list[Any] | None:
        facts = self._model.condition.facts
        if condition is not None:
            if len(condition) != n:
                raise ConfigError(f"{len(condition)} conditions do not fit {n} samples; give one for each")
            return list(condition)
        if self.conditions.required:
            raise ConfigError(
                f"generator {self.card['kind']} needs a {self.conditions.kind} for each sample; name it by --condition"
            )
        if facts.get("kind") != "label":
            return None
        edges = np.cumsum(facts["shares"])[:-1]
        drawn = ops.philox_uniform((n, 1), seed, _LABELS, first=first)[:, 0].double().numpy()
        return [facts["classes"][i] for i in np.searchsorted(edges, drawn, side="right")]

    def develop(self, made: Tensor, seed: int, start: int, codes: Tensor) -> Tensor:
        """Turn what the network draws into images; a generator that has a model of the scanner does it here.

        Args:
            made: [64, C, H, W] float32 on the CPU, whitening undone.
            seed: Seed of the series.
            start: Position of the first in the series.
            codes: Condition of each.
        """
        return made

    def stored(self, images: Tensor) -> np.ndarray[Any, Any]:
        """Clip images to the declared range and bring them to its dtype."""
        pixels = images.numpy().astype(np.float64).clip(*self.spec.range)
        if self._dtype.kind in "iu":
            limits = np.iinfo(self._dtype)
            pixels = pixels.round().clip(limits.min, limits.max)
        return pixels.astype(self._dtype)

    def _chunk(self, seed: int, start: int, codes: Tensor) -> np.ndarray[Any, Any]:
        key = (seed, start, codes.numpy().tobytes())
        if self._last is None or self._last[0] != key:
            made = self._drawn(seed, start, codes)
            self._last = key, self.stored(self.develop(made, seed, start, codes))
        return self._last[1]

    def _drawn(self, seed: int, start: int, codes: Tensor) -> Tensor:
        made = self._model.generate(Draw(seed, start, CHUNK, self._device), codes.to(self._device))
        return self._model.whitening.inverse(made).cpu()
