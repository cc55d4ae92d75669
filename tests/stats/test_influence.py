"""Influences of patients against finite differences, and score intervals against the equation that they solve."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from medtrust.stats import frechet_distance, frechet_interval, kid_interval
from medtrust.stats.influence import dominance, effective_dof, frechet_influence, jackknife_influence
from medtrust.stats.intervals import score_ends
from medtrust.stats.resampling import jackknife_se


def rows(seed: int, n: int, d: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, d)))


def moments(x: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted mean, and weighted rows with which `XᵀX` is the covariance under divisor Σw (n - 1)/n."""
    mean = weights @ x / weights.sum()
    scale = weights / weights.sum() * len(x) / (len(x) - 1)
    return mean, (x - mean) * scale.sqrt()[:, None]


@pytest.mark.parametrize(("n", "m", "d"), [(40, 31, 4), (9, 12, 20), (25, 25, 1)])
def test_influence_is_the_derivative_by_the_weight_of_a_patient(n: int, m: int, d: int) -> None:
    """A little more weight on one patient moves the distance by as much as its influence says, n < d included."""
    a, b = rows(n, n, d) * torch.linspace(0.5, 2, d, dtype=torch.float64), rows(m + 99, m, d) + 0.3
    patients = [i // 2 for i in range(n)]
    found = frechet_influence(a, b, patients, None)
    count, step = len(found[0]), 1e-5
    mean_b, root_b = moments(b, torch.ones(m, dtype=torch.float64))

    def moved(patient: int, by: float) -> float:
        weights = torch.ones(n, dtype=torch.float64)
        weights[[i for i in range(n) if patients[i] == patient]] += by
        mean, root = moments(a, weights)
        traces = root.square().sum() + root_b.square().sum()
        return float((mean - mean_b).square().sum() + traces - 2 * torch.linalg.svdvals(root @ root_b.T).sum())

    for patient in range(count):
        slope = (moved(patient, step) - moved(patient, -step)) / (2 * step)
        assert float(found[0][patient]) == pytest.approx(slope * math.sqrt(count / (count - 1)), rel=1e-4, abs=1e-6)


def test_influences_sum_up_to_the_variance_of_the_distance() -> None:
    """Between distant populations the first order is all: its standard error is the scatter of the distance."""
    draws = [(rows(2 * s, 80, 3), 2 * rows(2 * s + 1, 80, 3) + 1.5) for s in range(300)]
    scatter = float(np.std([frechet_distance(a, b) for a, b in draws]))
    errors = [math.sqrt(sum(float(i.square().sum()) for i in frechet_influence(a, b))) for a, b in draws[:60]]
    assert float(np.mean(errors)) == pytest.approx(scatter, rel=0.2)  # 300 draws know a scatter to 4 %, 12 % at three σ


def test_jackknife_influences_have_the_jackknife_error() -> None:
    """The squares of the influences sum up to the variance that `jackknife_se` gives."""
    left_out = rows(5, 17, 1)[:, 0]
    assert float(jackknife_influence(left_out).square().sum()) == pytest.approx(jackknife_se(left_out) ** 2)


def test_effective_dof() -> None:
    """One patient who is all of it leaves two, Gaussians nearly all, equal ones all."""
    alone = torch.zeros(100, dtype=torch.float64)
    alone[3] = 7.0
    assert effective_dof(alone) == pytest.approx(2 / (1 - 1 / 100))
    assert effective_dof(rows(1, 4000, 1)[:, 0]) == pytest.approx(4000, rel=0.15)
    assert effective_dof(torch.ones(10), -torch.ones(20)) == 28
    assert effective_dof(torch.zeros(10)) == 9
    assert dominance(alone) == 1
    assert dominance(torch.zeros(5)) == 0
    assert dominance(torch.ones(150), torch.ones(50)) == pytest.approx(0.01)


@pytest.mark.parametrize("value", [-0.4, 0.0, 3.0, 1e4])
def test_score_ends_solve_their_equation(value: float) -> None:
    """At either end the distance from the estimate is t standard errors of that end, and the estimate is between."""
    se, bias, t = 0.7, 0.5, 2.1
    for end in score_ends(value, se, bias, t):
        assert (end - value) ** 2 == pytest.approx(t**2 * se**2 * (end + bias) / (value + bias))
    lo, hi = score_ends(value, se, bias, t)
    assert -bias <= lo <= value <= hi
    assert hi - value >= value - lo


def test_score_ends_without_a_plug_in_above_zero_are_the_plain_ones() -> None:
    """Constant features, or an estimate above its plug-in, leave nothing to scale the error by."""
    assert score_ends(0.0, 0.0, 0.0, 2.0) == (0.0, 0.0)
    assert score_ends(1.0, 0.5, -0.1, 2.0) == (0.0, 2.0)


def test_one_outlier_widens_both_intervals_and_is_named() -> None:
    """A patient far from all others takes the degrees of freedom, and the share of the variance shows it."""
    a, b = rows(1, 200, 4), rows(2, 200, 4)
    calm = [frechet_interval(a, b), kid_interval(a, b)]
    a[0] *= 40
    wild = [frechet_interval(a, b), kid_interval(a, b)]
    for before, after in zip(calm, wild, strict=True):
        assert after.dominance is not None
        assert before.dominance is not None
        assert before.dominance < 0.4 < 0.6 < after.dominance
        assert after.dof < 10 < before.dof
