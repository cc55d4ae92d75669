"""Size and power of the copy test on real skin patches: a short run of benchmarks/power.py."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from medtrust.errors import DataError
from medtrust.progress import QuietProgress
from medtrust.recipes import get_recipe
from medtrust.stats import EnrichmentTest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def power():
    spec = importlib.util.spec_from_file_location("power", ROOT / "benchmarks" / "power.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def table(power, tmp_path_factory):
    """Distances between the derm-patches, from the place that MEDTRUST_DATA names, or fetched."""
    try:
        named = os.environ.get("MEDTRUST_DATA")
        cache = tmp_path_factory.mktemp("data")
        place = Path(named) if named else get_recipe("derm-patches", cache=cache, progress=QuietProgress())
    except DataError as error:
        pytest.skip(f"no package index is reachable: {error}")
    return power.make_table(place, "pixels", (power.FRESH, power.COPY, *power.FAULTS), 0, cache)


def rejections(power, table, kind, rate, repetitions):
    """Share of audits that each test rejects at 5 %."""
    test = EnrichmentTest(600, 600, seed=0)
    found = [power.one_audit(table, (600, 600), kind, rate, 700, seed, test) for seed in range(repetitions)]
    return {name: np.mean([p[name] <= 0.05 for p in found]) for name in found[0]}


@pytest.mark.slow
@pytest.mark.network
def test_size_and_power_on_real_images(power, table):
    """Copy-free generators, good and bad, are left alone; two per cent lightly edited copies are found."""
    power.check_against_product(table, (600, 600), 700)
    for kind in power.NEGATIVES:
        found = rejections(power, table, kind, 0.0, 60)
        for name in ("cpm", "combined"):
            assert found[name] <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 60), (kind, name)
        if kind == "under-dispersed":
            assert min(found[name] for name in ("C_T", "DCR", "authenticity")) == 1
    assert rejections(power, table, power.FRESH, 0.02, 20)["cpm"] >= 0.95
    assert rejections(power, table, power.FRESH, 0.02, 20)["combined"] >= 0.95
    assert rejections(power, table, power.FRESH, 0.01, 20)["cpm"] >= 0.75
