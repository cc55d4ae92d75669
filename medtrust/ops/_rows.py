"""A schedule's rows bound to one batch on the CPU: checked once, then one kernel call per row."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from medtrust.errors import DataError, NativeError
from medtrust.ops._check import threads
from medtrust.ops._numbers import noise_place
from medtrust.ops.sampling import HALVES, KEEP_CLEAN, KEEP_NOTHING, KEEP_X, placed
from medtrust.ops.schedules import Schedule

__all__ = ["Rows"]


class Rows:
    """Steps x in place, in the bits of `ops.diffusion_step`; nothing is allotted between the first row and the last.

    The kernel computes each element alone, so where no noise is drawn the order in memory is free: x takes the order of
    the network's first answer (channels_last, say), and neither the network nor the step has to turn anything round.
    Noise counts its elements in the order of a contiguous tensor, so a schedule that draws some keeps that order.

    Args:
        lib: The compiled extension.
        schedule: From `ops.schedule`.
        x: Noise `[N, ...]` float32, contiguous, on the CPU; it is not changed.
        seed: Seed of the noise that rows draw.
        first: Index of the first sample.
        scale: Weight of classifier-free guidance; with 1 there is one answer per row, otherwise two.
        clamp: Smallest and largest value of the clean image.
    """

    def __init__(
        self,
        lib: Any,
        schedule: Schedule,
        x: Tensor,
        seed: int | None,
        first: int,
        scale: float,
        clamp: tuple[float, float] | None,
    ) -> None:
        self._step, self._schedule, self._guided = lib.sampler_step_cpu, schedule, scale != 1
        self._free = not any(schedule.adds_noise(row) for row in range(len(schedule)))
        if not self._free and seed is None:
            raise DataError(f"ops.sampling_loop: {schedule.kind} draws noise on the way; give seed")
        if clamp is not None and not clamp[0] < clamp[1]:
            raise DataError(f"ops.sampling_loop: clamp is {clamp}; give a rising pair (smallest, largest)")
        self._seed, _, self._offset = noise_place("sampling_loop", x.shape, seed or 0, 0, first)
        self._numbers = [float(scale), *(clamp or (-math.inf, math.inf)), 0.0, 1.0]
        self._table, self._index = placed(schedule, x.device)
        keep = {"x0": KEEP_CLEAN, "x": KEEP_X, None: KEEP_NOTHING}[schedule.remembers]
        self._keeps = [keep if schedule.reads_memory(row + 1) else KEEP_NOTHING for row in range(len(schedule))]
        self._factors = schedule.input_scale.tolist()
        self._dtype: torch.dtype | None = None
        self._settled = False
        self._lay_out(x)

    def _lay_out(self, x: Tensor) -> None:
        """Allot everything in the order of x in memory, and take its values."""
        copies = 2 if self._guided else 1
        whole = torch.empty_strided((copies * len(x), *x.shape[1:]), x.stride(), dtype=torch.float32)
        # Where the network sees x as it is, x lies in what the network is told.
        self._apart = any(factor != 1 for factor in self._factors)
        self._told, self._half = whole, whole[: len(x)]
        self.x = torch.empty_like(x) if self._apart else self._half
        self.x.copy_(x)
        self._memory = torch.empty_like(self.x) if self._schedule.remembers else None
        self._strides = self.x.stride()
        self._spare: list[Tensor] = []

    def told(self, row: int) -> Tensor:
        """What the network sees at this row: [N, ...], or [2N, ...] with x twice; the next row overwrites it."""
        if self._apart:
            torch.mul(self.x, self._factors[row], out=self._half)
        if self._guided:
            self._told[len(self.x) :].copy_(self._half)
        return self._told

    def take(self, row: int, answer: Tensor) -> None:
        """Step x by the network's answer, the shape of what it was told."""
        if not self.x.numel():
            return
        if answer.dtype is not self._dtype or answer.shape != self._told.shape or answer.device != self.x.device:
            self._check(answer)
        if not self._settled:
            self._settle(answer)
        if answer.stride() != self._strides:
            answer = self._turned(answer)
        x, kept, output = self.x.data_ptr(), 0 if self._memory is None else self._memory.data_ptr(), answer.data_ptr()
        uncond = output + answer.element_size() * self.x.numel() if self._guided else 0
        sizes = [self.x.numel(), HALVES[answer.dtype], len(self._table), self._keeps[row], 0]
        addresses = [x, output, uncond, kept, self._table.data_ptr(), self._index.data_ptr() + 8 * row, x, kept, 0]
        try:
            self._step(sizes, self._numbers, self._seed, self._offset, addresses, threads())
        except (RuntimeError, ValueError) as error:
            raise NativeError(f"ops.sampling_loop: {error}") from error

    def _check(self, answer: Tensor) -> None:
        """Refuse what the kernel cannot read."""
        if not isinstance(answer, Tensor) or answer.layout != torch.strided or answer.dtype not in HALVES:
            raise DataError("ops.sampling_loop: the network must answer a strided float32, float16 or bfloat16 tensor")
        if answer.shape != self._told.shape or answer.device != self.x.device:
            raise DataError(
                f"ops.sampling_loop: the network answered {list(answer.shape)} on {answer.device} to "
                f"{list(self._told.shape)} on {self.x.device}; it must answer the same shape on the same device"
            )
        self._dtype = answer.dtype

    def _settle(self, answer: Tensor) -> None:
        """Take the order of the first answer, if it is a permutation of the axes with the samples outermost."""
        self._settled = True
        if not self._free or answer.stride() == self._strides or not _dense(answer):
            return
        x = self.x
        self._lay_out(torch.empty_strided(x.shape, answer.stride(), dtype=x.dtype).copy_(x))

    def _turned(self, answer: Tensor) -> Tensor:
        """Copy an answer into the order of x."""
        if not self._spare or self._spare[0].dtype != answer.dtype:
            self._spare = [torch.empty_strided(answer.shape, self._strides, dtype=answer.dtype)]
        return self._spare[0].copy_(answer)


def _dense(t: Tensor) -> bool:
    """True where each sample is one block without gaps, one after the other."""
    size = math.prod(t.shape[1:])
    expected = 1
    for length, stride in sorted(zip(t.shape[1:], t.stride()[1:], strict=True), key=lambda axis: (axis[1], axis[0])):
        if length != 1 and stride != expected:
            return False
        expected *= length
    return t.stride(0) == size
