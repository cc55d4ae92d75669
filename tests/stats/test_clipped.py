"""Clipped density and coverage: the definition row by row, linear decline, outliers, patients, refusals, coverage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import betaln, comb

from medtrust import Insufficient
from medtrust.stats import clipped, clipped_interval


def normal(seed: int, n: int, d: int = 8) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, d)))


def by_definition(real: np.ndarray, synthetic: np.ndarray, k: int) -> tuple[float, float]:
    """The two shares from full distance matrices, as equations 2 to 6 of the paper say."""
    among = np.linalg.norm(real[:, None] - real[None], axis=2)
    across = np.linalg.norm(real[:, None] - synthetic[None], axis=2)
    np.fill_diagonal(among, np.inf)
    radius = np.sort(among, axis=1)[:, k - 1]
    short = np.minimum(radius, np.median(radius))
    density = np.minimum((across <= short[:, None]).sum(0) / k, 1).mean()
    ideal = np.minimum((among <= short[:, None]).sum(0) / k, 1).mean()
    filled = np.minimum((across < radius[:, None]).sum(1) / k, 1).mean()
    n, m = len(real), len(synthetic)
    expected = np.zeros(m + 1)
    for good in range(k, m + 1):
        j = np.arange(good + 1)
        law = comb(good, j) * np.exp(betaln(k + j, n - k + good - j) - betaln(k, n - k))
        expected[good] = (np.minimum(j, k) / k * law).sum()
    return min(1.0, density / ideal), int(np.searchsorted(expected, filled)) / (m + 1)


@pytest.mark.parametrize(("n", "m", "k"), [(60, 60, 5), (61, 37, 3), (40, 90, 1)])
def test_it_is_what_the_paper_defines(n: int, m: int, k: int) -> None:
    """Both shares equal those of the distance matrices and of the beta-binomial sum written out."""
    real, synthetic = normal(n, n), 1.2 * normal(m, m) + 0.3
    found = clipped(real, synthetic, k=k)
    assert (found.density, found.coverage) == pytest.approx(by_definition(real.numpy(), synthetic.numpy(), k), abs=1e-9)


def test_it_falls_in_a_straight_line_with_the_share_of_bad_samples() -> None:
    """With a share b of samples far away both are near 1 - b, which plain coverage is not."""
    real, good, bad = normal(1, 800), normal(2, 800), normal(3, 800) + 40
    for share in (0.0, 0.25, 0.5, 0.75):
        cut = int(800 * share)
        found = clipped(real, torch.cat([bad[:cut], good[cut:]]))
        assert found.density == pytest.approx(1 - share, abs=0.08)
        assert found.coverage == pytest.approx(1 - share, abs=0.08)


def test_a_real_outlier_does_not_help_bad_samples() -> None:
    """Samples about a real outlier lie in its ball for precision, not for clipped density."""
    real = torch.cat([normal(4, 100), torch.full((1, 8), 60.0, dtype=torch.float64)])
    assert clipped(real, normal(5, 100) * 0.5 + 45).density == 0


def test_a_copied_train_set_is_ideal_and_a_collapsed_one_is_not() -> None:
    """Copies of all train images reach 1, copies of one of them cover next to nothing."""
    real = normal(6, 101)
    assert clipped(real, real.clone()).density == 1
    one = clipped(real, real[:1].repeat(101, 1))
    assert one.coverage < 0.15


def test_images_of_one_patient_are_no_neighbours() -> None:
    """Doubling every image of its patient shrinks no ball."""
    real, synthetic = normal(7, 60), normal(8, 60)
    twice = torch.cat([real, real + 1e-6])
    patients = [i % 60 for i in range(120)]
    assert clipped(twice, synthetic, patients, k=6).density > 0.5
    with pytest.raises(Insufficient, match="duplicates"):
        clipped(torch.cat([real, real]).repeat(3, 1), synthetic)


@pytest.mark.parametrize(
    ("real", "synthetic", "words"),
    [
        (normal(0, 5), normal(1, 20), "needs 5 neighbours"),
        (normal(0, 20), normal(1, 4), "needs 5 synthetic"),
        (torch.ones(20, 8), normal(1, 20), "most real images are identical"),
        (normal(0, 20), torch.full((20, 8), torch.nan), "not finite"),
    ],
)
def test_it_refuses_with_a_sentence(real: torch.Tensor, synthetic: torch.Tensor, words: str) -> None:
    """Too few rows, constant features and NaN are no number."""
    with pytest.raises(Insufficient, match=words):
        clipped(real, synthetic)
    with pytest.raises(ValueError, match="width 8 cannot be compared with features of width 3"):
        clipped(normal(0, 20), normal(1, 20, 3))


def test_the_intervals_cover_the_expectation() -> None:
    """At one sample size, a 95 % interval holds the mean over many draws about as often as it says."""
    found = [clipped_interval(normal(2 * s, 60), 0.8 * normal(2 * s + 1, 60) + 0.4, seed=s) for s in range(40)]
    for name in ("density", "coverage"):
        truth = float(np.mean([one[name].value for one in found]))
        assert np.mean([one[name].interval.lo <= truth <= one[name].interval.hi for one in found]) >= 0.85, name
