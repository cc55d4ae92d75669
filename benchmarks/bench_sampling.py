"""Whole sampling loops against diffusers' schedulers around one network: `python benchmarks/bench_sampling.py`.

Each case is timed twice over: the whole loop, and what of it passes outside the network, which the network's own clocks
take out. CPU time is that of the calling thread, to which other programs on the machine do not add. Both sides start
from the same noise; the error is the largest distance between their images over the largest value, where no noise is
drawn on the way (tests/ops/test_sampling_peers.py gives the others equal noise).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from medtrust import ops
from peers import Row, main, module

SHAPES = ((64, 3, 32, 32), (4, 4, 64, 64))
STEPS, SEED, GUIDANCE = 20, 7, 3.0


class Clocked:
    """A small convolutional network, channels_last, that sums up its own seconds: wall, and CPU of this thread."""

    def __init__(self, channels: int) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            ends = nn.Conv2d(channels, 8, 3, padding=1), nn.Conv2d(8, channels, 3, padding=1)
        self.body = nn.Sequential(ends[0], nn.SiLU(), ends[1]).to(memory_format=torch.channels_last)
        self.wall = self.cpu = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        wall, cpu = time.perf_counter(), time.thread_time()
        with torch.no_grad():
            answer: Tensor = self.body(x)
        self.cpu += time.thread_time() - cpu
        self.wall += time.perf_counter() - wall
        return answer


def contest(
    case: str, net: Clocked, ours: Callable[[], Tensor], theirs: Callable[[], Tensor] | None, rounds: int, exact: bool
) -> list[Row]:
    """Take turns; rows for the whole loop and for what passes outside the network."""
    sides = [("medtrust", ours), *([("diffusers", theirs)] if theirs else [])]
    results = [run() for _, run in sides]
    far = float((results[0] - results[-1]).abs().max() / results[-1].abs().max())
    error = far if exact and theirs else float("nan")
    whole: list[list[tuple[float, float]]] = [[] for _ in sides]
    outside: list[list[tuple[float, float]]] = [[] for _ in sides]
    for turn in range(rounds):
        for i in sorted(range(len(sides)), key=lambda i: (i + turn) % len(sides)):
            net.wall = net.cpu = 0.0
            began, spent = time.perf_counter(), time.thread_time()
            sides[i][1]()
            cpu, wall = time.thread_time() - spent, time.perf_counter() - began
            whole[i].append((1000 * wall, 1000 * cpu))
            outside[i].append((1000 * (wall - net.wall), 1000 * (cpu - net.cpu)))
    rows = []
    for what, times in (("whole loop", whole), ("outside the network", outside)):
        for i, (name, _) in enumerate(sides):
            walls, cpus = zip(*times[i], strict=True)
            ratios = [
                [a / b for a, b in zip(one, two, strict=True)] for one, two in zip(times[i], times[0], strict=True)
            ]
            ratio, cpu_ratio = (statistics.median(column) for column in zip(*ratios, strict=True))
            figures = statistics.median(walls), min(walls), statistics.median(cpus), ratio, cpu_ratio
            rows.append(Row(f"{case}, {what}", name, "", *figures, error if i else 0.0))
    return rows


def at(scheduler: Any) -> Any:
    scheduler.set_timesteps(STEPS)
    return scheduler


def their_loop(scheduler: Any, net: Clocked, x: Tensor, guided: bool) -> Tensor:
    """A diffusers pipeline's loop: scale, evaluate, guide, step."""
    scheduler = at(scheduler)
    x = x * scheduler.init_noise_sigma if hasattr(scheduler, "init_noise_sigma") else x
    for t in scheduler.timesteps:
        both = torch.cat([x, x]) if guided else x
        both = scheduler.scale_model_input(both, t) if hasattr(scheduler, "scale_model_input") else both
        output = net(both)
        if guided:
            uncond, asked = output.chunk(2)
            output = uncond + GUIDANCE * (asked - uncond)
        x = scheduler.step(output, t, x, return_dict=False)[0]
    return x


def cases(rounds: int) -> list[Row]:
    """Every sampler with a peer, at the sizes of the reference generators and of a latent."""
    diffusers = module("diffusers")
    if diffusers:
        diffusers.utils.logging.set_verbosity_error()
    return [row for shape in SHAPES for row in samplers(shape, rounds, diffusers)]


def samplers(shape: tuple[int, ...], rounds: int, d: Any) -> list[Row]:
    """The samplers at one size; `d` is diffusers, or None."""
    net = Clocked(shape[1])
    noise = ops.philox_normal(shape, SEED)
    rows: list[Row] = []

    def run(case: str, make: Any, schedule: Any, guided: bool = False, exact: bool = True) -> None:
        scale = GUIDANCE if guided else 1.0
        start = noise * schedule.init_scale if schedule.init_scale != 1 else noise

        def ours() -> Tensor:
            return ops.sampling_loop(lambda x, row: net(x), schedule, start, seed=SEED, scale=scale)

        scheduler = make() if d else None
        theirs = (lambda: their_loop(scheduler, net, noise, guided)) if d else None
        rows.extend(contest(f"{case}, {'x'.join(map(str, shape))}", net, ours, theirs, rounds, exact))

    times: Any = STEPS
    run("DDIM", lambda: d.DDIMScheduler(clip_sample=False), ops.schedule("ddim", STEPS))
    run("DDIM + guidance", lambda: d.DDIMScheduler(clip_sample=False), ops.schedule("ddim", STEPS), guided=True)
    run("DDPM", lambda: d.DDPMScheduler(clip_sample=False), ops.schedule("ddpm", STEPS), exact=False)
    for kind, name in (("dpmpp2m", "dpmsolver++"), ("dpmpp2m_sde", "sde-dpmsolver++")):

        def solver(name: str = name) -> Any:
            return d.DPMSolverMultistepScheduler(algorithm_type=name, timestep_spacing="leading")

        times = [int(t) for t in at(solver()).timesteps] if d else STEPS
        title = "DPM-Solver++ 2M" + " SDE" * ("sde" in kind)
        run(title, solver, ops.schedule(kind, times), exact="sde" not in kind)
    times = at(d.HeunDiscreteScheduler()).sigmas.double().unique().flip(0)[:-1].tolist() if d else STEPS
    run("Heun", lambda: d.HeunDiscreteScheduler(), ops.schedule("heun", times, prediction="epsilon"))
    times = (at(d.FlowMatchEulerDiscreteScheduler()).timesteps / 1000).tolist() if d else STEPS
    run("Flow Euler", lambda: d.FlowMatchEulerDiscreteScheduler(), ops.schedule("flow_euler", times))
    return rows


if __name__ == "__main__":
    main("sampling", cases, rounds=15)
