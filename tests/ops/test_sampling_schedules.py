"""ops.schedule: what the tables must satisfy, whatever the sampler."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from medtrust import ops
from medtrust.errors import DataError
from medtrust.ops.schedules import KINDS

FAMILIES = {
    "ddpm": ["linear", "scaled_linear", "cosine"],
    "ddim": ["linear", "scaled_linear", "cosine"],
    "dpmpp2m": ["linear", "cosine", "karras", "flow"],
    "dpmpp2m_sde": ["linear", "cosine", "karras", "flow"],
    "euler": ["karras"],
    "heun": ["karras"],
    "flow_euler": ["flow"],
    "flow_heun": ["flow"],
}
CASES = [(kind, noise) for kind, names in FAMILIES.items() for noise in names]


def walk(schedule, model, x, rng) -> np.ndarray:
    """The sampler in plain float64 numpy."""
    memory = None
    for i, (kx, km, cx, cc, cm, cn) in enumerate(schedule.table):
        clean = kx * x + km * model(x, i)
        following = cx * x + cc * clean + (cm * memory if cm else 0) + cn * rng.standard_normal(x.shape)
        memory = x if schedule.remembers == "x" else clean
        x = following
    return x


@pytest.mark.parametrize(("kind", "noise"), CASES)
def test_a_model_that_knows_the_answer_is_followed(kind, noise):
    """A model that always names one clean image leads every sampler exactly there."""
    schedule = ops.schedule(kind, 7, noise=noise, prediction="x0")
    rng = np.random.default_rng(1)
    target = rng.standard_normal(20)
    end = walk(schedule, lambda x, i: target, rng.standard_normal(20) * schedule.init_scale, rng)
    np.testing.assert_allclose(end, target, atol=1e-9)


@pytest.mark.parametrize(("kind", "noise"), CASES)
@pytest.mark.parametrize("prediction", ["epsilon", "v", "flow"])
def test_predictions_agree(kind, noise, prediction):
    """Every prediction gives the clean image that x0 gives, when the model is converted to it."""
    if prediction == "epsilon" and noise == "flow":
        with pytest.raises(DataError, match="no signal at all"):
            ops.schedule(kind, 5, noise=noise, prediction=prediction)
        return
    schedule = ops.schedule(kind, 5, noise=noise, prediction=prediction)
    rng = np.random.default_rng(2)
    clean, eps = rng.standard_normal((2, 30))
    for i, (kx, km, *_) in enumerate(schedule.table):
        if noise == "karras":
            alpha, sigma = 1.0, schedule.times[i]
        elif noise == "flow":
            alpha, sigma = 1 - schedule.times[i], schedule.times[i]
        else:
            share = alphas(noise)[int(schedule.times[i])]
            alpha, sigma = np.sqrt(share), np.sqrt(1 - share)
        norm = np.hypot(alpha, sigma)
        output = {"epsilon": eps, "v": (alpha * eps - sigma * clean) / norm, "flow": eps - clean}[prediction]
        np.testing.assert_allclose(kx * (alpha * clean + sigma * eps) + km * output, clean, atol=1e-9)


def alphas(noise: str) -> np.ndarray:
    """Cumulative alphas, from the papers."""
    if noise == "cosine":
        share = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.cumprod(np.maximum(share[1:] / share[:-1], 0.001))
    ends = {"linear": (1e-4, 0.02, 1), "scaled_linear": (0.00085**0.5, 0.012**0.5, 2)}[noise]
    return np.cumprod(1 - np.linspace(*ends[:2], 1000) ** ends[2])


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("heun", "flow_heun")])
def test_a_gaussian_stays_the_right_gaussian(kind):
    """With the exact model of Gaussian data, many steps end at the data's own variance."""
    spread = 0.6
    schedule = ops.schedule(kind, 400, prediction="x0", **({"eta": 0.5} if kind == "ddim" else {}))
    noise = FAMILIES[kind][0]

    def model(x: np.ndarray, i: int) -> np.ndarray:
        if noise == "linear":
            share = alphas(noise)[int(schedule.times[i])]
            alpha, sigma = np.sqrt(share), np.sqrt(1 - share)
        else:
            sigma = schedule.times[i]
            alpha = 1.0 if noise == "karras" else 1 - sigma
        return alpha * spread**2 * x / (alpha**2 * spread**2 + sigma**2)

    rng = np.random.default_rng(3)
    end = walk(schedule, model, rng.standard_normal(100_000) * schedule.init_scale, rng)
    assert end.std() == pytest.approx(spread, rel=0.02)


# kind: order, first and last time, of which the samplers go the whole way in equal steps
ROADS = {
    "euler": (1, 4.0, 0.4),
    "heun": (2, 4.0, 0.4),
    "flow_euler": (1, 0.9, 0.3),
    "flow_heun": (2, 0.9, 0.3),
    "ddim": (1, 800, 320),
    "dpmpp2m": (2, 800, 320),
}


@pytest.mark.parametrize("kind", ROADS)
def test_order_of_convergence(kind):
    """Halving the steps' length divides the error by 2 to the power of the sampler's order."""
    order, first, last = ROADS[kind]
    variance, x = 0.7**2, 1.3

    def end(steps: int) -> float:
        schedule = ops.schedule(kind, np.linspace(first, last, steps + 1).tolist(), prediction="x0")
        rows = 2 * steps if schedule.remembers == "x" else steps
        y, memory = x, 0.0
        for i, (_, _, cx, cc, cm, _) in enumerate(schedule.table[:rows]):
            alpha, sigma = level(kind, schedule.times[i])
            clean = alpha * variance * y / (alpha**2 * variance + sigma**2)
            y, memory = cx * y + cc * clean + cm * memory, (y if schedule.remembers == "x" else clean)
        return y

    (a0, s0), (a1, s1) = level(kind, first), level(kind, last)
    exact = x * np.sqrt((a1**2 * variance + s1**2) / (a0**2 * variance + s0**2))
    errors = [abs(end(steps) - exact) for steps in (40, 80, 160)]
    for coarse, fine in itertools.pairwise(errors):
        assert np.log2(coarse / fine) == pytest.approx(order, abs=0.3)


def level(kind: str, time: float) -> tuple[float, float]:
    if kind in ("euler", "heun"):
        return 1.0, time
    if kind in ("flow_euler", "flow_heun"):
        return 1 - time, time
    share = alphas("linear")[int(time)]
    return float(np.sqrt(share)), float(np.sqrt(1 - share))


def test_spacings_and_ends():
    """Times are those of the usual conventions, and the last one may end at the first training step."""
    assert ops.schedule("ddim", 4).times.tolist() == [750, 500, 250, 0]
    assert ops.schedule("ddim", 4, spacing="trailing").times.tolist() == [999, 749, 499, 249]
    assert ops.schedule("ddim", 4, spacing="linspace").times.tolist() == [999, 666, 333, 0]
    assert ops.schedule("ddim", [900, 3]).times.tolist() == [900, 3]
    assert ops.schedule("ddim", 1000).times[0] == 999
    kept, _ = ops.schedule("ddim", [900, 3], final="first").table[-1, 2:4]
    share = alphas("linear")
    assert kept == pytest.approx(np.sqrt((1 - share[0]) / (1 - share[3])))
    assert ops.schedule("flow_euler", 4).times.tolist() == [1, 0.75, 0.5, 0.25]
    karras = ops.schedule("heun", 18)
    assert len(karras) == 35
    assert karras.times[0] == pytest.approx(80)
    assert karras.times[-1] == pytest.approx(0.002)
    assert karras.init_scale == pytest.approx(80)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "unipc"}, "kind is 'unipc'; choose one of ddpm"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 1001}, "steps is 1001; give 1..1000"),
        ({"steps": []}, "positive number or finite"),
        ({"steps": [3, 5]}, "fall strictly"),
        ({"steps": [1000, 5]}, "fall strictly within 0..999"),
        ({"steps": [5.5, 2]}, "whole numbers"),
        ({"prediction": "noise"}, "prediction is 'noise'"),
        ({"prediction": "edm"}, 'belongs to noise "karras"'),
        ({"noise": "sine"}, "noise is 'sine'"),
        ({"noise": "karras"}, "runs on variance-preserving noise"),
        ({"noise": [0.1, 0.9]}, "cumulative alphas that fall"),
        ({"kind": "heun", "noise": "flow"}, 'heun runs on noise "karras"'),
        ({"kind": "heun", "noise": [0.9, 0.1]}, 'heun runs on noise "karras"'),
        ({"kind": "heun", "sigma_min": 0}, "sigma_min 0"),
        ({"kind": "flow_euler", "shift": 0}, "shift is 0"),
        ({"spacing": "wide"}, "spacing is 'wide'"),
        ({"final": "zero"}, "final is 'zero'"),
        ({"eta": -1}, "eta is -1"),
        ({"variance": "learned"}, "variance 'learned'"),
    ],
)
def test_refusals(arguments, words):
    """A schedule that cannot be is refused with a sentence that says what to do."""
    arguments = {"kind": "ddim", "steps": 5} | arguments
    with pytest.raises(DataError, match=words):
        ops.schedule(arguments.pop("kind"), arguments.pop("steps"), **arguments)
