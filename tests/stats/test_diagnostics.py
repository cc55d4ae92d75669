"""The usual diagnostics: equal to their definitions, and unable to tell fidelity from copying."""

import math

import numpy as np
import pytest
import torch

from medtrust.errors import Insufficient
from medtrust.stats import authentic, closer_records, copying_z, fld_gap, nearest_cell, two_shares_p


def gaps(rng, n, d=6, scale=1.0):
    return scale * torch.from_numpy(rng.normal(size=(n, d)))


def test_authenticity_follows_its_definition():
    """Sample j is authentic iff its nearest training image i* is nearer to another training image than to j."""
    rng = np.random.default_rng(0)
    train, synthetic = gaps(rng, 41).numpy(), gaps(rng, 23).numpy()
    expected = []
    for j in synthetic:
        to_train = np.linalg.norm(train - j, axis=1)
        star = to_train.argmin()
        own = min(np.linalg.norm(train[star] - other) for i, other in enumerate(train) if i != star)
        expected.append(own < to_train[star])
    distance = torch.cdist(torch.from_numpy(synthetic), torch.from_numpy(train))
    within = torch.cdist(torch.from_numpy(train), torch.from_numpy(train)).fill_diagonal_(torch.inf).amin(1).numpy()
    found = authentic(distance.amin(1).numpy(), distance.argmin(1).numpy(), within)
    assert found.tolist() == expected
    assert 0 < found.mean() < 1


def test_authenticity_of_independent_samples_is_far_from_one_half():
    """Without copies three in four are authentic in 20 dimensions; looking i* up at the sample's index gives half."""
    rng = np.random.default_rng(1)
    shares = []
    for _ in range(20):
        train, synthetic = gaps(rng, 300, 20), gaps(rng, 200, 20)
        distance = torch.cdist(synthetic, train)
        own = torch.cdist(train, train).fill_diagonal_(torch.inf).amin(1).numpy()
        shares.append(authentic(distance.amin(1).numpy(), distance.argmin(1).numpy(), own).mean())
    assert 0.68 < np.mean(shares) < 0.8


def test_copying_z_equals_the_rank_sum_statistic():
    """In one cell C_T is the standardised Mann-Whitney statistic; cells are weighted by their holdout images."""
    rng = np.random.default_rng(2)
    s, h = rng.normal(size=60), rng.normal(size=45)
    u = (s[:, None] > h).sum()
    expected = (u - 60 * 45 / 2) / math.sqrt(60 * 45 * 106 / 12)
    one, cells = copying_z(s, h, np.zeros(60), np.zeros(45))
    assert (one, cells) == (pytest.approx(expected), 1)
    both, cells = copying_z(np.r_[s, s - 9], np.r_[h, h[:21] - 9], np.repeat([0, 1], 60), np.repeat([0, 1], [45, 21]))
    other, _ = copying_z(s, h[:21], np.zeros(60), np.zeros(21))
    assert cells == 2
    assert both == pytest.approx((45 * expected + 21 * other) / 66)
    with pytest.raises(Insufficient, match="cell"):
        copying_z(s[:5], h, np.zeros(5), np.zeros(45))


def test_closeness_rules_blame_an_under_dispersed_generator():
    """A generator of too little variety copies nobody, and C_T, DCR and authenticity all accuse it."""
    rng = np.random.default_rng(3)
    train, holdout, synthetic = gaps(rng, 300, 20), gaps(rng, 300, 20), gaps(rng, 300, 20, scale=0.5)
    to_train, real = torch.cdist(synthetic, train), torch.cdist(holdout, train)
    own = torch.cdist(train, train).fill_diagonal_(torch.inf).amin(1).numpy()
    near, far = to_train.amin(1).numpy(), real.amin(1).numpy()
    assert copying_z(near, far, np.zeros(300), np.zeros(300))[0] < -3
    low, high = closer_records(near, far)
    assert low < high
    genuine = [int(authentic(d.amin(1).numpy(), d.argmin(1).numpy(), own).sum()) for d in (to_train, real)]
    assert two_shares_p(genuine[0], 300, genuine[1], 300) < 0.01


def test_fld_gap_grows_with_copies():
    """Samples on top of training images raise the likelihood of train above that of the holdout."""
    rng = np.random.default_rng(4)
    train, holdout = gaps(rng, 150), gaps(rng, 150)
    clean, _, _ = fld_gap(train, holdout, gaps(rng, 200))
    copied, inside, outside = fld_gap(train, holdout, torch.cat([train[:80] + 0.01 * gaps(rng, 80), gaps(rng, 120)]))
    assert copied > clean + 1
    assert inside.mean() - outside.mean() == pytest.approx(copied)
    with pytest.raises(Insufficient, match="same features"):
        fld_gap(torch.ones(4, 2), holdout[:, :2], holdout[:, :2])


def test_nearest_cell_and_equal_shares():
    """Rows go to the nearest centre; equal shares give p = .5, shares without spread 1."""
    assert nearest_cell(torch.tensor([[0.0], [9.0], [4.9]]), torch.tensor([[0.0], [10.0]])).tolist() == [0, 1, 0]
    assert two_shares_p(10, 100, 10, 100) == pytest.approx(0.5)
    assert two_shares_p(0, 10, 0, 10) == 1.0
