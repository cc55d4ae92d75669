"""Fréchet distance extrapolated to infinitely many samples."""

from __future__ import annotations

import torch

from medtrust.errors import Insufficient
from medtrust.stats.frechet import frechet_distance
from medtrust.stats.influence import dominance, frechet_influence, known_error
from medtrust.stats.intervals import score_ends, t_quantile
from medtrust.stats.resampling import Inference, Patients, groups, half_sampling, subsample
from medtrust.types import Interval

__all__ = ["fd_infinity", "fd_infinity_interval"]


def fd_infinity(
    a: torch.Tensor,
    b: torch.Tensor,
    patients_a: Patients = None,
    patients_b: Patients = None,
    *,
    seed: int = 0,
    points: int = 8,
    repeats: int = 2,
) -> float:
    """Fréchet distance extrapolated to infinitely many samples: the intercept of FD(N) on 1/N.

    Args:
        a: Features [n, d].
        b: Features [m, d].
        patients_a: Patient of each row of a; None where each row is its own.
        patients_b: Likewise of b.
        seed: Seed of the subsets.
        points: Subset shares, equally spaced in 1/N from a half to all.
        repeats: Subsets per share.

    Returns:
        The intercept; below 0 where the sets are closer than chance.

    Raises:
        Insufficient: Fewer than four rows in a set.

    Reference:
        Chong and Forsyth 2020, arXiv:1911.07023.
    """
    a, b = a.double(), b.double()
    if min(len(a), len(b)) < 4:
        raise Insufficient(f"needs 4 samples in each set to extrapolate, a set has {min(len(a), len(b))}")
    inverse = torch.linspace(1, 2, points, dtype=torch.float64).repeat_interleave(repeats)
    distances = []
    for step, size in enumerate(inverse.tolist()):
        i = subsample(patients_a, max(2, round(len(a) / size)), len(a), seed + 2 * step)
        j = subsample(patients_b, max(2, round(len(b) / size)), len(b), seed + 2 * step + 1)
        distances.append(frechet_distance(a[i], b[j]))
    design = torch.stack([torch.ones_like(inverse), inverse], dim=1)
    return float(torch.linalg.lstsq(design, torch.tensor(distances, dtype=torch.float64)[:, None]).solution[0])


def fd_infinity_interval(
    a: torch.Tensor,
    b: torch.Tensor,
    patients_a: Patients = None,
    patients_b: Patients = None,
    *,
    level: float = 0.95,
    seed: int = 0,
    splits: int = 16,
) -> Inference:
    """Estimate FD∞ with a score interval, see `score_ends`.

    The halves of the patients are extrapolated too, so that the noise of the extrapolation is part of the error, which
    is never less than that of the patients' influences.

    Args:
        a: Features [n, d].
        b: Features [m, d].
        patients_a: Patient of each row of a; None where each row is its own.
        patients_b: Likewise of b.
        level: Confidence level.
        seed: Seed of the subsets and splits.
        splits: Number of splits; the degrees of freedom of t are fewer.

    Returns:
        `value` is the intercept, at least 0, below which no distance lies; `plug_in` the distance of all data.

    Raises:
        Insufficient: A set has fewer than four times as many patients as the features have directions: FD is then not
            linear in 1/N, in the halves at least, and its intercept is not the population's distance.
    """
    a, b = a.double(), b.double()
    units = min(groups(patients_a, len(a))[1], groups(patients_b, len(b))[1])
    rank = int(torch.linalg.matrix_rank(torch.cat([a - a.mean(0), b - b.mean(0)])))
    least = max(16, 4 * rank)
    if units < least:
        raise Insufficient(
            f"FD∞ needs {least} patients in each set, four for each of the {rank} directions of the features; a set "
            f"has {units}, and with fewer the distance is not linear in 1/N: use fd, which brackets it"
        )

    def on_rows(i: torch.Tensor, j: torch.Tensor) -> tuple[float]:
        of_a = None if patients_a is None else [patients_a[k] for k in i.tolist()]
        of_b = None if patients_b is None else [patients_b[k] for k in j.tolist()]
        return (fd_infinity(a[i], b[j], of_a, of_b, seed=seed, points=5, repeats=1),)

    whole = fd_infinity(a, b, patients_a, patients_b, seed=seed)
    _, error = half_sampling(on_rows, patients_a, patients_b, (len(a), len(b)), splits=splits, seed=seed)
    influences = frechet_influence(a, b, patients_a, patients_b)
    se, dof = known_error(float(error[0]), splits, *influences)
    value, plug_in = max(0.0, whole), frechet_distance(a, b)
    lo, hi = score_ends(whole, se, plug_in - whole, t_quantile(level, dof))
    interval = Interval(
        min(max(0.0, lo), value), max(value, hi), level, "intercept on 1/N, delete-half and influence, score t", units
    )
    return Inference(
        value=value, plug_in=plug_in, se=se, interval=interval, dof=dof, dominance=dominance(*influences)
    )  # fmt: skip
