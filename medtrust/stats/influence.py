"""What each patient adds to the error of an estimate: its variance, how well that is known, and who dominates it."""

from __future__ import annotations

import math

import torch

from medtrust.stats.resampling import Patients, groups

__all__ = ["dominance", "effective_dof", "frechet_influence", "jackknife_influence", "known_error"]


def frechet_influence(
    a: torch.Tensor, b: torch.Tensor, patients_a: Patients = None, patients_b: Patients = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """First-order influence of each patient on the Fréchet distance; the squares sum up to its variance.

    With X the centred rows over √(n-1), the weight of row x moves tr Σ₁ by ‖X_x‖² and ‖R₁R₂ᵀ‖_* by half of the entry of
    (X₁Σ₂X₁ᵀ)^½ on the diagonal, which the factors give without an inverse: singular covariances are no exception.

    Args:
        a: Features [n, d] float64, n ≥ 2.
        b: Features [m, d] float64.
        patients_a: Patient of each row of a; None where each row is its own.
        patients_b: Likewise of b.

    Returns:
        Influences [N_a] and [N_b] in squared feature units, each with mean 0 over rows.

    Reference:
        Hampel 1974, doi:10.1080/01621459.1974.10482962 (influence and variance).
    """
    factors = [_centred(x) for x in (a, b)]
    gap = a.mean(0) - b.mean(0)
    found = []
    for x, own, other, sign, patients in (
        (a, factors[0], factors[1], 1, patients_a),
        (b, factors[1], factors[0], -1, patients_b),
    ):
        scaled, q, r = own
        left, sizes, _ = torch.linalg.svd(r @ other[2].T, full_matrices=False)
        of_row = scaled.square().sum(1) - (q @ left).square() @ sizes + 2 * sign * (x - x.mean(0)) @ gap / len(x)
        of_patient, count = groups(patients, len(x))
        sums = of_row.new_zeros(count).index_add_(0, of_patient.to(x.device), of_row - of_row.mean())
        found.append(sums * math.sqrt(count / max(1, count - 1)))
    return found[0], found[1]


def jackknife_influence(left_out: torch.Tensor) -> torch.Tensor:
    """Influence of each patient from the estimates [N] without it; the squares sum up to the jackknife's variance."""
    n = len(left_out)
    return math.sqrt((n - 1) / n) * (left_out.mean() - left_out)


def effective_dof(*influences: torch.Tensor) -> float:
    """Degrees of freedom of a variance that is a sum of squared influences, by its own sampling variance.

    2V²/Var(V), with Σi⁴ - (Σi²)²/N for the variance of a set's sum: 2 where one patient is all of it, N-1 or more where
    the influences are Gaussian.

    Args:
        influences: Per independent set, the influence of each patient, [N].

    Returns:
        At least 1, at most the number of patients less one per set.

    Reference:
        Satterthwaite 1946, doi:10.2307/3002019.
    """
    most = float(sum(len(one) - 1 for one in influences))
    variance = sum(float(one.square().sum()) for one in influences)
    spread = sum(float(one.pow(4).sum() - one.square().sum().square() / len(one)) for one in influences)
    return max(1.0, min(most, 2 * variance * variance / spread)) if spread > 0 else max(1.0, most)


def known_error(halved: float, splits: int, *influences: torch.Tensor) -> tuple[float, float]:
    """Standard error of an estimate, and how well it is known.

    Halves know the terms of second order, but vary with the splits; influences have neither. So the larger of both
    errors is taken, with the degrees of freedom that the splits and the fourth moments of the influences leave.

    Args:
        halved: Standard error from complementary halves.
        splits: Number of splits behind it.
        influences: Per independent set, the influence of each patient, [N].

    Returns:
        Standard error and degrees of freedom.
    """
    squares = sum(float(one.square().sum()) for one in influences)
    return max(halved, math.sqrt(squares)), 1 / (1 / splits + 1 / effective_dof(*influences))


def dominance(*influences: torch.Tensor) -> float:
    """Share of the variance that the most influential 1 % of the patients carry, at least one of them; 0 of none.

    Args:
        influences: Per independent set, the influence of each patient, [N].
    """
    squares = torch.cat(influences).square()
    total = float(squares.sum())
    return float(squares.topk(max(1, len(squares) // 100)).values.sum()) / total if total > 0 else 0.0


def _centred(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    scaled = (x - x.mean(0)) / math.sqrt(len(x) - 1)
    q, r = torch.linalg.qr(scaled)
    return scaled, q, r
