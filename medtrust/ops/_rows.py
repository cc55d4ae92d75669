"""A schedule's rows bound to one batch on the CPU: checked once, then one kernel call per row."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from medtrust.errors import DataError, NativeError
from medtrust.ops._check import threads
from medtrust.ops._numbers import noise_place
from medtrust.ops.sampling import HALVES, KEEP_CLEAN, KEEP_NOTHING, placed
from medtrust.ops.schedules import Schedule

__all__ = ["Rows"]


class Rows:
    """Steps x in the bits of `ops.diffusion_step`; nothing is allotted after the first row.

    The kernel computes each element alone, so where no noise is drawn the order in memory is free: x takes the order of
    the network's first answer (channels_last, say), and neither the network nor the step has to turn anything round.
    Noise counts its elements in the order of a contiguous tensor, so a schedule that draws some keeps that order.
    The kernel also writes what the network is told next, and a row that is remembered changes places with the memory.

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
        self._step, self._guided = lib.sampler_step_cpu, scale != 1
        self._free = not any(schedule.adds_noise(row) for row in range(len(schedule)))
        if not self._free and seed is None:
            raise DataError(f"ops.sampling_loop: {schedule.kind} draws noise on the way; give seed")
        if clamp is not None and not clamp[0] < clamp[1]:
            raise DataError(f"ops.sampling_loop: clamp is {clamp}; give a rising pair (smallest, largest)")
        self._seed, _, self._offset = noise_place("sampling_loop", x.shape, seed or 0, 0, first)
        self._numbers = [float(scale), *(clamp or (-math.inf, math.inf)), 0.0, 1.0]
        table, index = placed(schedule, x.device)
        self._rows, self._table, self._index = len(schedule), table.data_ptr(), index.data_ptr()
        wanted = [schedule.remembers if schedule.reads_memory(row + 1) else None for row in range(self._rows)]
        self._keeps = [KEEP_CLEAN if what == "x0" else KEEP_NOTHING for what in wanted]
        self._swaps = [what == "x" for what in wanted]
        self._remembers = any(wanted)
        self._factors = [*schedule.input_scale.tolist(), 1.0]
        # Where the network sees x as it is, x lies in what the network is told.
        self._apart = self._guided or any(factor != 1 for factor in self._factors)
        self._count, self._size = len(x), x.numel()
        self._dtype: torch.dtype | None = None
        self.x = x  # the caller's until the first answer has come
        factor = self._factors[0]
        self._told = x if factor == 1 else x * factor
        if self._guided:
            self._told = torch.cat([self._told, self._told])
        self._spare: list[Tensor] = []
        self._strides = x.stride()
        self._other = x  # where the next x goes when x is remembered; then it is the memory
        self._memory = 0

    def told(self) -> Tensor:
        """What the network sees now: [N, ...], or [2N, ...] with x twice; the next `take` overwrites it."""
        return self._told

    def take(self, row: int, answer: Tensor) -> None:
        """Step x by the network's answer, the shape of what it was told; rows are taken from 0 on."""
        if answer.dtype is not self._dtype or answer.shape != self._told.shape or answer.device != self.x.device:
            self._check(answer)
        if row == 0:
            self._lay_out(answer)
        if not self._size:
            return
        if answer.stride() != self._strides:
            answer = self._turned(answer)
        following, last = self._other if self._swaps[row] else self.x, row + 1 == self._rows
        output, told = answer.data_ptr(), 0 if last or not self._apart else self._told.data_ptr()
        again = told + 4 * self._size if told and self._guided else 0
        uncond = output + answer.element_size() * self._size if self._guided else 0
        memory = self._memory
        index = self._index + 8 * row
        sizes = [self._size, HALVES[answer.dtype], self._rows, self._keeps[row], 0]
        addresses = [self.x.data_ptr(), output, uncond, memory, self._table, index]
        addresses += [following.data_ptr(), memory, 0, told, again]
        numbers = [*self._numbers, self._factors[row + 1]]
        try:
            self._step(sizes, numbers, self._seed, self._offset, addresses, threads())
        except (RuntimeError, ValueError) as error:
            raise NativeError(f"ops.sampling_loop: {error}") from error
        if self._swaps[row]:
            self._other, self.x = self.x, following
            self._memory = self._other.data_ptr()
            if not self._apart:
                self._told = following

    def _lay_out(self, answer: Tensor) -> None:
        """Allot everything in the order of the first answer, if that is free to choose, and take the values of x."""
        x = self.x
        free = self._free and _dense(answer)
        self._strides = answer.stride() if free else x.stride()
        self.x = torch.empty_strided(x.shape, self._strides, dtype=torch.float32).copy_(x)
        if self._apart:
            self._told = torch.empty_strided(self._told.shape, self._strides, dtype=torch.float32)
        else:
            self._told = self.x
        self._other = torch.empty_like(self.x) if self._remembers else self.x
        self._memory = self._other.data_ptr()

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
