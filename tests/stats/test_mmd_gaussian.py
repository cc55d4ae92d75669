"""The Gaussian and linear kernel distances: definitions written out, bandwidth, patients, refusals, coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from medtrust import Insufficient, ops
from medtrust.stats import gaussian, linear, median_distance, mmd_interval, mmd_rbf


def normal(seed: int, n: int, d: int = 5) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, d)))


def kernel(x: torch.Tensor, y: torch.Tensor, width: float) -> torch.Tensor:
    return torch.exp(-((x[:, None] - y[None]) ** 2).sum(2) / (2 * width**2))


@pytest.mark.parametrize("width", [0.3, 2.0, 50.0])
def test_it_is_what_gretton_and_cmmd_define(width: float) -> None:
    """Unbiased: off-diagonal means; CMMD: all pairs, times 1000; the native kernel agrees."""
    a, b = normal(1, 31), normal(2, 23) + 0.5
    aa, bb, ab = kernel(a, a, width), kernel(b, b, width), kernel(a, b, width)
    n, m = len(a), len(b)
    unbiased = (aa.sum() - n) / (n * (n - 1)) + (bb.sum() - m) / (m * (m - 1)) - 2 * ab.mean()
    assert mmd_rbf(a, b, bandwidth=width) == pytest.approx(float(unbiased), abs=1e-12)
    assert mmd_rbf(a, b, bandwidth=width) == pytest.approx(ops.mmd(a, b, "rbf", width), abs=1e-9)
    biased = 1000 * (aa.mean() + bb.mean() - 2 * ab.mean())
    assert mmd_rbf(a, b, bandwidth=width, convention="cmmd") == pytest.approx(float(biased), abs=1e-8)
    assert mmd_rbf(a, a, bandwidth=width, convention="cmmd") == pytest.approx(0, abs=1e-8)


def test_the_linear_kernel_is_the_squared_difference_of_means_without_its_bias() -> None:
    """Over many draws the mean is ‖δ‖²/d."""
    found = [mmd_interval(normal(2 * s, 30), normal(2 * s + 1, 30) + 0.7, kernel=linear).value for s in range(80)]
    assert np.mean(found) == pytest.approx(0.49, abs=4 * np.std(found) / math.sqrt(80))


@pytest.mark.parametrize("per_patient", [1, 3])
def test_the_intervals_cover(per_patient: int) -> None:
    """A 95 % interval holds the population's value, here of a Gaussian kernel between two Gaussians."""
    d, width, shift, hits = 5, 2.0, 0.6, []

    def expected(squared_shift: float) -> float:
        spread = width**2 + 2.0  # variance of the difference of two standard normals is 2
        return float((width**2 / spread) ** (d / 2) * math.exp(-squared_shift / (2 * spread)))

    truth = 2 * expected(0) - 2 * expected(d * shift**2)
    for seed in range(80):
        between = normal(seed, 40).repeat_interleave(per_patient, 0)
        share = 0.7 if per_patient > 1 else 1.0
        a = share**0.5 * between + (1 - share) ** 0.5 * normal(seed + 500, 40 * per_patient)
        patients = [i // per_patient for i in range(len(a))]
        found = mmd_interval(a, normal(seed + 900, 40) + shift, patients, None, kernel=gaussian(width))
        hits.append(found.interval.lo <= truth <= found.interval.hi)
    assert np.mean(hits) >= 0.86


def test_the_bandwidth_is_the_median_between_patients() -> None:
    """Copies within a patient do not count; constant features and one patient are refused."""
    x = normal(3, 40)
    expected = float(torch.pdist(x).median())
    assert median_distance(x) == pytest.approx(expected, rel=0.02)
    assert median_distance(x.repeat_interleave(5, 0), [i // 5 for i in range(200)]) == pytest.approx(expected, rel=0.02)
    assert median_distance(x, most=20, seed=1) == median_distance(x, most=20, seed=1)
    with pytest.raises(Insufficient, match="no bandwidth can be chosen"):
        median_distance(torch.ones(9, 3))
    with pytest.raises(Insufficient, match="2 patients"):
        median_distance(x, ["a"] * 40)
    for width in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="above 0"):
            gaussian(width)
    with pytest.raises(ValueError, match="convention 'clip' is unknown"):
        mmd_rbf(x, x, convention="clip")  # type: ignore[arg-type]
