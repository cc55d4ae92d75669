"""Drive somebody else's denoiser with our own sampler, whose noise belongs to each sample and not to the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from medtrust.errors import ConfigError
from medtrust_adapters.series import noise_rows
from medtrust_generators.options import Options

__all__ = ["SAMPLING_OPTIONS", "Loop"]

SAMPLING_OPTIONS: Mapping[str, str | int | float] = {
    "sampler": "ddim", "steps": 50, "prediction": "epsilon", "noise": "linear", "train_steps": 1000, "clamp": "",
    "timesteps": "leading",
}  # fmt: skip
_SAMPLERS = ("ddpm", "ddim", "dpmpp2m", "dpmpp2m_sde", "euler", "heun", "flow_euler", "flow_heun")


class Loop:
    """A sampler around a function that denoises.

    Args:
        options: With the entries of `SAMPLING_OPTIONS`.
        cumulative_alphas: Of the model's own training chain, which then replaces `noise`.
    """

    def __init__(self, options: Options, cumulative_alphas: Sequence[float] | None = None) -> None:
        from medtrust.ops import schedule

        kind = options.choice("sampler", _SAMPLERS)
        given: dict[str, Any] = {"prediction": options.choice("prediction", ("epsilon", "v", "x0", "flow", "edm"))}
        if kind in ("ddpm", "ddim", "dpmpp2m", "dpmpp2m_sde"):
            named = options.choice("noise", ("linear", "scaled_linear", "cosine", "karras", "flow"))
            given["noise"] = named if cumulative_alphas is None else np.asarray(cumulative_alphas, np.float64)
            given["train_steps"] = options.whole("train_steps", lo=2, hi=10**6)
            given["spacing"] = options.choice("timesteps", ("leading", "trailing", "linspace"))
        else:
            given["prediction"] = "flow" if kind.startswith("flow") else given["prediction"]
        self._kind = kind
        self._schedule = schedule(kind, options.whole("steps", lo=1, hi=10**5), **given)
        self._clamp = _pair(str(options.values["clamp"]), options.kind)
        self.evaluations = len(self._schedule)

    def run(
        self, seeds: Sequence[int], shape: Sequence[int], denoise: Callable[[np.ndarray[Any, Any], float], Any]
    ) -> np.ndarray[Any, Any]:
        """Follow the sampler from noise to images.

        Args:
            seeds: Seed of each image; all of its noise comes from there.
            shape: Shape of one image.
            denoise: Maps x [N, *shape] float32 and a time to what the model predicts.

        Returns:
            [N, *shape] float32.
        """
        import torch

        from medtrust.ops import diffusion_step

        s = self._schedule
        x = torch.from_numpy(noise_rows(seeds, shape)) * s.init_scale
        memory = None
        for row in range(len(s)):
            scaled = (x * float(s.input_scale[row])).numpy()
            eps = torch.from_numpy(np.ascontiguousarray(denoise(scaled, float(s.times[row])), np.float32))
            if eps.shape[1] == 2 * x.shape[1] and x.ndim > 1:
                eps = eps[:, : x.shape[1]].contiguous()  # the other half is a learned variance
            if s.adds_noise(row):
                # one call per image: the kernel's noise depends on its seed and a place, and every image is place 0
                steps = [
                    diffusion_step(
                        self._kind, x[i : i + 1], eps[i : i + 1], schedule=s, step=row, seed=seed, clamp=self._clamp,
                        memory=None if memory is None else memory[i : i + 1],
                    )
                    for i, seed in enumerate(seeds)
                ]  # fmt: skip
                x = torch.cat([step.x for step in steps])
                kept = [step.memory for step in steps]
                memory = None if kept[0] is None else torch.cat([k for k in kept if k is not None])
            else:
                x, memory = diffusion_step(self._kind, x, eps, schedule=s, step=row, clamp=self._clamp, memory=memory)
        return x.numpy()


def _pair(text: str, kind: str) -> tuple[float, float] | None:
    if not text:
        return None
    lo, _, hi = text.partition(":")
    try:
        pair = float(lo), float(hi)
    except ValueError:
        pair = (1.0, 0.0)
    if not pair[0] < pair[1]:
        raise ConfigError(f"option clamp={text} of generator {kind} must be a rising pair such as -1:1")
    return pair
