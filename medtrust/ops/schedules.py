"""What each step of a diffusion or flow sampler multiplies by: tables made in float64, read by `ops.diffusion_step`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtrust.errors import DataError

__all__ = ["KINDS", "PREDICTIONS", "Schedule", "schedule"]

Floats = NDArray[np.float64]
PREDICTIONS = ("epsilon", "v", "x0", "flow", "edm")
VARIANCE_PRESERVING = ("linear", "scaled_linear", "cosine")
# kind: the noise it runs on by default, and what a row hands to the next one
KINDS = {
    "ddpm": ("linear", None),
    "ddim": ("linear", None),
    "dpmpp2m": ("linear", "x0"),
    "dpmpp2m_sde": ("linear", "x0"),
    "euler": ("karras", None),
    "heun": ("karras", "x"),
    "flow_euler": ("flow", None),
    "flow_heun": ("flow", "x"),
}


@dataclass(frozen=True, eq=False)
class Schedule:
    """The rows of one sampler; one row is one evaluation of the model.

    Args:
        kind: Sampler, such as "ddim".
        prediction: What the model returns, such as "epsilon".
        table: `[rows, 6]` float64. With the row (kx, km, cx, cc, cm, cn) and the model's output m, the clean image is
            `clamp(kx x + km m)` and the next x is `cx x + cc clean + cm memory + cn noise`.
        times: `[rows]` what the model is told: the training step, sigma, or t in 0..1.
        input_scale: `[rows]` factor on x before it enters the model.
        init_scale: Standard deviation of the x that the first row expects.
        remembers: What a row hands to the next as `memory`: "x0", "x" or None.
    """

    kind: str
    prediction: str
    table: Floats
    times: Floats
    input_scale: Floats
    init_scale: float
    remembers: str | None
    placed: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)  # float32 copies, by device
    # Plain booleans of the table's rows: torch.compile can decide by them, not by an array's numbers.
    _reads: tuple[bool, ...] = field(init=False, repr=False)
    _draws: tuple[bool, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_reads", tuple((self.table[:, 4] != 0).tolist()))
        object.__setattr__(self, "_draws", tuple((self.table[:, 5] != 0).tolist()))

    def __len__(self) -> int:
        return len(self._reads)

    def reads_memory(self, row: int) -> bool:
        """True where this row uses what the row before returned."""
        return 0 <= row < len(self) and self._reads[row]

    def adds_noise(self, row: int) -> bool:
        """True where this row draws noise."""
        return self._draws[row]


@dataclass(frozen=True)
class _Path:
    """Points x = alpha clean + sigma noise that the sampler visits; the last one is where it ends."""

    alpha: Floats  # [S + 1]
    sigma: Floats  # [S + 1]
    times: Floats  # [S]


def schedule(
    kind: str,
    steps: int | Sequence[float],
    *,
    prediction: str | None = None,
    noise: str | Sequence[float] | Floats | None = None,
    spacing: str = "leading",
    train_steps: int = 1000,
    final: str = "clean",
    eta: float = 0.0,
    variance: str = "small",
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
    sigma_data: float = 0.5,
    shift: float = 1.0,
) -> Schedule:
    """Lay out a sampler's steps.

    Args:
        kind: "ddpm", "ddim", "dpmpp2m", "dpmpp2m_sde", "euler", "heun" (EDM), "flow_euler" or "flow_heun".
        steps: Number of steps, or the falling times themselves: training steps for the variance-preserving noises,
            sigmas for "karras", t for "flow".
        prediction: What the model returns: "epsilon", "v", "x0", "flow" (noise - clean) or "edm" (the raw network of
            EDM's preconditioning); None takes what suits the kind.
        noise: "linear", "scaled_linear", "cosine" or the cumulative alphas `[train_steps]` of a variance-preserving
            model; "karras" (variance exploding) or "flow" (x = (1 - t) clean + t noise); None takes the kind's own.
        spacing: "leading", "trailing" or "linspace": how a number of steps spreads over the training steps.
        train_steps: Length of the training chain.
        final: Where a variance-preserving sampler ends: "clean" (no noise left) or "first" (the first training step).
        eta: For "ddim": 0 is deterministic, 1 adds the noise of DDPM.
        variance: For "ddpm": "small" (of the posterior) or "large" (beta).
        sigma_min: Smallest sigma of "karras".
        sigma_max: Largest sigma of "karras".
        rho: Curvature of "karras".
        sigma_data: Standard deviation of the data, for "edm".
        shift: For "flow": t becomes shift t / (1 + (shift - 1) t).

    Returns:
        The schedule; "heun" and "flow_heun" have two rows per step but the last.

    Raises:
        DataError: An argument does not fit.

    Reference:
        DDPM arXiv:2006.11239; DDIM arXiv:2010.02502; DPM-Solver++ arXiv:2211.01095; EDM arXiv:2206.00364;
        rectified flow arXiv:2209.03003
    """
    if kind not in KINDS:
        raise _refusal(f"kind is {kind!r}; choose one of {', '.join(KINDS)}")
    default_noise, remembers = KINDS[kind]
    noise = default_noise if noise is None else noise
    family = noise if isinstance(noise, str) and noise in ("karras", "flow") else "variance preserving"
    prediction = prediction or {"karras": "edm", "flow": "flow"}.get(family, "epsilon")
    if prediction not in PREDICTIONS:
        raise _refusal(f"prediction is {prediction!r}; choose one of {', '.join(PREDICTIONS)}")
    if prediction == "edm" and family != "karras":
        raise _refusal('prediction "edm" belongs to noise "karras"; choose another prediction')
    if kind in ("ddpm", "ddim") and family != "variance preserving":
        raise _refusal(f"{kind} runs on variance-preserving noise, not on {noise!r}; choose dpmpp2m or an Euler kind")
    if default_noise in ("karras", "flow") and family != default_noise:
        raise _refusal(f'{kind} runs on noise "{default_noise}"; leave noise out')
    if eta < 0 or variance not in ("small", "large"):
        raise _refusal(f'eta is {eta} and variance {variance!r}; give eta of at least 0 and "small" or "large"')
    if family == "karras":
        path = _karras(steps, sigma_min, sigma_max, rho)
    elif family == "flow":
        path = _flow(steps, shift)
    else:
        path = _variance_preserving(steps, _cumulative_alphas(noise, train_steps), spacing, final)

    if kind in ("ddpm", "ddim"):
        points, updates = _ancestral(path, 1.0 if kind == "ddpm" else eta, kind == "ddpm" and variance == "large")
    elif remembers == "x0":
        points, updates = _multistep(path, stochastic=kind == "dpmpp2m_sde")
    else:
        points, updates = _straight(path, second_order=remembers == "x")
    alpha, sigma = path.alpha[points], path.sigma[points]
    if prediction == "epsilon" and np.any(alpha == 0):
        raise _refusal("a step has no signal at all, where epsilon says nothing; let the model predict v, x0 or flow")
    table = np.concatenate([_clean_image(prediction, alpha, sigma, sigma_data), updates], axis=1)
    input_scale, init_scale = np.ones(len(table)), 1.0
    if family == "karras":
        input_scale = 1 / np.sqrt(sigma**2 + (sigma_data**2 if prediction == "edm" else 1))
        init_scale = float(sigma[0])
    return Schedule(kind, prediction, table, path.times[points], input_scale, init_scale, remembers)


def _refusal(sentence: str) -> DataError:
    return DataError(f"ops.schedule: {sentence}")


def _falling(times: Floats, what: str, least: float, most: float) -> Floats:
    """Check given or computed times."""
    if times.ndim != 1 or len(times) == 0 or not np.all(np.isfinite(times)):
        raise _refusal(f"steps must be a positive number or finite {what}")
    if np.any(np.diff(times) >= 0) or times[0] > most or times[-1] < least:
        raise _refusal(f"{what} must fall strictly within {least:g}..{most:g}, got {times[:4].tolist()}…")
    return times


def _count(steps: int | Sequence[float], most: float = np.inf) -> int | None:
    """The number of steps, or None where the times are given."""
    if not isinstance(steps, (int, np.integer)):
        return None
    if not 1 <= steps <= most:
        raise _refusal(f"steps is {steps}; give 1..{most:g}")
    return int(steps)


def _cumulative_alphas(noise: str | Sequence[float] | Floats, train_steps: int) -> Floats:
    """`[train_steps]`: squared share of the clean image after each training step."""
    if not isinstance(noise, str):
        given = np.asarray(noise, np.float64)
        if given.ndim != 1 or len(given) == 0 or np.any(given < 0) or np.any(given > 1) or np.any(np.diff(given) >= 0):
            raise _refusal("noise must be cumulative alphas that fall strictly within 0..1")
        return given
    if noise == "linear":
        betas = np.linspace(1e-4, 0.02, train_steps)
    elif noise == "scaled_linear":
        betas = np.linspace(0.00085**0.5, 0.012**0.5, train_steps) ** 2
    elif noise == "cosine":  # Nichol & Dhariwal 2021, arXiv:2102.09672, equation 17
        share = np.cos((np.arange(train_steps + 1) / train_steps + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - share[1:] / share[:-1], 0.999)
    else:
        names = ", ".join((*VARIANCE_PRESERVING, "karras", "flow"))
        raise _refusal(f"noise is {noise!r}; choose one of {names}, or give the cumulative alphas")
    return np.asarray(np.cumprod(1 - betas), np.float64)


def _variance_preserving(steps: int | Sequence[float], share: Floats, spacing: str, final: str) -> _Path:
    length = len(share)
    count = _count(steps, length)
    if count is None:
        chosen = np.asarray(steps)
    elif spacing == "leading":
        chosen = (np.arange(count) * (length // count))[::-1]
    elif spacing == "trailing":
        chosen = np.round(np.arange(length, 0, -length / count))[:count] - 1
    elif spacing == "linspace":
        chosen = np.round(np.linspace(0, length - 1, count))[::-1]
    else:
        raise _refusal(f'spacing is {spacing!r}; choose "leading", "trailing" or "linspace"')
    if final not in ("clean", "first"):
        raise _refusal(f'final is {final!r}; choose "clean" or "first"')
    times = _falling(np.asarray(chosen, np.float64), "training steps", 0, length - 1)
    if np.any(times != np.round(times)):
        raise _refusal("training steps must be whole numbers")
    visited = np.append(share[times.astype(int)], 1.0 if final == "clean" else share[0])
    return _Path(np.sqrt(visited), np.sqrt(1 - visited), times)


def _karras(steps: int | Sequence[float], sigma_min: float, sigma_max: float, rho: float) -> _Path:
    """Karras et al. 2022, arXiv:2206.00364, equation 5."""
    count = _count(steps)
    if count is None:
        sigmas = np.asarray(steps, np.float64)
    else:
        if not (0 < sigma_min < sigma_max and rho > 0):
            raise _refusal(f"sigma_min {sigma_min}, sigma_max {sigma_max} and rho {rho} must be positive and rising")
        ends = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
        sigmas = np.linspace(*ends, count) ** rho
    sigmas = _falling(sigmas, "sigmas", np.nextafter(0, 1), np.inf)
    return _Path(np.ones(len(sigmas) + 1), np.append(sigmas, 0.0), sigmas)


def _flow(steps: int | Sequence[float], shift: float) -> _Path:
    count = _count(steps)
    if shift <= 0:
        raise _refusal(f"shift is {shift}; give a number above zero")
    times = np.asarray(steps, np.float64) if count is None else np.linspace(1, 0, count + 1)[:-1]
    times = shift * times / (1 + (shift - 1) * times)
    times = _falling(times, "t", np.nextafter(0, 1), 1)
    ends = np.append(times, 0.0)
    return _Path(1 - ends, ends, times)


def _clean_image(prediction: str, alpha: Floats, sigma: Floats, sigma_data: float) -> Floats:
    """`[rows, 2]`: kx and km, the clean image from x = alpha clean + sigma noise and the model's output."""
    if prediction == "epsilon":
        pair = 1 / alpha, -sigma / alpha
    elif prediction == "v":  # of the variance-preserving x / norm
        norm = np.hypot(alpha, sigma)
        pair = alpha / norm**2, -sigma / norm
    elif prediction == "x0":
        pair = np.zeros_like(alpha), np.ones_like(alpha)
    elif prediction == "flow":
        pair = 1 / (alpha + sigma), -sigma / (alpha + sigma)
    else:  # c_skip and c_out of EDM, table 1
        variance = sigma**2 + sigma_data**2
        pair = sigma_data**2 / variance, sigma * sigma_data / np.sqrt(variance)
    return np.stack(pair, axis=1)


def _ancestral(path: _Path, eta: float, large: bool) -> tuple[NDArray[np.intp], Floats]:
    """DDIM, equation 12; with eta 1 its mean is that of the DDPM posterior."""
    alpha, after, sigma, sigma_after = path.alpha[:-1], path.alpha[1:], path.sigma[:-1], path.sigma[1:]
    beta = 1 - (alpha / after) ** 2
    noise = eta * sigma_after / sigma * np.sqrt(beta)
    kept = np.sqrt(np.maximum(sigma_after**2 - noise**2, 0)) / sigma  # of the noise that x holds
    if large:
        noise = np.where(sigma_after > 0, np.sqrt(beta), 0)
    return np.arange(len(alpha)), np.stack([kept, after - kept * alpha, np.zeros_like(alpha), noise], axis=1)


def _multistep(path: _Path, stochastic: bool) -> tuple[NDArray[np.intp], Floats]:
    """DPM-Solver++(2M), algorithm 2, and its SDE form; first order where there is no step before, and at the end."""
    alpha, after, sigma, sigma_after = path.alpha[:-1], path.alpha[1:], path.sigma[:-1], path.sigma[1:]
    shrink = alpha * sigma_after / (after * sigma)  # exp(-h), h the step in log(alpha / sigma)
    with np.errstate(divide="ignore"):
        h = -np.log(shrink)
    count = len(h)
    weight = np.zeros(count)
    weight[1:] = h[1:] / (2 * h[:-1])
    if sigma_after[-1] == 0 or count < 15:  # the last of few steps is too long for an extrapolation
        weight[-1] = 0
    if stochastic:
        of_x, of_clean = sigma_after / sigma * shrink, after * (1 - shrink**2)
        noise = sigma_after * np.sqrt(1 - shrink**2)
    else:
        of_x, of_clean, noise = sigma_after / sigma, after * (1 - shrink), np.zeros(count)
    return np.arange(count), np.stack([of_x, of_clean * (1 + weight), -of_clean * weight, noise], axis=1)


def _straight(path: _Path, second_order: bool) -> tuple[NDArray[np.intp], Floats]:
    """Euler along (x - clean) / sigma; with the trapezoid rule behind it for Heun (EDM, algorithm 1)."""
    points, rows = [], []
    for i, (sigma, after) in enumerate(zip(path.sigma[:-1], path.sigma[1:], strict=True)):
        points.append(i)
        rows.append([after / sigma, 1 - after / sigma, 0.0, 0.0])
        if second_order and after > 0:
            half = (after - sigma) / (2 * after)
            points.append(i + 1)
            rows.append([0.5 + half, -half, 0.5, 0.0])
    return np.array(points), np.array(rows)
