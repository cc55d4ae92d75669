"""The short version of benchmarks/ranking.py: generators are ranked as a person would, and spoilt images are caught."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from audit_sets import random_patches, write_folder

from medtrust.extraction import survey
from medtrust.host import build_host
from medtrust.images import open_set
from medtrust.sources import readers_of
from medtrust_features.radiomics import Radiomics


@pytest.fixture(scope="module")
def ranking():
    path = Path(__file__).parents[1] / "benchmarks" / "ranking.py"
    spec = importlib.util.spec_from_file_location("ranking", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["ranking"] = module
    spec.loader.exec_module(module)
    return module


class Spectrum:
    """A second space of another kind: log energies of octave bands, and the mean of each colour."""

    names = ()
    digest = "cd" * 32
    standardise = True

    def extract(self, images: torch.Tensor, intensity) -> torch.Tensor:
        unit = images.double() / 255
        power = torch.fft.rfft2(unit - unit.mean((2, 3), keepdim=True)).abs().square().mean(1)
        fy = torch.fft.fftfreq(images.shape[2])[:, None].abs()
        fx = torch.fft.rfftfreq(images.shape[3])[None].abs()
        radius = torch.hypot(fy, fx)
        edges = [0.0, 0.06, 0.12, 0.25, 1.0]
        bands = [power[:, (radius > a) & (radius <= b)].mean(1) for a, b in itertools.pairwise(edges)]
        return torch.cat([(torch.stack(bands, 1) + 1e-9).log(), unit.mean((2, 3))], 1).float()


def grainy(rng: np.random.Generator, n: int, sigma: float = 2.0, gain: float = 1.0, grain: float = 6.0) -> np.ndarray:
    """Patches with grain, which blur takes away."""
    patches = 128 + gain * (random_patches(rng, n, sigma=sigma).astype(float) - 128)
    return np.rint(patches + rng.normal(0, grain, patches.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def measured(ranking, tmp_path_factory) -> dict[str, dict[str, dict]]:
    """Train and holdout of one source; three generators from near to far; and holdout spoilt in two ways."""
    root, readers = tmp_path_factory.mktemp("sets"), readers_of(build_host())
    rng = np.random.default_rng(11)
    sets = {}
    for name in ("train", "holdout"):
        folder = write_folder(root / name, grainy(rng, 240), [f"{name}{i}" for i in range(240)])
        sets[name] = open_set(folder, name, readers)
    for name, sigma, gain, grain in (("middling", 1.8, 0.9, 7.0), ("poor", 1.2, 0.6, 12.0)):
        folder = write_folder(root / name, grainy(rng, 240, sigma, gain, grain))
        sets[name] = open_set(folder, "synthetic", readers)
    rows = rng.integers(240, size=240)
    sets["near"] = ranking.edited("synthetic", sets["train"], rows, ranking.resample, 0)
    sets["holdout, blurred"] = ranking.edited("synthetic", sets["holdout"], range(240), ranking.blur, 0)
    dark = ranking.darkest(sets["holdout"], 1 / 4)
    sets["holdout, darkest quarter"] = ranking.edited("synthetic", sets["holdout"], dark, ranking.same, 0)
    extractors = {"radiomics": Radiomics(), "spectrum": Spectrum()}
    found = {name: survey(each, extractors, sets["train"].intensity) for name, each in sets.items()}
    return {
        space: {
            row["set"]: row
            for row in ranking.measure({name: each.features[space] for name, each in found.items()}, True, 0)
        }
        for space in extractors
    }


@pytest.mark.parametrize("space", ["radiomics", "spectrum"])
def test_generators_are_ranked_with_intervals_apart(measured, space: str) -> None:
    near, middling, poor = (measured[space][name]["fd"] for name in ("near", "middling", "poor"))
    assert near[2] < middling[1]
    assert middling[2] < poor[1]


@pytest.mark.parametrize("space", ["radiomics", "spectrum"])
def test_blur_costs_precision_and_a_dropped_mode_costs_recall(measured, space: str) -> None:
    whole, blurred, dropped = (measured[space][f"holdout{rest}"] for rest in ("", ", blurred", ", darkest quarter"))
    assert blurred["precision"][2] < whole["precision"][1]
    assert dropped["recall"][2] < whole["recall"][1]
    assert dropped["precision"][2] > whole["precision"][1]
