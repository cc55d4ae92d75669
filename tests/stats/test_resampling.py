"""Patient-wise resampling: what is drawn, and how often proportions' intervals hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats as distributions

from medtrust.errors import Insufficient
from medtrust.stats import (
    clopper_pearson,
    groups,
    half_sampling,
    jackknife_se,
    korn_graubard,
    min_detectable,
    split_patients,
    subsample,
)


def uneven_patients(seed: int, n: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [f"p{i}" for i in rng.zipf(1.6, n)]


def test_groups_number_patients_in_order_of_appearance() -> None:
    """Patients are numbered as they come, and None makes every row its own."""
    index, count = groups(["b", "a", "b", "c"], 4)
    assert index.tolist() == [0, 1, 0, 2]
    assert count == 3
    assert groups(None, 3)[0].tolist() == [0, 1, 2]
    assert groups([], 0)[1] == 0


def test_groups_refuse_a_wrong_count() -> None:
    """One patient must be named per row."""
    with pytest.raises(ValueError, match="2 patients are named for 3 rows"):
        groups(["a", "b"], 3)


@pytest.mark.parametrize("n", [0, 1, 7, 60, 101])
def test_subsample_takes_whole_patients_but_one(n: int) -> None:
    """A subset has exactly n rows, and at most one patient is cut."""
    patients = uneven_patients(3, 101)
    rows = subsample(patients, n, 101, seed=5)
    assert len(rows) == n == len(set(rows.tolist()))
    chosen = [patients[i] for i in rows]
    cut = [p for p in set(chosen) if chosen.count(p) != patients.count(p)]
    assert len(cut) <= 1
    assert torch.equal(rows, subsample(patients, n, 101, seed=5))


def test_subsample_depends_on_the_seed_and_refuses_too_many() -> None:
    """Two seeds give two subsets, and more rows than there are is an error."""
    assert not torch.equal(subsample(None, 20, 100, seed=1), subsample(None, 20, 100, seed=2))
    with pytest.raises(ValueError, match="cannot draw 4 of 3"):
        subsample(None, 4, 3, seed=0)


def test_halves_share_no_patient() -> None:
    """Both halves together hold every row once, and no patient is in both."""
    patients = uneven_patients(1, 83)
    first, second = split_patients(patients, 83, seed=9)
    assert sorted(first.tolist() + second.tolist()) == list(range(83))
    assert not {patients[i] for i in first} & {patients[i] for i in second}
    with pytest.raises(Insufficient, match="2 patients"):
        split_patients(["a"] * 5, 5, seed=0)


def test_half_sampling_finds_the_error_of_a_mean() -> None:
    """For a difference of means the standard error from halves is the textbook one, by patient."""
    rng = np.random.default_rng(11)
    between = torch.from_numpy(rng.standard_normal(200)).repeat_interleave(3)
    a = between + 0.2 * torch.from_numpy(rng.standard_normal(600))
    b = torch.from_numpy(rng.standard_normal(151))
    patients = [i // 3 for i in range(600)]
    mean, se = half_sampling(
        lambda i, j: (float(a[i].mean() - b[j].mean()),), patients, None, (600, 151), splits=2000, seed=2
    )
    by_patient = a.reshape(200, 3).mean(1)
    expected = (by_patient.var() / 200 + b.var() / 151).sqrt()
    assert float(se[0]) == pytest.approx(float(expected), rel=0.06)
    assert float(mean[0]) == pytest.approx(float(a.mean() - b.mean()), abs=0.01)


def test_jackknife_of_a_mean_is_the_textbook_error() -> None:
    """Leaving one out of a mean gives s/√n exactly."""
    x = torch.from_numpy(np.random.default_rng(0).standard_normal(57))
    left_out = (x.sum() - x) / 56
    assert jackknife_se(left_out) == pytest.approx(float(x.std() / 57**0.5), rel=1e-12)


@pytest.mark.parametrize(("k", "n"), [(0, 20), (20, 20), (3, 17), (1, 1)])
def test_clopper_pearson_equals_scipy(k: int, n: int) -> None:
    """The exact interval agrees with SciPy's."""
    theirs = distributions.binomtest(k, n).proportion_ci(0.95, "exact")
    assert clopper_pearson(k, n, 0.95) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_clopper_pearson_refuses_what_is_no_proportion() -> None:
    """More hits than trials is an error."""
    with pytest.raises(ValueError, match="no proportion"):
        clopper_pearson(3, 2, 0.95)


def test_korn_graubard_widens_with_dependence() -> None:
    """The simple binomial error gives Clopper-Pearson back, a doubled one a wider interval, none the full sample."""
    plain = korn_graubard(0.3, (0.3 * 0.7 / 100) ** 0.5, 100, 0.95, 100)
    assert plain == pytest.approx(clopper_pearson(30, 100, 0.95), abs=0.002)
    wide = korn_graubard(0.3, 2 * (0.3 * 0.7 / 100) ** 0.5, 100, 0.95, 100)
    assert wide[0] < plain[0] < plain[1] < wide[1]
    assert korn_graubard(0.3, 0.05, 100, 0.95, 5)[0] < korn_graubard(0.3, 0.05, 100, 0.95, 500)[0]
    assert korn_graubard(1.0, 0.0, 40, 0.95, 16) == clopper_pearson(40, 40, 0.95)


def test_min_detectable_has_the_stated_power() -> None:
    """A normal estimate centred on the smallest detectable effect excludes zero four times in five."""
    effect = min_detectable(1.0, 0.95, 10_000)
    draws = np.random.default_rng(4).normal(effect, 1, 40_000)
    assert (draws > 1.96).mean() == pytest.approx(0.8, abs=0.01)


def test_min_detectable_allows_for_variance_that_grows() -> None:
    """The effect returned solves its own equation."""
    effect = min_detectable(0.3, 0.95, 20, 0.8, growth=0.5)
    k = distributions.t.ppf(0.975, 20) + distributions.norm.ppf(0.8)
    assert effect == pytest.approx(k * (0.3**2 + 0.5 * effect) ** 0.5, rel=1e-12)
    assert min_detectable(0.0, 0.95, 20) == 0
