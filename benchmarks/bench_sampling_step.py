"""Sampler steps and latents against diffusers and plain torch: `python benchmarks/bench_sampling_step.py`.

64 x 3 x 256 x 256 float32, one step from the middle of a schedule. The error is the largest one over all elements,
from the float64 twin, both sides given the same noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from medtrust import ops
from medtrust.ops import reference_sampling
from peers import Contender, Row, compare, main, module

SHAPE = (64, 3, 256, 256)
STEPS, ROW, SEED, GUIDANCE = 20, 10, 7, 7.5


def tensor(seed: int) -> Tensor:
    return ops.philox_normal(SHAPE, seed)


def error_from(exact: Tensor) -> Callable[[Tensor], float]:
    """Largest distance from the twin's result, a slice at a time."""

    def value(result: Tensor) -> float:
        return max(float((a.double() - b).abs().max()) for a, b in zip(result, exact, strict=True))

    return value


def twin(schedule: Any, x: Tensor, eps: Tensor, uncond: Tensor | None, memory: Tensor | None, clamp: Any) -> Tensor:
    """The float64 step with the exact table and float32 noise."""
    noise = ops.philox_normal(SHAPE, SEED, ROW + 1) if schedule.adds_noise(ROW) else None
    limits = clamp or (-torch.inf, torch.inf)
    scale = GUIDANCE if uncond is not None else 1.0
    row = torch.from_numpy(schedule.table)[ROW]
    return reference_sampling.diffusion_step(x, eps, uncond, memory, row, noise, scale, limits)[0]


def contest(
    case: str,
    schedule: Any,
    peer: Callable[[Tensor, Tensor, Tensor | None, Tensor | None], Tensor] | None,
    rounds: int,
    *,
    guided: bool = False,
    clamp: tuple[float, float] | None = None,
    folded: bool = False,
) -> list[Row]:
    """One sampler: ours into new memory and in place, diffusers, and torch with the coefficients folded by hand.

    Args:
        case: Name.
        schedule: Ours.
        peer: Their step from x, model output, memory and the noise to use, or None to draw it.
        rounds: Turns.
        guided: With classifier-free guidance.
        clamp: Of the clean image, on both sides.
        folded: Add the hand-folded contender, which is only right without noise and memory.
    """
    x, eps, uncond = tensor(1), tensor(2), tensor(3) if guided else None
    memory = tensor(4) if schedule.reads_memory(ROW) else None
    exact = twin(schedule, x, eps, uncond, memory, clamp)
    options: dict[str, Any] = {"schedule": schedule, "step": ROW, "clamp": clamp, "seed": SEED, "eps_uncond": uncond}
    options["scale"] = GUIDANCE if guided else 1.0
    scratch = x.clone()
    remembered = None if memory is None else memory.clone()

    def stepped() -> Tensor:
        return ops.diffusion_step(schedule.kind, x, eps, memory=memory, **options).x

    def in_place() -> Tensor:
        return ops.diffusion_step(schedule.kind, scratch, eps, memory=remembered, inplace=True, **options).x

    far = error_from(exact)
    contenders = [Contender("medtrust", stepped, far), Contender("medtrust", in_place, far, "in place")]

    def output() -> Tensor:
        return eps if uncond is None else uncond + GUIDANCE * (eps - uncond)

    if peer is not None:
        noise = ops.philox_normal(SHAPE, SEED, ROW + 1) if schedule.adds_noise(ROW) else None
        given = peer(x, output(), memory, noise)
        contenders.append(Contender("diffusers", lambda: peer(x, output(), memory, None), lambda _: far(given)))
    if folded:
        kx, km, cx, cc, _, _ = (float(c) for c in schedule.table[ROW])
        of_x, of_output = cx + cc * kx, cc * km
        contenders.append(Contender("torch", lambda: torch.add(of_x * x, output(), alpha=of_output), far, "folded"))
    return compare(case, 0.0, contenders, rounds)


def at(scheduler: Any, steps: int = STEPS) -> Any:
    scheduler.set_timesteps(steps)
    return scheduler


def samplers(rounds: int) -> list[Row]:
    """Each kind against the scheduler of the same name."""
    diffusers = module("diffusers")
    rows = []
    if diffusers:
        diffusers.utils.logging.set_verbosity_error()
        ddim = at(diffusers.DDIMScheduler(clip_sample=False))
        ddpm = at(diffusers.DDPMScheduler())
        multistep = {
            name: at(diffusers.DPMSolverMultistepScheduler(algorithm_type=name, timestep_spacing="leading"))
            for name in ("dpmsolver++", "sde-dpmsolver++")
        }
        flow = at(diffusers.FlowMatchEulerDiscreteScheduler())

    def of_ddim(eta: float) -> Any:
        def step(x: Tensor, output: Tensor, memory: Tensor | None, noise: Tensor | None) -> Tensor:
            return ddim.step(output, ddim.timesteps[ROW], x, eta=eta, variance_noise=noise).prev_sample

        return step if diffusers else None

    def of_ddpm(x: Tensor, output: Tensor, memory: Tensor | None, noise: Tensor | None) -> Tensor:
        draw = diffusers.schedulers.scheduling_ddpm.randn_tensor
        if noise is not None:
            diffusers.schedulers.scheduling_ddpm.randn_tensor = lambda *_, **__: noise
        try:
            return ddpm.step(output, ddpm.timesteps[ROW], x).prev_sample
        finally:
            diffusers.schedulers.scheduling_ddpm.randn_tensor = draw

    def of_multistep(name: str) -> Any:
        def step(x: Tensor, output: Tensor, memory: Tensor | None, noise: Tensor | None) -> Tensor:
            solver = multistep[name]
            solver._step_index, solver.lower_order_nums = ROW, 1
            solver.model_outputs = [None, memory]
            return solver.step(output, solver.timesteps[ROW], x, variance_noise=noise).prev_sample

        return step if diffusers else None

    def of_flow(x: Tensor, output: Tensor, memory: Tensor | None, noise: Tensor | None) -> Tensor:
        flow._step_index = ROW
        return flow.step(output, flow.timesteps[ROW], x).prev_sample

    linear = ops.schedule("ddim", STEPS)
    rows += contest("DDIM + guidance", linear, of_ddim(0.0), rounds, guided=True, folded=True)
    rows += contest("DDIM", linear, of_ddim(0.0), rounds, folded=True)
    rows += contest("DDIM, eta 1", ops.schedule("ddim", STEPS, eta=1.0), of_ddim(1.0), rounds)
    rows += contest("DDPM", ops.schedule("ddpm", STEPS), of_ddpm if diffusers else None, rounds, clamp=(-1, 1))
    for kind, name in (("dpmpp2m", "dpmsolver++"), ("dpmpp2m_sde", "sde-dpmsolver++")):
        times: Any = [int(t) for t in multistep[name].timesteps] if diffusers else STEPS
        rows += contest(
            f"DPM-Solver++ 2M{' SDE' * ('sde' in kind)}", ops.schedule(kind, times), of_multistep(name), rounds
        )
    times = (flow.timesteps / 1000).tolist() if diffusers else STEPS
    rows += contest(
        "Flow Euler", ops.schedule("flow_euler", times), of_flow if diffusers else None, rounds, folded=True
    )
    return rows


def heun(rounds: int) -> list[Row]:
    """A whole step of Heun: predictor and corrector."""
    diffusers = module("diffusers")
    scheduler = at(diffusers.HeunDiscreteScheduler()) if diffusers else None
    sigmas = scheduler.sigmas.double().unique().flip(0)[:-1].tolist() if scheduler else STEPS
    schedule = ops.schedule("heun", sigmas, prediction="epsilon")
    x, first, second = tensor(1), tensor(2), tensor(3)
    scratch, memory = x.clone(), x.clone()

    def ours(start: Tensor, inplace: bool) -> Tensor:
        options: Any = {"schedule": schedule, "inplace": inplace}
        kept = memory if inplace else None
        middle, kept = ops.diffusion_step("heun", start, first, step=ROW, memory=kept, **options)
        return ops.diffusion_step("heun", middle, second, step=ROW + 1, memory=kept, **options).x

    def theirs() -> Tensor:
        scheduler._step_index, scheduler.dt = ROW, None
        middle = scheduler.step(first, scheduler.timesteps[ROW], x).prev_sample
        return scheduler.step(second, scheduler.timesteps[ROW + 1], middle).prev_sample

    predictor, corrector = torch.from_numpy(schedule.table)[ROW : ROW + 2]
    limits = (-torch.inf, torch.inf)
    exact, _ = reference_sampling.diffusion_step(x, first, None, None, predictor, None, 1.0, limits)
    exact, _ = reference_sampling.diffusion_step(exact, second, None, x, corrector, None, 1.0, limits)
    far = error_from(exact)
    contenders = [
        Contender("medtrust", lambda: ours(x, False), far),
        Contender("medtrust", lambda: ours(scratch, True), far, "in place"),
    ]
    if scheduler:
        contenders.append(Contender("diffusers", theirs, far))
    return compare("Heun, both stages", 0.0, contenders, rounds)


def latents(rounds: int) -> list[Row]:
    """The reparameterised latent of a VAE, and plain noise."""
    mu, logvar = tensor(1), tensor(2)
    noise = ops.philox_normal(SHAPE, SEED)
    exact = mu.double() + torch.exp(logvar.double() / 2) * noise
    generator = torch.Generator().manual_seed(0)

    def plain(z: Tensor | None) -> Tensor:
        drawn = torch.randn(SHAPE, generator=generator) if z is None else z
        return mu + torch.exp(0.5 * logvar) * drawn

    given = plain(noise)
    far = error_from(exact)
    rows = compare(
        "VAE latent",
        0.0,
        [
            Contender("medtrust", lambda: ops.reparameterise(mu, logvar, SEED), far),
            Contender("torch", lambda: plain(None), lambda _: far(given)),
        ],
        rounds,
    )
    exact = reference_sampling.normals(mu.numel(), SEED, 0, 0, mu.device).reshape(SHAPE)
    far = error_from(exact)
    return rows + compare(
        "standard normals",
        0.0,
        [
            Contender("medtrust", lambda: ops.philox_normal(SHAPE, SEED), far),
            Contender("torch", lambda: torch.randn(SHAPE, generator=generator), lambda _: 0.0, "another sequence"),
        ],
        rounds,
    )


if __name__ == "__main__":
    main("sampling_step", lambda rounds: samplers(rounds) + heun(rounds) + latents(rounds), rounds=9)
