"""One step of a diffusion or flow sampler in one pass over the images."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from medtrust.errors import DataError, NativeError
from medtrust.ops import _native, reference_sampling
from medtrust.ops._check import kernel_input, on_device, threads
from medtrust.ops._numbers import noise_place
from medtrust.ops.schedules import KINDS, Schedule, schedule

__all__ = ["Stepped", "diffusion_step", "schedule"]

HALVES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}  # csrc/sampler.h: Half
KEEP_NOTHING, KEEP_CLEAN, KEEP_X = 0, 1, 2  # csrc/sampler.h: Keep


class Stepped(NamedTuple):
    """What a step returns.

    Attributes:
        x: The next x `[N, ...]` float32, or uint8 images where `quantise` was given.
        memory: What the next row wants, or None.
    """

    x: Tensor
    memory: Tensor | None


def diffusion_step(
    kind: str,
    x: Tensor,
    eps: Tensor,
    *,
    schedule: Schedule,
    step: int | Tensor,
    eps_uncond: Tensor | None = None,
    scale: float = 1.0,
    memory: Tensor | None = None,
    clamp: tuple[float, float] | None = None,
    seed: int | None = None,
    first: int = 0,
    quantise: tuple[float, float] | None = None,
    inplace: bool = False,
) -> Stepped:
    """One row of a schedule: guidance, clean image, clamp, noise and update, each element read and written once.

    The noise of row r is `philox_normal(x.shape, seed, r + 1, first=first)`. On the CPU the result has the same bits at
    any thread count, batch split and instruction set.

    Args:
        kind: Sampler; the kind of the schedule.
        x: Current images `[N, ...]` float32.
        eps: What the model returned for x, in the schedule's prediction; the same shape, float32, float16 or bfloat16.
        schedule: From `ops.schedule`.
        step: Row of the schedule; or an int64 tensor with that one number on the device of x, so that a captured CUDA
            graph can count it up (its range is then the caller's care).
        eps_uncond: What the model returned without the condition, for classifier-free guidance.
        scale: Guidance: eps_uncond + scale * (eps - eps_uncond).
        memory: What the row before returned, where the schedule remembers something.
        clamp: Smallest and largest value of the clean image, such as (-1, 1).
        seed: Seed of the noise, 0..2^63 - 1; needed where the row draws noise.
        first: Index of the first sample of this batch, so that batches continue one sequence of samples.
        quantise: Values that become 0 and 255: the step returns uint8 images, rounded to the nearest level.
        inplace: Write into x, and into memory where one is given.

    Returns:
        The next x and the memory for the next row.

    Raises:
        DataError: An argument does not fit, or a NaN was to be quantised.

    Reference:
        Ho & Salimans 2022, arXiv:2207.12598 (guidance); the samplers are named at `ops.schedule`
    """
    _fits(kind, x, eps, eps_uncond, schedule, scale, memory)
    row = None if isinstance(step, Tensor) else int(step)
    if row is not None and not 0 <= row < len(schedule):
        raise DataError(f"ops.diffusion_step: step is {row}; this schedule has rows 0..{len(schedule) - 1}")
    draws = schedule.adds_noise(row) if row is not None else bool((schedule.table[:, 5] != 0).any())
    if draws and seed is None:
        raise DataError(f"ops.diffusion_step: {kind} draws noise at step {step}; give seed")
    if row is not None and schedule.reads_memory(row) and memory is None:
        raise DataError(f"ops.diffusion_step: {kind} at step {row} needs the memory that step {row - 1} returned")
    if row is not None and not schedule.reads_memory(row) and not inplace:
        memory = None
    if quantise is not None and (inplace or not quantise[0] < quantise[1]):
        raise DataError("ops.diffusion_step: quantise is a rising pair (value of 0, value of 255), and not in place")
    if clamp is not None and not clamp[0] < clamp[1]:
        raise DataError(f"ops.diffusion_step: clamp is {clamp}; give a rising pair (smallest, largest)")

    table, rows = placed(schedule, x.device)
    index = _index(step, x) if row is None else rows[row]
    numbers = [float(scale), *(clamp or (-math.inf, math.inf)), *(quantise or (0.0, 0.0))]
    seed, _, offset = noise_place("diffusion_step", x.shape, seed or 0, 0, first)
    fixed = (eps, eps_uncond, table, index, numbers, seed, offset)
    wanted = schedule.remembers if row is None or schedule.reads_memory(row + 1) else None
    if inplace:
        keep = _keep(wanted) if memory is not None else KEEP_NOTHING
        if wanted is not None and memory is None:
            memory, keep = torch.empty_like(x, memory_format=torch.contiguous_format), _keep(wanted)
        torch.ops.medtrust.diffusion_step_(x, memory, *fixed, keep)
        return Stepped(x, memory)
    keep = KEEP_CLEAN if wanted == "x0" else KEEP_NOTHING  # x itself is at hand
    following, kept, bad = torch.ops.medtrust.diffusion_step(x, memory, *fixed, keep)
    if quantise is not None and not torch.compiler.is_compiling() and not _capturing(x) and bool(bad.any()):
        raise DataError("ops.diffusion_step: a NaN reached the images; look at the model's output")
    return Stepped(following, x if wanted == "x" else kept if keep else None)


def _keep(wanted: str | None) -> int:
    return {"x0": KEEP_CLEAN, "x": KEEP_X, None: KEEP_NOTHING}[wanted]


def _capturing(x: Tensor) -> bool:
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def _fits(
    kind: str,
    x: Tensor,
    eps: Tensor,
    eps_uncond: Tensor | None,
    schedule: Schedule,
    scale: float,
    memory: Tensor | None,
) -> None:
    """Refuse what the kernels cannot read."""
    if kind not in KINDS or kind != schedule.kind:
        raise DataError(f"ops.diffusion_step: kind is {kind!r}, the schedule was made for {schedule.kind!r}")
    for name, t, dtypes in (
        ("x", x, [torch.float32]),
        ("eps", eps, list(HALVES)),
        ("eps_uncond", eps_uncond, list(HALVES)),
        ("memory", memory, [torch.float32]),
    ):
        if t is None:
            continue
        if not isinstance(t, Tensor) or t.layout != torch.strided:
            raise DataError(f"ops.diffusion_step: {name} must be a strided torch tensor")
        if t.dtype not in dtypes:
            raise DataError(f"ops.diffusion_step: {name} is {t.dtype}; convert it to {dtypes[0]}")
        if t.shape != x.shape or t.device != x.device or x.ndim == 0:
            raise DataError(
                f"ops.diffusion_step: {name} is {list(t.shape)} on {t.device}, x is {list(x.shape)} on {x.device}; "
                "give all the same shape [N, ...] and device"
            )
    if x.device.type not in ("cpu", "cuda"):
        raise DataError(f"ops.diffusion_step: there is no kernel for device {x.device}; move the images to the CPU")
    if eps_uncond is not None and eps_uncond.dtype != eps.dtype:
        raise DataError(f"ops.diffusion_step: eps is {eps.dtype}, eps_uncond {eps_uncond.dtype}; bring both to one")
    if eps_uncond is None and scale != 1:
        raise DataError(f"ops.diffusion_step: scale is {scale} without eps_uncond; give both or neither")


def placed(schedule: Schedule, device: torch.device) -> tuple[Tensor, Tensor]:
    """The table in float32 and the row numbers on a device, copied there once."""
    if device not in schedule.placed:
        kx, km, cx, cc, *_ = schedule.table.T
        whole = np.column_stack([schedule.table, cx + cc * kx, cc * km])  # the last two serve where nothing is clamped
        table = torch.from_numpy(whole).to(torch.float32).to(device)
        schedule.placed[device] = table, torch.arange(len(schedule), dtype=torch.int64, device=device)
    table, rows = schedule.placed[device]
    return table, rows


def _index(step: Any, x: Tensor) -> Tensor:
    if step.dtype != torch.int64 or step.numel() != 1 or step.device != x.device:
        raise DataError(f"ops.diffusion_step: step must be one int64 number on {x.device}")
    counter: Tensor = step
    return counter


def _run(
    x: Tensor,
    memory: Tensor | None,
    eps: Tensor,
    eps_uncond: Tensor | None,
    table: Tensor,
    index: Tensor,
    numbers: list[float],
    seed: int,
    offset: int,
    keep: int,
    following: Tensor,
    kept: Tensor | None,
    bad: Tensor | None,
) -> None:
    """Fill `following`, `kept` and `bad`; every tensor but the model's outputs is contiguous."""
    if x.numel() == 0:
        return
    scale, lo, hi, black, white = numbers
    quantise = following.dtype == torch.uint8
    lib = _native.kernels("diffusion_step", x.device.type)
    if lib is None:
        row = int(index)
        drawn = None
        if table[row, 5] != 0:
            drawn = reference_sampling.normals(x.numel(), seed, row + 1, offset, x.device).reshape(x.shape)
        clean: Tensor
        now = x.clone() if keep == KEEP_X else x
        result, clean = reference_sampling.diffusion_step(
            x, eps, eps_uncond, memory if table[row, 4] != 0 else None, table[row, :6], drawn, scale, (lo, hi)
        )
        if bad is not None and quantise:
            bad.fill_(bool(result.isnan().any()))
            result = ((result.nan_to_num() - black) * (255 / (white - black))).clamp(0, 255).add(0.5).floor()
        following.copy_(result)
        if kept is not None and keep:
            kept.copy_(now if keep == KEEP_X else clean)
        return
    eps = kernel_input("diffusion_step", "eps", eps)
    eps_uncond = None if eps_uncond is None else kernel_input("diffusion_step", "eps_uncond", eps_uncond)
    addresses = [0 if t is None else t.data_ptr() for t in (x, eps, eps_uncond, memory, table, index)]
    addresses += [0 if t is None else t.data_ptr() for t in (following, kept, bad, None, None)]
    sizes = [x.numel(), HALVES[eps.dtype], len(table), keep, int(quantise)]
    levels = [black, 255 / (white - black)] if quantise else [0.0, 1.0]
    arguments = (sizes, [scale, lo, hi, *levels, 1.0], seed, offset, addresses)
    try:
        if not x.is_cuda:
            lib.sampler_step_cpu(*arguments, threads())
        else:
            with on_device(x) as stream:
                lib.sampler_step_cuda(*arguments, stream)
    except (RuntimeError, ValueError) as error:
        raise NativeError(f"ops.diffusion_step: {error}") from error


@torch.library.custom_op("medtrust::diffusion_step", mutates_args=())
def _step_op(
    x: Tensor,
    memory: Tensor | None,
    eps: Tensor,
    eps_uncond: Tensor | None,
    table: Tensor,
    index: Tensor,
    numbers: list[float],
    seed: int,
    offset: int,
    keep: int,
) -> tuple[Tensor, Tensor, Tensor]:
    x = kernel_input("diffusion_step", "x", x)
    memory = None if memory is None else kernel_input("diffusion_step", "memory", memory)
    following, kept, bad = _outputs(x, numbers, keep)
    _run(x, memory, eps, eps_uncond, table, index, numbers, seed, offset, keep, following, kept, bad)
    return following, kept, bad


def _outputs(x: Tensor, numbers: list[float], keep: int) -> tuple[Tensor, Tensor, Tensor]:
    """Next x, memory (empty where nothing is kept) and the NaN flag (empty where nothing is quantised)."""
    quantise = numbers[3] < numbers[4]
    following = torch.empty(x.shape, dtype=torch.uint8 if quantise else torch.float32, device=x.device)
    kept = torch.empty(x.shape if keep else (0,), dtype=torch.float32, device=x.device)
    bad = torch.zeros(int(quantise), dtype=torch.int32, device=x.device)
    return following, kept, bad


@_step_op.register_fake
def _(
    x: Tensor,
    memory: Tensor | None,
    eps: Tensor,
    eps_uncond: Tensor | None,
    table: Tensor,
    index: Tensor,
    numbers: list[float],
    seed: int,
    offset: int,
    keep: int,
) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(x, numbers, keep)


@torch.library.custom_op("medtrust::diffusion_step_", mutates_args=("x", "memory"))
def _step_in_place_op(
    x: Tensor,
    memory: Tensor | None,
    eps: Tensor,
    eps_uncond: Tensor | None,
    table: Tensor,
    index: Tensor,
    numbers: list[float],
    seed: int,
    offset: int,
    keep: int,
) -> None:
    for name, t in (("x", x), ("memory", memory)):
        if t is not None and not t.is_contiguous():
            raise DataError(f"ops.diffusion_step: {name} is not contiguous and cannot be written in place")
    _run(x, memory, eps, eps_uncond, table, index, numbers, seed, offset, keep, x, memory, None)


@_step_in_place_op.register_fake
def _(
    x: Tensor,
    memory: Tensor | None,
    eps: Tensor,
    eps_uncond: Tensor | None,
    table: Tensor,
    index: Tensor,
    numbers: list[float],
    seed: int,
    offset: int,
    keep: int,
) -> None:
    return None
