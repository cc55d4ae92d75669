"""The metrics that run on request: ratio, FD∞, Gaussian kernel, clipped shares, Vendi and Inception Score."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_fidelity import compute, features, set_of

from medtrust import Insufficient, MetricInput, stats
from medtrust.errors import ConfigError
from medtrust_fidelity.frd import frd_v1


def estimate(name: str, data: MetricInput, result: int = 0) -> float:
    answer = list(compute(name, data).values())[result]
    assert answer.estimate
    return answer.estimate.value


def test_the_ratio_is_one_for_a_perfect_generator_and_small_for_a_bad_one() -> None:
    """About 1 for fresh real images, near 0 for shifted ones, above 1 for copies of train."""
    good = features(11, sizes=(300, 200, 200))
    assert 0.5 < estimate("fd_ratio", good) < 2
    assert estimate("fd_ratio", features(11, sizes=(300, 200, 200), shift=1.0)) < 0.1
    copied = replace(good, synthetic=set_of("synthetic", good.train.matrix[:200] + 1e-3))
    assert estimate("fd_ratio", copied) > 1.2
    (result,) = compute("fd_ratio", good).values()
    facts = result.facts
    assert result.estimate
    assert result.estimate.value == pytest.approx(float(facts["null_plug_in"]) / float(facts["plug_in"]))


def test_fd_infinity_is_near_the_truth_where_the_plug_in_is_not() -> None:
    """Equal populations: the plug-in is biased upwards, the intercept is not; and the same seed gives the same bits."""
    found = [next(iter(compute("fd_infinity", features(s, (150, 150, 150), d=8)).values())) for s in range(6)]
    assert np.mean([r.estimate.value for r in found if r.estimate]) < 0.3 * np.mean([r.facts["plug_in"] for r in found])
    with pytest.raises(Insufficient, match="FD∞ needs 400 patients"):
        compute("fd_infinity", features(1, d=100))


def test_the_gaussian_kernel_sees_what_the_first_three_moments_do_not() -> None:
    """Two clusters against one Gaussian of the same moments."""
    data = features(3, sizes=(400, 400, 400), d=2)
    rng = np.random.default_rng(4)
    two = rng.choice([-1.0, 1.0], (400, 2)) * 0.98 + 0.199 * rng.standard_normal((400, 2))
    (result,) = compute(
        "mmd", replace(data, synthetic=set_of("synthetic", torch.from_numpy(two)), options={"bandwidth": 0.3})
    ).values()
    assert result.interval
    assert result.null
    assert result.null.interval
    assert result.interval.lo > result.null.interval.hi


def test_conventions_add_the_numbers_of_others() -> None:
    """Each preset puts one fact into its metric and changes nothing else; an unknown one is refused."""
    data = features(5)
    train, synthetic = data.train.matrix, data.synthetic.matrix
    expected = {
        ("fd", "stylegan"): stats.frechet_distance(train, synthetic, convention="stylegan"),
        ("mmd", "cmmd"): stats.mmd_rbf(
            *(torch.nn.functional.normalize(x, dim=1) for x in (train, synthetic)), convention="cmmd"
        ),
        ("frd", "frd-v1"): frd_v1(train, synthetic),
        ("prdc", "kynkaanniemi"): stats.manifold(train, synthetic, convention="kynkaanniemi").precision,
    }
    for (name, convention), value in expected.items():
        plain = next(iter(compute(name, data).values()))
        result = next(iter(compute(name, replace(data, options={name: {"convention": convention}})).values()))
        assert result.facts[convention.replace("-", "_")] == pytest.approx(value)
        assert (result.estimate, result.interval) == (plain.estimate, plain.interval)
    for name in ("fd", "kid", "mmd", "prdc", "frd"):
        with pytest.raises(ConfigError, match="give one of"):
            compute(name, replace(data, options={"convention": "fid"}))
        compute(name, replace(data, options={"convention": "stylegan"}))  # asks nothing of the others
    with pytest.raises(ConfigError, match="bandwidth"):
        compute("mmd", replace(data, options={"bandwidth": -1}))
    with pytest.raises(ConfigError, match=r"write a table \[plugins.fidelity.mmd\]"):
        compute("mmd", replace(data, options={"mmd": 3}))


def test_frd_v1_standardises_by_train_and_leaves_out_constants() -> None:
    """The logarithm of the distance of z-scores; a column that is constant in train does not count."""
    data = features(6)
    a, b = data.train.matrix, data.synthetic.matrix * 3 + 1
    mean, spread = a.mean(0), a.std(0, correction=0)
    assert frd_v1(a, b) == pytest.approx(math.log(stats.frechet_distance((a - mean) / spread, (b - mean) / spread)))
    constant = torch.ones(len(a), 1, dtype=torch.float64)
    assert frd_v1(torch.cat([a, constant], 1), torch.cat([b, constant[: len(b)] * 5], 1)) == frd_v1(a, b)
    with pytest.raises(Insufficient, match="constant in train"):
        frd_v1(torch.ones(9, 2), torch.ones(9, 2))
    with pytest.raises(Insufficient, match="no logarithm"):
        frd_v1(a, a)


def test_mode_dropping_lowers_vendi_and_clipped_coverage_and_noise_lowers_clipped_density() -> None:
    """Each score falls for the defect it is for."""
    rng = np.random.default_rng(7)
    modes = 4 * np.eye(6)

    def draw(n: int, kept: int, noise: float = 0.3) -> torch.Tensor:
        return torch.from_numpy(modes[rng.integers(0, kept, n)] + noise * rng.standard_normal((n, 6)))

    sets = {"train": set_of("train", draw(240, 6)), "holdout": set_of("holdout", draw(200, 6))}
    base = features(7)
    good = replace(base, **sets, synthetic=set_of("synthetic", draw(200, 6)))
    dropped = replace(good, synthetic=set_of("synthetic", draw(200, 2)))
    noisy = replace(good, synthetic=set_of("synthetic", draw(200, 6, noise=1.5)))
    assert estimate("vendi", dropped) < 0.6 * estimate("vendi", good)
    assert estimate("clipped", dropped, 1) < 0.6 * estimate("clipped", good, 1)
    assert estimate("clipped", noisy, 0) < 0.3 * estimate("clipped", good, 0)


def logits(name: str, values: torch.Tensor):
    return set_of(name, values, names=tuple(f"logit.{i}" for i in range(values.shape[1])))


def test_the_inception_score_needs_a_class_head() -> None:
    """A space without logits is refused by name; with them, unsure or single classes score low."""
    with pytest.raises(Insufficient, match="the feature space x has no class head"):
        compute("inception_score", features(8))
    rng = np.random.default_rng(8)
    sure = 8 * torch.eye(5, dtype=torch.float64)[rng.integers(0, 5, 120)] + torch.from_numpy(rng.normal(size=(120, 5)))
    data = replace(
        features(8),
        train=logits("train", sure),
        holdout=logits("holdout", sure.flip(0)),
        synthetic=logits("synthetic", sure),
    )
    (result,) = compute("inception_score", replace(data, options={"convention": "torch-fidelity"})).values()
    assert result.estimate
    assert result.null
    assert result.estimate.value == pytest.approx(result.null.value)
    assert 3 < result.estimate.value <= 5
    assert result.facts["torch_fidelity"] == stats.inception_score(data.synthetic.matrix, splits=10, shuffle_seed=2020)
    for worse in (0.2 * sure, sure[:1].repeat(120, 1)):
        assert estimate("inception_score", replace(data, synthetic=logits("synthetic", worse))) < 1.6
    broken = sure.clone()
    broken[2, 1] = torch.nan
    with pytest.raises(Insufficient, match="1 images of synthetic have logits"):
        compute("inception_score", replace(data, synthetic=logits("synthetic", broken)))
    without = replace(data, holdout=None)
    assert any("no holdout" in note for r in compute("inception_score", without).values() for note in r.notes)
