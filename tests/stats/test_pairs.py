"""Pairs of different patients, and the error of a mean over them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medtrust.errors import Insufficient
from medtrust.stats import pair_mean, patient_pairs


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("pairs", [10, 500])
def test_pairs_are_of_different_patients_and_balanced(seed: int, pairs: int) -> None:
    """No pair is of one patient, and every patient drawn takes part equally often."""
    patients = [f"p{i}" for i in np.random.default_rng(seed).integers(0, 40, 151)]
    first, second = patient_pairs(patients, 151, pairs, seed)
    names = [(patients[i], patients[j]) for i, j in zip(first.tolist(), second.tolist(), strict=True)]
    assert all(a != b for a, b in names)
    taken = [name for pair in names for name in pair]
    assert len({taken.count(name) for name in taken}) == 1
    again = patient_pairs(patients, 151, pairs, seed)
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])


def test_three_patients_give_three_pairs_and_two_are_refused() -> None:
    """The smallest circle has three patients."""
    first, second = patient_pairs(None, 3, 100, 0)
    assert sorted(tuple(sorted(p)) for p in zip(first.tolist(), second.tolist(), strict=True)) == [
        (0, 1),
        (0, 2),
        (1, 2),
    ]
    with pytest.raises(Insufficient, match="3 patients"):
        patient_pairs(["a", "b", "a"], 3, 10, 0)


def test_interval_of_a_pair_mean_covers() -> None:
    """For a product kernel with a known mean, two standard errors hold the truth about 19 times in 20."""
    hits = []
    for seed in range(300):
        x = torch.from_numpy(np.random.default_rng(seed).normal(1, 1, 60))
        first, second = patient_pairs(None, 60, 240, seed)
        mean, se, units = pair_mean(x[first] * x[second], first, second)
        assert units == 60
        hits.append(abs(mean - 1) <= 2 * se)
    assert 0.92 <= np.mean(hits) <= 0.99
