"""Ratio of Fréchet distances and excess of distances: values, coverage, patients, outliers, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from medtrust import Insufficient
from medtrust.stats import frechet_distance, frechet_excess, frechet_ratio, gaussian, mmd_excess, mmd_interval

KERNEL = gaussian(2.0)


def three(seed: int, n: int = 60, d: int = 3, shift: float = 0.7) -> list[torch.Tensor]:
    """A reference, a set like it, and a set that is shifted."""
    rng = np.random.default_rng(seed)
    sets = [torch.from_numpy(rng.standard_normal((n, d))) for _ in range(3)]
    sets[2] = sets[2] + shift
    return sets


def mmd_excess_here(sets, patients=(None, None, None), **more):
    return mmd_excess(sets, patients, kernel=KERNEL, **more)


CONTRASTS = {"ratio": frechet_ratio, "frechet": frechet_excess, "mmd": mmd_excess_here}


def test_values_are_those_of_the_distances() -> None:
    """The estimates are a quotient and differences of what the distances' own functions give."""
    t, h, s = three(0)
    near, far = frechet_distance(t, h), frechet_distance(t, s)
    assert frechet_ratio([t, h, s]).value == pytest.approx(near / far)
    assert frechet_excess([t, s, h]).value == pytest.approx(far - near)
    apart = [mmd_interval(t, x, kernel=KERNEL).value for x in (s, h)]
    assert mmd_excess([t, s, h], kernel=KERNEL).value == pytest.approx(apart[0] - apart[1])


@pytest.mark.parametrize("name", CONTRASTS)
def test_intervals_hold_the_mean_of_the_draws(name: str) -> None:
    """At 95 %, 40 draws miss at most 7 times: four standard deviations above 2."""
    found = [CONTRASTS[name](three(seed), seed=seed) for seed in range(40)]
    values = [math.log(one.value) if name == "ratio" else one.value for one in found]
    truth = math.exp(np.mean(values)) if name == "ratio" else float(np.mean(values))
    misses = sum(not one.interval.lo <= truth <= one.interval.hi for one in found)
    assert misses <= 7
    scatter = float(np.std(values))
    assert 0.7 * scatter < float(np.mean([one.se for one in found])) < 2 * scatter


@pytest.mark.parametrize("name", CONTRASTS)
def test_the_patient_is_the_unit(name: str) -> None:
    """Every row twice under one patient is no more information: units stay, and the error does not shrink by √2."""
    sets = three(1)
    doubled = [x.repeat_interleave(2, 0) for x in sets]
    owners = [[i // 2 for i in range(len(x))] for x in doubled]
    once, twice, fooled = (
        CONTRASTS[name](sets),
        CONTRASTS[name](doubled, owners),
        CONTRASTS[name](doubled),
    )
    assert once.interval.n_units == twice.interval.n_units == 60
    assert twice.se > 0.9 * once.se
    assert fooled.se < 0.9 * twice.se


@pytest.mark.parametrize("name", CONTRASTS)
def test_one_outlier_takes_the_degrees_of_freedom(name: str) -> None:
    calm = CONTRASTS[name](three(2))
    sets = three(2)
    sets[1][0] *= 60
    wild = CONTRASTS[name](sets)
    assert calm.dominance is not None
    assert wild.dominance is not None
    if name == "mmd":  # a bounded kernel gives nobody more than one
        assert wild.dof > 8
    else:
        assert wild.dof < 4 < 8 < calm.dof
        assert wild.dominance > 0.8 > calm.dominance


def test_refusals() -> None:
    t, h, _ = three(3)
    with pytest.raises(Insufficient, match="exactly the mean and covariance"):
        frechet_ratio([t, t, h])
    with pytest.raises(Insufficient, match="needs 4 patients"):
        mmd_excess([t[:3], h, h], kernel=KERNEL)
    constant = torch.ones(20, 2)
    still = frechet_excess([constant, constant, constant])
    assert (still.value, still.interval.lo, still.interval.hi) == (0, 0, 0)
