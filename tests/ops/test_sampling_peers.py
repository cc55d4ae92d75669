"""Whole trajectories equal those of diffusers' schedulers, given the same model and the same noise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medtrust import ops

SHAPE = (2, 3, 9, 7)
SEED = 1234
STEPS = 12


@pytest.fixture(scope="module")
def diffusers():
    module = pytest.importorskip("diffusers", reason="diffusers, the peer of these schedules, is not installed")
    module.utils.logging.set_verbosity_error()
    return module


def model(x: Tensor, time: float) -> Tensor:
    """A smooth stand-in for a network, the same for both sides."""
    return torch.sin(2 * x + 0.001 * time) * 0.6 + 0.3 * x / (1 + x.abs())


def start(scale: float = 1.0) -> Tensor:
    return ops.philox_normal(SHAPE, SEED) * scale


def ours(schedule, x: Tensor, **options) -> list[Tensor]:
    """Our trajectory, one x per row."""
    memory, path = None, []
    for row in range(len(schedule)):
        output = model(x * schedule.input_scale[row], schedule.times[row])
        x, memory = ops.diffusion_step(
            schedule.kind, x, output, schedule=schedule, step=row, memory=memory, seed=SEED, **options
        )
        path.append(x)
    return path


def theirs(scheduler, x: Tensor, noise=None, times=None) -> list[Tensor]:
    """The scheduler's trajectory; `noise(row)` gives the arguments that carry our noise."""
    path = []
    for row, time in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(x, time) if hasattr(scheduler, "scale_model_input") else x
        output = model(scaled, float(time) if times is None else times[row])
        x = scheduler.step(output, time, x, **(noise(row) if noise else {})).prev_sample
        path.append(x)
    return path


def same(a: list[Tensor], b: list[Tensor], tolerance: float = 1e-5) -> None:
    assert len(a) == len(b)
    for row, (x, y) in enumerate(zip(a, b, strict=True)):
        gap = float((x - y).abs().max())
        assert gap <= tolerance * max(1.0, float(y.abs().max())), (row, gap)


def our_noise(row: int) -> Tensor:
    return ops.philox_normal(SHAPE, SEED, row + 1)


@pytest.mark.parametrize("prediction", ["epsilon", "v", "x0"])
@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("betas", ["linear", "cosine"])
def test_ddpm(diffusers, monkeypatch, prediction, variance, betas):
    """DDPM, with both variances and clamped clean images."""
    names = {"epsilon": "epsilon", "v": "v_prediction", "x0": "sample"}
    scheduler = diffusers.DDPMScheduler(
        beta_schedule={"linear": "linear", "cosine": "squaredcos_cap_v2"}[betas],
        prediction_type=names[prediction],
        variance_type=f"fixed_{variance}",
        clip_sample=True,
    )
    scheduler.set_timesteps(STEPS)
    rows = iter(range(STEPS))
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: our_noise(next(rows)))
    schedule = ops.schedule(
        "ddpm", STEPS, noise=scheduler.alphas_cumprod.double().numpy(), prediction=prediction, variance=variance
    )
    same(ours(schedule, start(), clamp=(-1, 1)), theirs(scheduler, start()))


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("final", ["clean", "first"])
@pytest.mark.parametrize("prediction", ["epsilon", "v"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_ddim(diffusers, eta, final, prediction, spacing):
    """DDIM from deterministic to ancestral, with the clean image clamped and the noise derived from it again."""
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type={"epsilon": "epsilon", "v": "v_prediction"}[prediction],
        set_alpha_to_one=final == "clean",
        timestep_spacing=spacing,
        clip_sample=True,
    )
    scheduler.set_timesteps(10)

    def noise(row: int) -> dict:
        return {"eta": eta, "use_clipped_model_output": True, "variance_noise": our_noise(row) if eta else None}

    schedule = ops.schedule(
        "ddim", 10, noise="scaled_linear", prediction=prediction, eta=eta, final=final, spacing=spacing
    )
    same(ours(schedule, start(), clamp=(-1, 1)), theirs(scheduler, start(), noise))


@pytest.mark.parametrize(("algorithm", "kind"), [("dpmsolver++", "dpmpp2m"), ("sde-dpmsolver++", "dpmpp2m_sde")])
@pytest.mark.parametrize("steps", [5, 20])
@pytest.mark.parametrize(("last", "final"), [("zero", "clean"), ("sigma_min", "first")])
def test_dpmpp2m(diffusers, algorithm, kind, steps, last, final):
    """DPM-Solver++(2M) and its SDE form over training steps, to either end, with few and with many steps."""
    scheduler = diffusers.DPMSolverMultistepScheduler(algorithm_type=algorithm, final_sigmas_type=last)
    scheduler.set_timesteps(steps)
    times = [int(t) for t in scheduler.timesteps]
    schedule = ops.schedule(kind, times, noise=scheduler.alphas_cumprod.double().numpy(), final=final)
    noise = (lambda row: {"variance_noise": our_noise(row)}) if kind == "dpmpp2m_sde" else None
    same(ours(schedule, start()), theirs(scheduler, start(), noise), 2e-5)  # their tables are float32


@pytest.mark.parametrize(("algorithm", "kind"), [("dpmsolver++", "dpmpp2m"), ("sde-dpmsolver++", "dpmpp2m_sde")])
def test_dpmpp2m_over_sigmas(diffusers, monkeypatch, algorithm, kind):
    """DPM-Solver++(2M) and its SDE form over EDM's sigmas."""
    scheduler = diffusers.EDMDPMSolverMultistepScheduler(algorithm_type=algorithm, sigma_min=0.01, sigma_max=20.0)
    scheduler.set_timesteps(STEPS)
    rows = iter(range(STEPS))
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_edm_dpmsolver_multistep.randn_tensor", lambda *_, **__: our_noise(next(rows))
    )
    schedule = ops.schedule(kind, STEPS, noise="karras", sigma_min=0.01, sigma_max=20.0)
    x = start(schedule.init_scale)
    same(ours(schedule, x), theirs(scheduler, x, times=[float(t) for t in schedule.times]), 2e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_heun(diffusers, prediction):
    """Heun over the sigmas of a variance-preserving chain."""
    scheduler = diffusers.HeunDiscreteScheduler(prediction_type={"epsilon": "epsilon", "v": "v_prediction"}[prediction])
    scheduler.set_timesteps(STEPS)
    sigmas = scheduler.sigmas.double().unique().flip(0)[:-1]
    schedule = ops.schedule("heun", sigmas.tolist(), prediction=prediction)
    assert len(schedule) == 2 * STEPS - 1
    x = start(schedule.init_scale)
    peer = theirs(scheduler, x, times=[float(t) for t in schedule.times])
    same(ours(schedule, x), peer)


def test_edm_euler(diffusers):
    """Euler with EDM's sigmas and preconditioning."""
    scheduler = diffusers.EDMEulerScheduler()
    scheduler.set_timesteps(STEPS)
    schedule = ops.schedule("euler", STEPS)
    x = start(schedule.init_scale)
    same(ours(schedule, x), theirs(scheduler, x, times=[float(t) for t in schedule.times]))


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_euler(diffusers, shift):
    """Euler along a rectified flow, with its times shifted towards noise."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    sigmas = [1 - i / STEPS for i in range(STEPS)]
    scheduler.set_timesteps(sigmas=sigmas)
    schedule = ops.schedule("flow_euler", STEPS, shift=shift)
    assert schedule.times.tolist() == pytest.approx((scheduler.timesteps / 1000).tolist(), abs=1e-6)
    same(ours(schedule, start()), theirs(scheduler, start(), times=[float(t) for t in schedule.times]))


def test_flow_heun(diffusers):
    """Heun along a rectified flow."""
    scheduler = diffusers.FlowMatchHeunDiscreteScheduler()
    scheduler.set_timesteps(STEPS)
    given = scheduler.sigmas.double().unique().flip(0)[:-1]
    schedule = ops.schedule("flow_heun", given.tolist())
    same(ours(schedule, start()), theirs(scheduler, start(), times=[float(t) for t in schedule.times]))
