"""One training loop for every kind: any number of losses, moving average of the weights, resumed where it stopped."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from medtrust.errors import DataError
from medtrust.seeding import derive_seed
from medtrust.writing import write_atomically

if TYPE_CHECKING:
    from medtrust.progress import Progress
    from medtrust_generators.model import Model

__all__ = ["PROGRESS", "Plan", "fit", "threads"]

PROGRESS = "training.safetensors"
_WARM_UP = 50
_EMA = 0.995
_CLIP = 1.0


class Plan:
    """What a recipe says of training.

    Args:
        steps: Training steps.
        batch: Images per step.
        peak: Highest learning rate; it warms up, then falls along a cosine to a twentieth.
        turns: Symmetries of the image plane; each batch goes through one.
        every: Steps between two notes from which a killed run resumes.
        facts: What the card will say: a note of another request is not resumed.
    """

    def __init__(
        self,
        steps: int,
        batch: int,
        peak: float,
        turns: list[Callable[[Tensor], Tensor]],
        every: int,
        facts: Mapping[str, Any],
    ) -> None:
        self.steps, self.batch, self.peak, self.turns, self.every = steps, batch, peak, turns, every
        self.facts = json.dumps(facts, sort_keys=True)

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        falling = 0.05 + 0.95 * (1 + math.cos(math.pi * step / self.steps)) / 2
        return self.peak * min(1.0, (step + 1) / _WARM_UP) * falling


def fit(
    model: Model, images: Tensor, codes: Tensor, plan: Plan, seed: int, out: Path, kind: str, progress: Progress
) -> None:
    """Train in place and leave the moving average of the weights in the model.

    Args:
        model: On its device.
        images: Whitened training images [N, C, H, W], on the device.
        codes: Condition of each, on the device.
        plan: How.
        seed: Seed of everything random.
        out: Folder for the note from which a killed run resumes; the note is gone when this returns.
        kind: Name for messages.
        progress: Told each step.

    Raises:
        DataError: Training diverged.
    """
    objectives = model.objectives()
    optimisers = [torch.optim.AdamW(o.parameters, plan.peak, betas=o.betas, weight_decay=o.decay) for o in objectives]
    average = [parameter.detach().clone() for parameter in model.parameters()]
    rng = torch.Generator().manual_seed(derive_seed(seed, "training"))
    note = out / PROGRESS
    begun = _resume(note, plan, model, optimisers, average, rng)
    if begun:
        progress.say(f"resuming the training of {kind} at step {begun} of {plan.steps}")
    loss = torch.zeros(())
    with progress.stage(f"training {kind}", plan.steps) as stage:
        stage.advance(begun)
        for step in range(begun, plan.steps):
            rows = torch.randint(len(images), (plan.batch,), generator=rng).to(images.device)
            turn = plan.turns[int(torch.randint(len(plan.turns), (1,), generator=rng))]
            chosen, asked = turn(images[rows]), codes[rows]
            asked = turn(asked) if asked.ndim == 4 else asked
            for objective, optimiser in zip(objectives, optimisers, strict=True):
                for group in optimiser.param_groups:
                    group["lr"] = objective.pace * plan.rate(step)
                loss = objective.loss(chosen, asked, rng)
                optimiser.zero_grad()
                loss.backward(inputs=list(objective.parameters))
                nn.utils.clip_grad_norm_(objective.parameters, _CLIP)
                optimiser.step()
            with torch.no_grad():
                keep = min(_EMA, (1 + step) / (10 + step))
                torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 1 - keep)
            stage.advance()
            if (step + 1) % plan.every == 0 and step + 1 < plan.steps:
                if not math.isfinite(float(loss.detach())):
                    break
                _note(note, plan, step + 1, model, optimisers, average, rng)
    if not math.isfinite(float(loss.detach())):
        raise DataError(f"training {kind} diverged; lower the option lr={plan.peak:g}")
    with torch.no_grad():
        for parameter, mean in zip(model.parameters(), average, strict=True):
            parameter.copy_(mean)
        model.finish(images, codes)


def _note(
    path: Path,
    plan: Plan,
    step: int,
    model: Model,
    optimisers: list[torch.optim.AdamW],
    average: list[Tensor],
    rng: torch.Generator,
) -> None:
    """Write all that the next step depends on."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"average.{i}": tensor for i, tensor in enumerate(average)}
    for i, optimiser in enumerate(optimisers):
        for j, state in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{i}.{j}.{name}": tensor for name, tensor in state.items()}
    tensors["rng"] = rng.get_state()
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(plain, {"facts": plan.facts, "step": str(step)}))


def _resume(
    path: Path,
    plan: Plan,
    model: Model,
    optimisers: list[torch.optim.AdamW],
    average: list[Tensor],
    rng: torch.Generator,
) -> int:
    """Take up a note of the same request; returns the step to go on from, 0 where there is none."""
    if not path.is_file():
        return 0
    content = path.read_bytes()
    try:
        tensors = load(content)
        length = int.from_bytes(content[:8], "little")
        said = json.loads(content[8 : 8 + length])["__metadata__"]
    except (SafetensorError, ValueError, KeyError) as error:
        raise DataError(f"{path} is damaged ({error}); delete it to train from the beginning") from error
    if said.get("facts") != plan.facts:
        return 0  # of other images or another recipe: this training replaces it
    model.load_state_dict({name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model.")})
    for i, mean in enumerate(average):
        mean.copy_(tensors[f"average.{i}"])
    for i, optimiser in enumerate(optimisers):
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith(f"optimiser.{i}."):
                _, _, j, field = name.split(".", 3)
                state.setdefault(int(j), {})[field] = tensor
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    rng.set_state(tensors["rng"])
    return int(said["step"])


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Compute with `n` CPU threads, and give the caller's number back."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
