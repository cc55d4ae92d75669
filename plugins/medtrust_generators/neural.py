"""What the trainable generators share: training, the checkpoint, and sampling that no batch size can change."""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from medtrust.errors import ConfigError, DataError
from medtrust.seeding import derive_seed
from medtrust.types import Caps, ConditionSpec, ImageSpec, SampleBatch
from medtrust_generators.checkpoint import read_card, read_weights, write_checkpoint
from medtrust_generators.options import Options

if TYPE_CHECKING:
    from medtrust.progress import Progress
    from medtrust.types import ImageRecord, Intensity
    from medtrust_generators.whitening import Whitening

__all__ = ["Model", "NeuralFactory", "NeuralGenerator"]

CHUNK = 64  # images that one forward pass makes, whatever was asked for
_THREADS = 1  # how many threads share a sum decides its last bits, so the number is part of the recipe
_EMA = 0.995
_WARM_UP = 50
_COMMON: Mapping[str, str | int | float] = {
    "augment": "none",
    "threads": _THREADS,
    "device": "cpu",
    "licence": "not stated",
}


class Model(nn.Module, ABC):
    """A generative model over whitened images [N, C, H, W] float32."""

    whitening: Whitening
    noise_size: int

    @abstractmethod
    def loss(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Training loss of one batch; all randomness comes from `rng`, which lives on the CPU."""

    def finish(self, images: Tensor) -> None:
        """Do what remains after the last training step."""

    @abstractmethod
    def generate(self, noise: Tensor) -> Tensor:
        """Map standard normal noise [N, noise_size] to images; row i depends on row i alone."""


class NeuralGenerator:
    """Samples from a trained model; image i depends on the seed and on i alone, bit for bit.

    Args:
        model: The model.
        card: The checkpoint's card.
        device: cpu or cuda.
        threads: CPU threads to compute with.
    """

    def __init__(self, model: Model, card: Mapping[str, Any], device: str, threads: int) -> None:
        stated = card["intensity"]
        window = tuple(stated["window"]) if stated["window"] else None
        self.spec = ImageSpec(tuple(card["shape"]), card["dtype"], (stated["lo"], stated["hi"]), stated["unit"], window)
        self.conditions = ConditionSpec()
        self.caps = Caps(family="diffusion" if card["kind"] == "flow" else card["kind"])
        self.card = card
        self._model = model.eval().to(device)
        self._device = device
        self._threads = threads
        self._dtype = np.dtype(card["dtype"])

    @torch.no_grad()
    def sample(self, n: int, *, seed: int, first: int = 0) -> SampleBatch:
        """Draw samples first … first + n - 1.

        Libraries choose how to add numbers up by the size of the batch, so the same image in another batch can differ
        in its last bits. Here image i is always computed in the same place of the same chunk of 64.

        Args:
            n: How many images.
            seed: Seed of the whole series.
            first: Position of the first image in the series.

        Returns:
            [n, C, H, W] in the unit and dtype of the training set.

        Raises:
            ConfigError: A negative number.
        """
        if n < 0 or first < 0:
            raise ConfigError(f"cannot draw {n} samples from number {first} on; both numbers must be at least 0")
        parts = []
        with _threads(self._threads):
            for start in range(first - first % CHUNK, first + n, CHUNK):
                pixels = self._chunk(seed, start)
                parts.append(pixels[max(first - start, 0) : first + n - start])
        empty = np.empty((0, *self.card["shape"]), self._dtype)
        seeds = tuple(derive_seed(seed, "sample", i) for i in range(first, first + n))
        return SampleBatch(np.concatenate([empty, *parts]), seeds, {"kind": self.card["kind"], "device": self._device})

    def _chunk(self, seed: int, start: int) -> np.ndarray[Any, Any]:
        rows = []
        for i in range(start, start + CHUNK):
            rng = torch.Generator().manual_seed(derive_seed(seed, "sample", i))
            rows.append(torch.randn(self._model.noise_size, generator=rng))
        images = self._model.whitening.inverse(self._model.generate(torch.stack(rows).to(self._device)))
        pixels = images.cpu().numpy().astype(np.float64).clip(*self.spec.range)
        if self._dtype.kind in "iu":
            limits = np.iinfo(self._dtype)
            pixels = pixels.round().clip(limits.min, limits.max)
        return pixels.astype(self._dtype)


class NeuralFactory(ABC):
    """Trains and opens one kind of neural generator; subclasses name the kind, its options and its model."""

    kind = ""
    version = ""
    recipe: Mapping[str, str | int | float] = {}
    sampling: Mapping[str, str | int | float] = {}

    @abstractmethod
    def build(self, shape: tuple[int, int, int], recipe: Options, sampling: Options) -> Model:
        """Make an untrained model."""

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
        sampling = Options(self.kind, {**self.sampling, "threads": _THREADS}, options)
        recipe = Options(self.kind, {**self.recipe, **_COMMON}, {})
        recipe.values.update(card["recipe"])
        model = self.build(tuple(card["shape"]), recipe, sampling)
        try:
            model.load_state_dict(read_weights(path, card))
        except RuntimeError as error:
            raise DataError(f"the weights in {path} do not fit its card; train the checkpoint again") from error
        return NeuralGenerator(model, card, device, sampling.whole("threads", lo=1, hi=1024))

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

        A checkpoint in `out` that was made from the same images, recipe and seed is kept as it is.

        Args:
            images: Training images, all [C, H, W] of one shape and dtype.
            intensity: Their declared range; samples are clipped to it.
            out: Checkpoint folder.
            seed: Seed of everything random.
            progress: Told each training step.
            options: Recipe, `augment` (none, flips, dihedral), `threads`, `device` and `licence` (goes into the card).

        Returns:
            The checkpoint folder.

        Raises:
            ConfigError: An unknown or impossible option.
            DataError: No images, images of several shapes or dtypes, or pixels that are not finite.
        """
        recipe = Options(self.kind, {**self.recipe, **_COMMON}, options)
        pixels, dtype, digest = _stack(images)
        facts = {
            "kind": self.kind,
            "version": self.version,
            "shape": list(pixels.shape[1:]),
            "dtype": dtype,
            "intensity": asdict(intensity),
            "recipe": dict(recipe.values),
            "seed": seed,
            "data": {"images": len(pixels), "patients": len({r.patient for r in images}), "digest": digest},
            "licence": str(recipe.values["licence"]),
        }
        if _is_there(out, self.kind, facts):
            progress.say(
                f"{out} holds this {self.kind} already, from the same images, recipe and seed: not trained again"
            )
            return out
        with _threads(recipe.whole("threads", lo=1, hi=1024)):
            model = self._fit(pixels, recipe, seed, progress)
        return write_checkpoint(out, facts, model.state_dict())

    def _fit(self, pixels: Tensor, recipe: Options, seed: int, progress: Progress) -> Model:
        steps = recipe.whole("steps", lo=1, hi=10_000_000)
        batch = recipe.whole("batch", lo=1, hi=65_536)
        peak = recipe.number("lr", lo=1e-8, hi=1.0)
        turns = _turns(recipe.choice("augment", ("none", "flips", "dihedral")), pixels, self.kind)
        device = recipe.choice("device", ("cpu", "cuda"))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "initial weights"))
            model = self.build(tuple(pixels.shape[1:]), recipe, Options(self.kind, self.sampling, {}))
        model.whitening.fit(pixels)
        white = torch.cat([model.whitening(part) for part in pixels.split(256)]).to(device)
        model = model.to(device=device, memory_format=torch.channels_last)
        optimiser = torch.optim.AdamW(model.parameters(), peak, weight_decay=0.01)
        average = [parameter.detach().clone() for parameter in model.parameters()]
        rng = torch.Generator().manual_seed(derive_seed(seed, "training"))
        with progress.stage(f"training {self.kind}", steps) as stage:
            for step in range(steps):
                for group in optimiser.param_groups:
                    group["lr"] = peak * min(1.0, (step + 1) / _WARM_UP) * (0.05 + 0.95 * _cosine(step / steps))
                chosen = white[torch.randint(len(white), (batch,), generator=rng)]
                chosen = turns[int(torch.randint(len(turns), (1,), generator=rng))](chosen)
                loss = model.loss(chosen, rng)
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimiser.step()
                with torch.no_grad():
                    keep = min(_EMA, (1 + step) / (10 + step))
                    torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 1 - keep)
                stage.advance()
        if not math.isfinite(float(loss.detach())):
            raise DataError(f"training {self.kind} diverged; lower the option lr={peak:g}")
        with torch.no_grad():
            for parameter, mean in zip(model.parameters(), average, strict=True):
                parameter.copy_(mean)
            model.finish(white)
        return model


def _stack(images: Sequence[ImageRecord]) -> tuple[Tensor, str, str]:
    """Bring every image into one float32 tensor [N, C, H, W]; also the dtype's name and a digest of the whole set."""
    if not len(images):
        raise DataError("there are no images to train on; check the path")
    arrays, state = [], hashlib.sha256()
    first = images[0]
    for record in images:
        if record.pixels.shape != first.pixels.shape or record.pixels.dtype != first.pixels.dtype:
            raise DataError(
                f"{record.name} is {record.pixels.dtype} {list(record.pixels.shape)} but {first.name} is "
                f"{first.pixels.dtype} {list(first.pixels.shape)}; a generator is trained on images of one kind"
            )
        array = record.pixels.astype(np.float32)
        if array.ndim != 3 or not array.size or not np.isfinite(array).all():
            raise DataError(f"{record.name} is not finite numbers [C, H, W]; leave it out or repair it")
        arrays.append(array)
        state.update(record.digest.encode() + b"\n")
    return torch.from_numpy(np.stack(arrays)), first.pixels.dtype.name, state.hexdigest()


def _is_there(out: Path, kind: str, facts: Mapping[str, Any]) -> bool:
    try:
        card = read_card(out, kind)
        read_weights(out, card)
    except (ConfigError, DataError):
        return False  # nothing usable: train
    return all(card.get(name) == value for name, value in _as_json(facts).items())


def _as_json(facts: Mapping[str, Any]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(facts)))


def _turns(augment: str, pixels: Tensor, kind: str) -> list[Any]:
    """List the symmetries of the image plane that training may apply."""
    square = pixels.shape[2] == pixels.shape[3]
    if augment == "dihedral" and not square:
        raise ConfigError(f"option augment=dihedral of generator {kind} needs square images; use augment=flips")
    quarter = {"none": (0,), "flips": (0, 2), "dihedral": (0, 1, 2, 3)}[augment]
    flips = (False,) if augment == "none" else (False, True)
    return [
        lambda x, k=k, flip=flip: torch.rot90(x, k, (2, 3)).flip(3) if flip else torch.rot90(x, k, (2, 3))
        for k in quarter
        for flip in flips
    ]


def _cosine(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """Compute with `n` CPU threads, and give the caller's number back."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
