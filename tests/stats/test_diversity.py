"""Vendi and Inception Score: closed forms, patients, refusals, and intervals for the expectation at one size."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from medtrust import Insufficient
from medtrust.stats import inception_score, inception_score_interval, vendi_interval, vendi_score


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def test_vendi_counts_what_is_different() -> None:
    """Alike rows count once, orthogonal ones each, c groups of equal size c times; length does not matter."""
    assert vendi_score(torch.ones(7, 3)) == pytest.approx(1, abs=1e-9)
    assert vendi_score(torch.eye(5) * torch.arange(1, 6)[:, None]) == pytest.approx(5, rel=1e-9)
    assert vendi_score(torch.eye(4).repeat(9, 1)) == pytest.approx(4, rel=1e-9)
    assert vendi_score(torch.zeros(6, 2)) == pytest.approx(1)
    with_zero = torch.cat([torch.zeros(3, 2), torch.tensor([[1.0, 0.0]]).repeat(3, 1)])
    assert vendi_score(with_zero) == pytest.approx(2)


@pytest.mark.parametrize(("n", "d"), [(9, 40), (40, 9), (1, 3)])
def test_vendi_is_the_same_from_rows_and_from_columns(n: int, d: int) -> None:
    """The smaller of the two Gram matrices has the same eigenvalues."""
    x = torch.nn.functional.normalize(normal(1, n, d), dim=1)
    shares = torch.linalg.eigvalsh(x @ x.T / n).clamp_min(1e-300)
    assert vendi_score(x) == pytest.approx(math.exp(float(-(shares * shares.log()).sum())), rel=1e-9)


def test_inception_score_of_known_probabilities() -> None:
    """Sure and even classes give their number, equal rows give 1."""
    assert inception_score(1e3 * torch.eye(6).repeat(5, 1)) == pytest.approx(6, rel=1e-9)
    assert inception_score(torch.randn(1, 8).repeat(20, 1)) == pytest.approx(1, abs=1e-9)
    p = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
    marginal = p.mean(0)
    divergence = float((p * (p / marginal).log()).sum(1).mean())
    assert inception_score(p.log() + 3) == pytest.approx(math.exp(divergence), rel=1e-12)


def test_scores_refuse_with_a_sentence() -> None:
    """No finite features, more splits than images, fewer than four patients."""
    for score in (vendi_score, inception_score):
        with pytest.raises(Insufficient, match="not finite"):
            score(torch.tensor([[1.0, math.nan]]))
        with pytest.raises(Insufficient, match="empty"):
            score(torch.zeros(0, 3))
    with pytest.raises(Insufficient, match="10 images for 10 splits"):
        inception_score(torch.zeros(9, 3), splits=10)
    for interval in (vendi_interval, inception_score_interval):
        with pytest.raises(Insufficient, match="4 patients"):
            interval(normal(0, 12, 3), ["a", "b", "c"] * 4)


@pytest.mark.parametrize("score", [vendi_interval, inception_score_interval])
@pytest.mark.parametrize("per_patient", [1, 3])
def test_the_interval_covers_the_expectation(score, per_patient: int) -> None:
    """A 95 % interval holds the mean over many draws of the same size about as often as it says."""
    found = []
    for seed in range(60):
        between = normal(seed, 40, 8).repeat_interleave(per_patient, 0)
        x = 1.5 * (between + 0.5 * normal(seed + 1000, 40 * per_patient, 8))
        patients = [i // per_patient for i in range(len(x))]
        found.append(score(x, patients, seed=seed))
    truth = float(np.mean([one.value for one in found]))
    assert np.mean([one.interval.lo <= truth <= one.interval.hi for one in found]) >= 0.86
    assert all(1 <= one.interval.lo <= one.value <= one.interval.hi for one in found)
