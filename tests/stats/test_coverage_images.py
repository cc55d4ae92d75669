"""Do the intervals hold on features of images? A short, seeded version of benchmarks/coverage_images.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from audit_sets import random_patches

from medtrust.stats import kid_interval
from medtrust.stats.intervals import t_quantile
from medtrust.types import Intensity

STUDY = Path(__file__).parents[2] / "benchmarks" / "coverage_images.py"


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("coverage_images_study", STUDY)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def populations(study):
    """Patches of 400 patients, one or two each, described by twelve numbers a person can read."""
    from medtrust_features.radiomics import Radiomics

    space = Radiomics()
    images = random_patches(np.random.default_rng(1), 600).transpose(0, 3, 1, 2)
    patients = np.sort(np.r_[np.arange(400), np.arange(200)])
    return study.populations(images, patients, lambda x: space.extract(x, Intensity(0, 255, "level"))[:, :12], True)


@pytest.mark.parametrize("statistic", ["frechet", "kid"])
def test_the_interval_covers_on_images_where_the_percentile_bootstrap_fails(study, populations, statistic: str) -> None:
    """Between two halves of the patients, one of them blurred, and where the bootstrap is worst: no difference."""
    torch.set_num_threads(1)
    for name in ("same patients", "other patients, blurred"):
        a, b = populations[name]
        draws = 8 if statistic == "frechet" else 0
        row = study.study(statistic, name, "radiomics", a, b, 100, 30, bootstrap=draws)
        assert row.cover >= 0.8, row  # 30 draws at 95 % fall below once in 1000
        if name == "same patients" and statistic == "frechet":
            assert row.bootstrap == 0


def test_truth_is_what_large_draws_approach(study, populations) -> None:
    """With very many patients drawn, both statistics come to what the study calls their truth."""
    a, b = populations["other patients, blurred"]
    (x, _), (y, _) = (one.draw(20000, np.random.default_rng(2)) for one in (a, b))
    assert study.frechet_distance(x, y) == pytest.approx(study.true_frechet(a, b), rel=0.15)
    row = study.study("kid", "blurred", "radiomics", a, b, 100, 60)
    standard_error = row.width / 4  # of one draw; the estimate is unbiased, so only its scatter parts it from the truth
    assert abs(row.mean - row.truth) <= 4 * standard_error / 60**0.5


def test_the_kernel_interval_of_the_study_is_the_one_of_the_package(study, populations) -> None:
    """From sums by patient comes the interval that the rows of the same draw have."""
    a, b = populations["other patients, blurred"]
    found = study.PatientKernels.of(a, b).draw(70, np.random.default_rng(3)).inference(0.95)
    rng = np.random.default_rng(3)
    (x, of_x), (y, of_y) = a.draw(70, rng), b.draw(70, rng)
    rows = kid_interval(x, y, of_x, of_y)
    for ours, theirs in ((found.value, rows.value), (found.interval.lo, rows.interval.lo), (found.se, rows.se)):
        assert ours == pytest.approx(theirs, rel=1e-7)


def _other_patients(study, seed: int, stretch: float):
    """Two populations of 500 patients that differ by chance alone, 2 % of them `stretch` times as far out."""
    rng = np.random.default_rng(seed)

    def one():
        values = rng.standard_normal((500, 4))
        values[rng.random(500) < 0.02] *= stretch
        return study.Population(torch.from_numpy(values), np.arange(501))

    return one(), one()


@pytest.mark.parametrize(("stretch", "least"), [(1.0, 0.91), (2.0, 0.91), (4.0, 0.7)])
def test_where_populations_hardly_differ_the_score_interval_holds_more_than_the_plain_one(
    study, stretch: float, least: float
) -> None:
    """An estimate that is too low has an error that is too small; where 1 % of the patients are all, nothing helps."""
    held, plain, dominated = [], [], []
    for seed in range(4):
        a, b = _other_patients(study, seed, stretch)
        truth, sums, rng = study.true_kid(a, b), study.PatientKernels.of(a, b), np.random.default_rng(seed)
        for _ in range(75):
            found = sums.draw(400, rng).inference(0.95)
            held.append(found.interval.lo <= truth <= found.interval.hi)
            plain.append(abs(found.value - truth) <= t_quantile(0.95, 399) * found.se)
            dominated.append(found.dominance)
    assert np.mean(held) >= least  # of 300 draws at 95 % fewer than 0.91 hold once in 1000
    assert np.mean(held) >= np.mean(plain)
    if stretch == 4:
        assert np.mean(plain) < 0.8
        assert np.median(dominated) > 0.8
