"""Regression cases from the literature: half-moons, the bandwidth sweep of a kernel density estimate, and a copycat."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, make_moons

from medtrust.stats import copy_score, copy_test, copying_z, extreme_count_tail


def split(rows, sizes, rng):
    """Random disjoint parts of the rows."""
    order = rng.permutation(len(rows))
    edges = np.cumsum([0, *sizes])
    return [torch.from_numpy(rows[order[a:b]]) for a, b in itertools.pairwise(edges)]


def jittered(rows, sigma, count, rng):
    """Samples of a kernel density estimate: training rows plus Gaussian noise."""
    chosen = rows[torch.from_numpy(rng.integers(len(rows), size=count))]
    return chosen + torch.from_numpy(rng.normal(0, sigma, chosen.shape))


@pytest.mark.parametrize("noise", [0.1, 0.2])
def test_half_moons(noise):
    """Fresh moons are left alone, moons that repeat the training points are caught."""
    p_fresh, p_copied = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        rows, _ = make_moons(900, noise=noise, random_state=seed)
        train, holdout, fresh = split(rows, (300, 300, 300), rng)
        p_fresh.append(copy_test(train, holdout, fresh, seed=seed, draws=1999).p)
        p_copied.append(copy_test(train, holdout, jittered(train, 1e-3, 300, rng), seed=seed, draws=1999).p)
    assert np.mean(np.array(p_fresh) <= 0.05) <= 0.25
    assert max(p_copied) <= 0.01


@pytest.fixture(scope="module")
def digits():
    rows = load_digits().data / 16.0
    return split(rows, (700, 700, 390), np.random.default_rng(0))


def test_a_kernel_density_estimate_copies_when_its_bandwidth_is_small(digits):
    """The sweep goes from copying to generalising: p rises with the bandwidth, and real digits are left alone."""
    train, holdout, fresh = digits
    rng = np.random.default_rng(1)
    p = [copy_test(train, holdout, jittered(train, s, 390, rng), seed=1).p for s in (0.01, 0.05, 0.1)]
    assert max(p) <= 0.001
    assert copy_test(train, holdout, jittered(train, 2.0, 390, rng), seed=1).p > 0.05
    assert copy_test(train, holdout, fresh, seed=1).p > 0.05
    near = [torch.cdist(each, train).amin(1).numpy() for each in (jittered(train, 0.01, 390, rng), fresh, holdout)]
    cells = [np.zeros(len(each)) for each in near]
    assert copying_z(near[0], near[2], cells[0], cells[2])[0] < -3
    assert copying_z(near[1], near[2], cells[1], cells[2])[0] > -3


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_copycat(digits, share):
    """A generator that mixes new digits with training digits is found by the mixture's copies, and only by them."""
    train, holdout, fresh = digits
    rng = np.random.default_rng(2)
    copies = int(share * len(fresh))
    samples = fresh.clone()
    samples[:copies] = jittered(train, 0.02, copies, rng)
    found = copy_test(train, holdout, samples, seed=2).p
    codes = np.arange(len(train))
    scores, real = (copy_score(each, train, codes).score for each in (samples, holdout))
    extreme = extreme_count_tail(int((scores < real.min()).sum()), len(scores), len(real))
    if share:
        assert found <= 0.001
        assert extreme <= 0.001
    else:
        assert min(found, extreme) > 0.01
