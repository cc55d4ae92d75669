"""What the factories of trainable generators share: from images to a checkpoint, and from that to a generator."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from medtrust.errors import ConfigError, DataError
from medtrust.seeding import derive_seed
from medtrust_generators.checkpoint import read_card, read_weights, write_checkpoint
from medtrust_generators.grid import GRID, draw_grid
from medtrust_generators.model import Model
from medtrust_generators.neural import NeuralGenerator
from medtrust_generators.options import Options
from medtrust_generators.pairing import pair_up
from medtrust_generators.preparing import stack_images, symmetries
from medtrust_generators.training import PROGRESS, Plan, fit, threads
from medtrust_generators.transferring import read_ancestor, take_over

if TYPE_CHECKING:
    from medtrust.progress import Progress
    from medtrust.types import ImageRecord, Intensity

__all__ = ["NeuralFactory"]

_THREADS = 1  # how many threads share a sum decides its last bits, so the number is part of the recipe
_COMMON: Mapping[str, str | int | float] = {
    "augment": "none",
    "threads": _THREADS,
    "device": "cpu",
    "licence": "not stated",
    "save": 200,
    "start": "",
}


class NeuralFactory(ABC):
    """Trains and opens one kind of neural generator; subclasses name the kind, its options and its model."""

    kind = ""
    version = ""
    family = "other"
    generator: type[NeuralGenerator] = NeuralGenerator
    asks: Mapping[str, str] = {"label": ""}  # options that say what the images are conditioned on
    recipe: Mapping[str, str | int | float] = {}
    sampling: Mapping[str, str | int | float] = {}

    @abstractmethod
    def build(
        self, shape: tuple[int, int, int], recipe: Options, sampling: Options, condition: dict[str, Any]
    ) -> Model:
        """Make an untrained model."""

    def prepare(self, pixels: Tensor, images: Sequence[ImageRecord], recipe: Options) -> tuple[Tensor, dict[str, Any]]:
        """Say what the network is fitted on: the images as they are, unless a kind has a model of the scanner.

        Args:
            pixels: [N, C, H, W] float32.
            images: Their records.
            recipe: May be changed: what is measured in place of an option goes into the card.

        Returns:
            Tensors [N, C', H', W], and what `develop` must know, for the card.
        """
        return pixels, {}

    def open(self, path: Path | None, options: Mapping[str, str], device: str) -> NeuralGenerator:
        """Load a checkpoint; it holds tensors and JSON, nothing that could run.

        Args:
            path: The checkpoint folder.
            options: Sampling options, and `threads`.
            device: cpu or cuda.

        Raises:
            ConfigError: An unknown option or another kind of checkpoint.
            DataError: A missing or damaged checkpoint.
        """
        card = read_card(path, self.kind)
        assert path is not None  # read_card refuses it
        if card.get("version") != self.version:
            raise DataError(
                f"{path} was trained by version {card.get('version')} of {self.kind}, this is version {self.version}; "
                "train the checkpoint again"
            )
        sampling = Options(self.kind, {**self.sampling, "threads": _THREADS}, options)
        recipe = Options(self.kind, self._defaults(), {})
        recipe.values.update(card["recipe"])
        shape = card["physics"]["shape"] if "physics" in card else card["shape"]
        model = self.build(tuple(shape), recipe, sampling, card["condition"])
        try:
            model.load_state_dict(read_weights(path, card))
        except RuntimeError as error:
            raise DataError(f"the weights in {path} do not fit its card; train the checkpoint again") from error
        return self.generator(model, card, self.family, device, sampling.whole("threads", lo=1, hi=1024))

    def train(
        self,
        images: Sequence[ImageRecord],
        intensity: Intensity,
        out: Path,
        *,
        seed: int,
        progress: Progress,
        options: Mapping[str, str],
    ) -> Path:
        """Fit on images of one shape and write a checkpoint; on one machine the same input gives the same bytes.

        A checkpoint in `out` that was made from the same images, recipe and seed is kept as it is; a training that was
        killed goes on where it last took a note, to the same bytes.

        Args:
            images: Training images, all [C, H, W] of one shape and dtype.
            intensity: Their declared range; samples are clipped to it.
            out: Checkpoint folder; also gets `samples.png`, a picture of the first samples.
            seed: Seed of everything random.
            progress: Told each training step.
            options: Recipe, what to condition on, `augment` (none, flips, dihedral), `threads`, `device`, `licence`
                (goes into the card), `save` (steps between two notes) and `start` (a checkpoint of the same kind,
                whose weights are the first ones).

        Returns:
            The checkpoint folder.

        Raises:
            ConfigError: An unknown or impossible option.
            DataError: No images, images of several shapes or dtypes, or pixels that are not finite.
        """
        recipe = Options(self.kind, self._defaults(), options)
        pixels, dtype, digest = stack_images(images)
        condition, values = pair_up(recipe, images)
        first = images[0].header
        start = Path(str(recipe.values["start"])) if recipe.values["start"] else None
        ancestor, weights = read_ancestor(start, self.kind, self.version) if start else (None, {})
        facts = {
            "kind": self.kind,
            "version": self.version,
            "shape": list(pixels.shape[1:]),
            "dtype": dtype,
            "intensity": asdict(intensity),
            "modality": first.modality,
            "spacing_mm": list(first.spacing_mm) if first.spacing_mm else None,
            "condition": condition,
            "recipe": {name: value for name, value in recipe.values.items() if name != "start"},
            "seed": seed,
            "data": {"images": len(pixels), "patients": len({r.patient for r in images}), "digest": digest},
            "licence": str(recipe.values["licence"]),
        }
        if ancestor:
            facts["start"] = ancestor
        fitted, physics = self.prepare(pixels, images, recipe)
        if physics:
            facts["physics"] = {**physics, "shape": list(fitted.shape[1:])}
        if _is_there(out, self.kind, facts):
            progress.say(
                f"{out} holds this {self.kind} already, from the same images, recipe and seed: not trained again"
            )
            return out
        with threads(recipe.whole("threads", lo=1, hi=1024)):
            model = self._begin(fitted, condition, recipe, seed)
            if start:
                share = take_over(model, weights, start)
                progress.say(f"{self.kind} begins with {share:.0%} of the weights of {start}")
            self._fit(model, fitted, values, condition, recipe, facts, seed, out, progress)
        write_checkpoint(out, facts, model.state_dict())
        (out / PROGRESS).unlink(missing_ok=True)
        shown = values[:: max(1, len(values) // GRID)][:GRID]
        draw_grid(out, self.open(out, {}, "cpu"), seed, shown)
        return out

    def _defaults(self) -> dict[str, str | int | float]:
        return {**self.recipe, **self.asks, **_COMMON}

    def _begin(self, pixels: Tensor, condition: dict[str, Any], recipe: Options, seed: int) -> Model:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "initial weights"))
            return self.build(tuple(pixels.shape[1:]), recipe, Options(self.kind, self.sampling, {}), condition)

    def _fit(
        self,
        model: Model,
        pixels: Tensor,
        values: Sequence[Any],
        condition: dict[str, Any],
        recipe: Options,
        facts: Mapping[str, Any],
        seed: int,
        out: Path,
        progress: Progress,
    ) -> None:
        augment = recipe.choice("augment", ("none", "flips", "dihedral"))
        if augment != "none" and condition.get("kind") == "text":
            raise ConfigError(f"augment={augment} of generator {self.kind} would turn left into right; leave it out")
        plan = Plan(
            steps=recipe.whole("steps", lo=1, hi=10_000_000),
            batch=recipe.whole("batch", lo=1, hi=65_536),
            peak=recipe.number("lr", lo=1e-8, hi=1.0),
            turns=symmetries(augment, pixels, self.kind),
            every=recipe.whole("save", lo=1, hi=10_000_000),
            facts=facts,
        )
        device = recipe.choice("device", ("cpu", "cuda"))
        model.whitening.fit(pixels)
        codes = model.condition.encode(values) if condition else model.condition.absent(len(pixels))
        white = torch.cat([model.whitening(part) for part in pixels.split(256)]).to(device)
        model = model.to(device=device, memory_format=torch.channels_last)
        model.begin(white)
        fit(model, white, codes.to(device), plan, seed, out, self.kind, progress)


def _is_there(out: Path, kind: str, facts: Mapping[str, Any]) -> bool:
    try:
        card = read_card(out, kind)
        read_weights(out, card)
    except (ConfigError, DataError):
        return False  # nothing usable: train
    return all(card.get(name) == value for name, value in json.loads(json.dumps(facts)).items())
