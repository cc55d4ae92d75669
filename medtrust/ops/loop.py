"""The whole sampling loop around a network: nothing but the network and the fused step, one CUDA graph on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from medtrust.errors import DataError
from medtrust.ops import _native
from medtrust.ops._rows import Rows
from medtrust.ops.noise import philox_normal
from medtrust.ops.sampling import diffusion_step
from medtrust.ops.schedules import Schedule

__all__ = ["SamplingGraph", "sampling_loop", "start_noise"]

Network = Callable[[Tensor, int], Tensor]


@torch.no_grad()
def sampling_loop(
    network: Network,
    schedule: Schedule,
    x: Tensor,
    *,
    seed: int | None = None,
    first: int = 0,
    scale: float = 1.0,
    clamp: tuple[float, float] | None = None,
) -> Tensor:
    """Run every row of a schedule from noise to images.

    Args:
        network: Called as network(x, row) with x already times `schedule.input_scale[row]`; its answer, the shape of x,
            is in the schedule's prediction. With `scale` other than 1 it is called once with x [2N, ...],
            which holds x twice, and returns the conditional answers before the unconditional ones.
        schedule: From `ops.schedule`.
        x: Noise `[N, ...]` float32, contiguous, of standard deviation `schedule.init_scale`; it is not changed.
        seed: Seed of the noise that rows draw, where some do.
        first: Index of the first sample of this batch.
        scale: Weight of classifier-free guidance.
        clamp: Smallest and largest value of the clean image.

    Returns:
        The images `[N, ...]` float32; on the CPU in the order in memory of the network's answers.

    Raises:
        DataError: An argument does not fit.
    """
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and x.is_contiguous()
    if plain and not torch.compiler.is_compiling() and (lib := _native.kernels("sampling_loop")) is not None:
        rows = Rows(lib, schedule, x, seed, first, scale, clamp)
        for row in range(len(schedule)):
            rows.take(row, network(rows.told(), row))
        return rows.x
    x = x.clone()
    memory = torch.empty_like(x) if schedule.remembers else None
    factors = schedule.input_scale.tolist()
    count = len(x)
    for row, factor in enumerate(factors):
        told = x if factor == 1 else x * factor
        if scale == 1:
            output, uncond = network(told, row), None
        else:
            output, uncond = torch.split(network(torch.cat([told, told]), row), count)
        diffusion_step(
            schedule.kind,
            x,
            output,
            schedule=schedule,
            step=row,
            eps_uncond=uncond,
            scale=scale,
            memory=memory,
            clamp=clamp,
            seed=seed,
            first=first,
            inplace=True,
        )
    return x


class SamplingGraph:
    """A sampling loop captured once as a CUDA graph and launched once per batch.

    A captured kernel repeats its arguments, the seed of its noise among them, so only schedules that draw no noise on
    the way can be captured; the noise at the start is an input.

    Args:
        network: As for `sampling_loop`; it must not synchronise with the host.
        schedule: A schedule without noise: ddim with eta 0, dpmpp2m, euler, heun, flow_euler, flow_heun.
        shape: Shape of every batch `[N, ...]`.
        device: A CUDA device.
        options: `scale` and `clamp` of `sampling_loop`.

    Raises:
        DataError: The schedule draws noise, or the device is no CUDA device.
    """

    def __init__(
        self, network: Network, schedule: Schedule, shape: tuple[int, ...], device: str | torch.device, **options: Any
    ) -> None:
        if torch.device(device).type != "cuda":
            raise DataError(f"ops.SamplingGraph: {device} has no CUDA graphs; use sampling_loop")
        if any(schedule.adds_noise(row) for row in range(len(schedule))):
            raise DataError(f"ops.SamplingGraph: {schedule.kind} draws noise on the way; use sampling_loop")
        self.start = torch.zeros(shape, device=device)
        side: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):  # libraries choose and allocate before the capture
            sampling_loop(network, schedule, self.start, **options)
        torch.cuda.current_stream(device).wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.result = sampling_loop(network, schedule, self.start, **options)

    def __call__(self, x: Tensor) -> Tensor:
        """Map noise to images `[N, ...]`, both of the captured shape."""
        self.start.copy_(x)
        self.graph.replay()
        return self.result.clone()


def start_noise(
    schedule: Schedule, shape: tuple[int, ...], seed: int, first: int, device: str | torch.device
) -> Tensor:
    """Draw the x that the first row of a schedule expects; sample i depends on (seed, first + i) alone."""
    return philox_normal(shape, seed, 0, device, first=first) * schedule.init_scale
