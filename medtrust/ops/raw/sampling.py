"""One step of a diffusion or flow sampler on NumPy arrays."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medtrust.errors import DataError
from medtrust.ops._numbers import noise_place
from medtrust.ops.raw._arrays import array, extension, team
from medtrust.ops.raw._arrays import kind as described
from medtrust.ops.schedules import Schedule

__all__ = ["Stepped", "diffusion_step"]

KEEP_NOTHING, KEEP_CLEAN = 0, 1  # csrc/sampler.h: Keep
MODEL = {"float32": 0, "float16": 1}  # csrc/sampler.h: Half; NumPy has no bfloat16


class Stepped(NamedTuple):
    """What a step returns.

    Args:
        x: The next x `[N, ...]` float32, or uint8 images where `quantise` was given.
        memory: What the next row wants, or None.
    """

    x: NDArray[Any]
    memory: NDArray[np.float32] | None


def diffusion_step(
    kind: str,
    x: NDArray[Any],
    eps: NDArray[Any],
    *,
    schedule: Schedule,
    step: int,
    eps_uncond: NDArray[Any] | None = None,
    scale: float = 1.0,
    memory: NDArray[Any] | None = None,
    clamp: tuple[float, float] | None = None,
    seed: int | None = None,
    first: int = 0,
    quantise: tuple[float, float] | None = None,
    threads: int = 1,
) -> Stepped:
    """One row of a schedule, the bits of `medtrust.ops.diffusion_step`.

    Args:
        kind: Sampler; the kind of the schedule.
        x: Current images `[N, ...]` float32.
        eps: What the model returned for x; the same shape, float32 or float16.
        schedule: From `medtrust.ops.schedules.schedule`.
        step: Row of the schedule.
        eps_uncond: What the model returned without the condition; the same shape and dtype as eps.
        scale: Guidance: eps_uncond + scale * (eps - eps_uncond).
        memory: What the row before returned, where the schedule remembers something.
        clamp: Smallest and largest value of the clean image.
        seed: Seed of the noise; needed where the row draws noise.
        first: Index of the first sample of this batch.
        quantise: Values that become 0 and 255: the step returns uint8 images.
        threads: Threads to use; the bits do not depend on it.

    Returns:
        The next x and the memory for the next row.

    Raises:
        DataError: An argument does not fit, or a NaN was to be quantised.
        NativeError: There is no extension.

    Reference:
        As at `medtrust.ops.diffusion_step`
    """
    lib = extension("diffusion_step")
    if kind != schedule.kind:
        raise _refusal(f"kind is {kind!r}, the schedule was made for {schedule.kind!r}")
    if not 0 <= step < len(schedule):
        raise _refusal(f"step is {step}; this schedule has rows 0..{len(schedule) - 1}")
    if schedule.adds_noise(step) and seed is None:
        raise _refusal(f"{kind} draws noise at step {step}; give seed")
    if schedule.reads_memory(step) and memory is None:
        raise _refusal(f"{kind} at step {step} needs the memory that step {step - 1} returned")
    if eps_uncond is None and scale != 1:
        raise _refusal(f"scale is {scale} without eps_uncond; give both or neither")
    for name, limits in (("clamp", clamp), ("quantise", quantise)):
        if limits is not None and not limits[0] < limits[1]:
            raise _refusal(f"{name} is {limits}; give a rising pair")
    x = array("diffusion_step", "x", x, ["float32"])
    eps = array("diffusion_step", "eps", eps, MODEL)
    if eps_uncond is not None:
        eps_uncond = array("diffusion_step", "eps_uncond", eps_uncond, [eps.dtype.name])
    memory = array("diffusion_step", "memory", memory, ["float32"]) if schedule.reads_memory(step) else None  # type: ignore[arg-type]
    for name, other in (("eps", eps), ("eps_uncond", eps_uncond), ("memory", memory)):
        if other is not None and (other.shape != x.shape or x.ndim == 0):
            raise _refusal(f"{name} is {described(other)}, x is {described(x)}; give all the same shape [N, ...]")

    kx, km, cx, cc, *_ = schedule.table.T
    table = np.column_stack([schedule.table, cx + cc * kx, cc * km]).astype(np.float32)
    following = np.empty(x.shape, np.float32 if quantise is None else np.uint8)
    wanted = schedule.remembers if schedule.reads_memory(step + 1) else None
    kept = np.empty(x.shape, np.float32) if wanted == "x0" else None
    bad, row = np.zeros(1, np.int32), np.array([step], np.int64)
    given = (x, eps, eps_uncond, memory, table, row, following, kept, None if quantise is None else bad, None, None)
    addresses = [0 if values is None else values.ctypes.data for values in given]
    sizes = [
        x.size,
        MODEL[eps.dtype.name],
        len(table),
        KEEP_NOTHING if kept is None else KEEP_CLEAN,
        int(bool(quantise)),
    ]
    levels = [0.0, 1.0] if quantise is None else [quantise[0], 255 / (quantise[1] - quantise[0])]
    numbers = [float(scale), *(clamp or (-math.inf, math.inf)), *levels, 1.0]
    place = noise_place("raw.diffusion_step", x.shape, seed or 0, 0, first)
    if x.size:
        lib.sampler_step_cpu(sizes, numbers, place[0], place[2], addresses, team(threads))
    if bad[0]:
        raise _refusal("a NaN reached the images; look at the model's output")
    return Stepped(following, x if wanted == "x" else kept)


def _refusal(words: str) -> DataError:
    return DataError(f"ops.raw.diffusion_step: {words}")
