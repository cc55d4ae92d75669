"""Do the intervals hold the truth as often as they say? A short, seeded version of benchmarks/coverage.py."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from medtrust.stats import fd_infinity_interval

STUDY = Path(__file__).parents[2] / "benchmarks" / "coverage.py"


@pytest.fixture(scope="module")
def study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coverage_study", STUDY)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# 80 draws of an interval that covers 95 % fall below 0.86 about once in 1000 rows.
REPS, LEAST = 80, 0.86


@pytest.mark.parametrize("index", range(7))
def test_frechet_interval_covers_where_the_percentile_bootstrap_fails(study: ModuleType, index: int) -> None:
    """The Fréchet interval holds the population's distance; the percentile bootstrap's does not."""
    population = list(study.populations(5))[index]
    row = study.frechet_row(population, 100, REPS, bootstrap=20)
    assert row.cover >= LEAST
    assert row.bootstrap < row.cover
    if population.name == "equal":
        assert row.bootstrap == 0


@pytest.mark.parametrize("index", [1, 5])
def test_fd_infinity_interval_covers(study: ModuleType, index: int) -> None:
    """The interval about FD∞ holds the population's distance, also with several images a patient."""
    population, hits = list(study.populations(4))[index], []
    for rep in range(30):
        a, b, patients = population.draw(60, rep)
        found = fd_infinity_interval(a, b, patients, None, seed=rep, splits=12).interval
        hits.append(found.lo <= population.frechet() <= found.hi)
    assert np.mean(hits) >= 0.8  # 30 draws at 95 % fall below once in 1000


@pytest.mark.parametrize("index", range(7))
def test_kid_interval_covers(study: ModuleType, index: int) -> None:
    """The kernel distance's interval holds the population's distance."""
    population = list(study.populations(5))[index]
    row = study.kid_row(population, 60, REPS)
    assert row.cover >= LEAST


@pytest.mark.parametrize("index", [0, 3, 5])
def test_manifold_intervals_cover(study: ModuleType, index: int) -> None:
    """The four shares' intervals hold their expectation."""
    population = list(study.populations(5))[index]
    for row in study.manifold_rows(population, 80, REPS):
        assert row.cover >= LEAST, row.statistic


def test_the_bracket_covers_and_is_wide(study: ModuleType) -> None:
    """With more directions than patients the bracket still holds the truth."""
    population = list(study.populations(60))[3]
    row = study.frechet_row(population, 50, 60)
    assert row.cover >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("n", [50, 400, 1000])
def test_coverage_is_between_93_and_99_percent(study: ModuleType, n: int) -> None:
    """With many draws, shifted and rescaled populations are covered within 0.92 to 1."""
    for population in list(study.populations(8))[1:5]:
        for row in (study.frechet_row(population, n, 400), study.kid_row(population, n, 400)):
            assert row.cover >= 0.92, row
