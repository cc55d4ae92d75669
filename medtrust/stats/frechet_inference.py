"""The Fréchet distance of the populations that two sets of features are drawn from, with an interval."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from medtrust.errors import Insufficient
from medtrust.stats.frechet import Factored, frechet_distance
from medtrust.stats.influence import dominance, frechet_influence, known_error
from medtrust.stats.intervals import score_ends, t_quantile
from medtrust.stats.resampling import Inference, Patients, groups, half_sampling
from medtrust.types import Interval

__all__ = ["FrechetInference", "frechet_interval"]

_PROJECTED = 512  # widest space in which the distance is resampled
_RANK_TOLERANCE = 1e-12  # share of the largest eigenvalue below which a direction carries only rounding


@dataclass(frozen=True, slots=True)
class FrechetInference(Inference):
    """The population's Fréchet distance.

    Args:
        extrapolated: True where the bias could be removed; otherwise `value` is the plug-in and the interval a
            bracket, from a bias-corrected projection below it to the plug-in, which is biased upwards.
        rank: Directions in which the pooled features vary.
        projected: Directions kept for the resampling.
    """

    extrapolated: bool
    rank: int
    projected: int


def frechet_interval(
    a: torch.Tensor,
    b: torch.Tensor,
    patients_a: Patients = None,
    patients_b: Patients = None,
    *,
    level: float = 0.95,
    seed: int = 0,
    splits: int = 24,
) -> FrechetInference:
    """Estimate the population's Fréchet distance, with an interval.

    The plug-in distance is biased upwards by about c/n. Where both sets have at least twice as many patients as the
    features have directions, the bias is removed by Richardson extrapolation over random halves of the patients,
    2·FD(n) - FD(n/2). The standard error is the larger of that from complementary halves and that of the patients'
    influences, whose fourth moments say how well it is known (degrees of freedom of t); the interval is a score
    interval, see `score_ends`. With fewer patients the bias does not go like 1/n and cannot be removed; then the
    interval is a bracket: its lower end comes from the same extrapolation after projection on the leading pooled
    principal directions, which can only shorten the distance, its upper end from the plug-in. The percentile bootstrap
    is not offered: repeated rows add bias of their own, and it misses the truth nearly always.

    Args:
        a: Features [n, d], n ≥ 4.
        b: Features [m, d], m ≥ 4.
        patients_a: Patient of each row of a; None where each row is its own.
        patients_b: Likewise of b.
        level: Confidence level.
        seed: Seed of the splits.
        splits: Number of random splits; the degrees of freedom of t are fewer.

    Raises:
        Insufficient: Fewer than four patients in a set, or a half with fewer than two rows.

    Reference:
        Bińkowski et al. 2018, arXiv:1801.01401 (the bias); Chong and Forsyth 2020, arXiv:1911.07023 (extrapolation).
    """
    a, b = a.double(), b.double()
    plug_in = frechet_distance(a, b)
    units = min(groups(patients_a, len(a))[1], groups(patients_b, len(b))[1])
    if units < 4:
        raise Insufficient(f"needs 4 patients in each set for an interval of the Fréchet distance, a set has {units}")
    directions = _pooled_directions(a, b)
    rank = directions.shape[1]
    extrapolated = rank <= min(units // 2, _PROJECTED)
    if extrapolated:
        directions = _beyond(directions, a.mean(0) - b.mean(0))
    else:
        # The gap of the means is left out of the ranking: chosen by its own noise, it could not be corrected for it.
        directions = directions[:, : min(max(1, units // 4), _PROJECTED)]
    x, y = a @ directions, b @ directions

    def on_rows(i: torch.Tensor, j: torch.Tensor) -> tuple[float]:
        return (frechet_distance(x[i], y[j]),)

    halved, error = half_sampling(on_rows, patients_a, patients_b, (len(a), len(b)), splits=splits, seed=seed)
    influences = frechet_influence(x, y, patients_a, patients_b)
    projected, se, dof = frechet_distance(x, y), float(error[0]), float(splits)
    corrected = 2 * projected - float(halved[0])
    if extrapolated:
        se, dof = known_error(se, splits, *influences)
        value, method = max(0.0, corrected), "Richardson extrapolation, delete-half and influence, score t"
        lo, hi = score_ends(corrected, se, projected - corrected, t_quantile(level, dof))
    else:
        value, method = plug_in, "projection-to-plug-in bracket, delete-half t"
        reach = t_quantile(level, dof) * se
        lo, hi = corrected - reach, plug_in + reach
    return FrechetInference(
        value=value, plug_in=plug_in, se=se,
        interval=Interval(min(max(0.0, lo), value), max(hi, value), level, method, units), dof=dof,
        extrapolated=extrapolated, rank=rank, projected=directions.shape[1], dominance=dominance(*influences),
    )  # fmt: skip


def _pooled_directions(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Orthonormal directions [d, r] in which the sets vary about their own means, widest first."""
    stacked = torch.cat([Factored.of(a).root, Factored.of(b).root])
    wide = len(stacked) < stacked.shape[1]
    values, vectors = torch.linalg.eigh(stacked @ stacked.T if wide else stacked.T @ stacked)
    kept = (values > values[-1] * _RANK_TOLERANCE) & (values > 0)
    values, vectors = values[kept].flip(0), vectors[:, kept].flip(1)
    directions: torch.Tensor = stacked.T @ vectors / values.sqrt() if wide else vectors
    return directions


def _beyond(directions: torch.Tensor, gap: torch.Tensor) -> torch.Tensor:
    """Add the part of the gap between the means [d] along which neither set varies, where there is one."""
    rest = gap - directions @ (directions.T @ gap)
    norm = rest.norm()
    return torch.cat([directions, rest[:, None] / norm], dim=1) if norm > 1e-9 * gap.norm() else directions
