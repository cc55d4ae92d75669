"""What does bfloat16 change? Fréchet distances of derm-patches with the same images in fp32 and in bf16.

    python benchmarks/precision.py --work ranking --out benchmarks/results/precision.json

FD(T, H) is between real images of disjoint patients, FD(T, S) between real images and those of a VAE trained for 600
steps, both as `benchmarks/ranking.py` makes them; in the same `--work` nothing is trained twice. The change is that of
the plug-in distance on the same images, so it holds no sampling error of its own; its range over random halves of the
patients says how much it depends on the images.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ranking import TRAINED, sets_of

from medtrust.cache import FeatureStore
from medtrust.extraction import survey
from medtrust.host import build_host
from medtrust.recipes import cache_folder
from medtrust.spaces import load_spaces
from medtrust.stats import frechet_distance
from medtrust.types import FeatureMatrix

HALVES = 20
GENERATOR = "vae, 600 steps"


def halves_of(matrix: FeatureMatrix, rng: np.random.Generator) -> list[list[int]]:
    """Rows of `HALVES` random halves of the patients."""
    patients = sorted(set(matrix.patients))
    out = []
    for _ in range(HALVES):
        kept = {patients[i] for i in rng.permutation(len(patients))[: len(patients) // 2]}
        out.append([row for row, patient in enumerate(matrix.patients) if patient in kept])
    return out


def compare(exact: dict[str, FeatureMatrix], half: dict[str, FeatureMatrix], other: str, seed: int) -> dict[str, Any]:
    """Distance of train and another set in both precisions.

    Args:
        exact: Features in fp32, by set.
        half: Features of the same images in bf16.
        other: Which set to compare train with.
        seed: Chooses the halves.

    Returns:
        Both distances, the relative change, its range over the halves, and the largest relative error of a row.
    """
    rng = np.random.default_rng(seed)
    rows = {name: halves_of(exact[name], rng) for name in ("train", other)}
    a, b = exact["train"].values.double(), exact[other].values.double()
    a16, b16 = half["train"].values.double(), half[other].values.double()
    fp32, bf16 = frechet_distance(a, b), frechet_distance(a16, b16)
    spread = []
    for one, two in zip(rows["train"], rows[other], strict=True):
        before = frechet_distance(a[one], b[two])
        spread.append((frechet_distance(a16[one], b16[two]) - before) / before)
    error = (a16 - a).norm(dim=1) / a.norm(dim=1)
    return {
        "n": [len(a), len(b)],
        "fp32": float(f"{fp32:.6g}"),
        "bf16": float(f"{bf16:.6g}"),
        "relative_change": float(f"{(bf16 - fp32) / fp32:.3g}"),
        "over_halves": [float(f"{edge:.3g}") for edge in (min(spread), max(spread))],
        "feature_error": float(f"{error.median():.3g}"),
    }


def study(spaces: Sequence[str], images: int, work: Path, *, patients: int = 600, samples: int = 700) -> dict[str, Any]:
    """Extract the same images in both precisions and compare the distances.

    Args:
        spaces: Feature spaces that run a network.
        images: Of each set.
        work: Folder of samples and features.
        patients: As in ranking.py.
        samples: As in ranking.py.

    Returns:
        Comparisons by space and set.
    """
    host, store = build_host(), FeatureStore(work / "features")
    everything = sets_of(patients, samples, work, {GENERATOR: TRAINED[GENERATOR]})
    sets = {name: everything[name][:images] for name in ("train", "holdout", GENERATOR)}
    chosen = {name: host.find("features", name) for name in spaces}
    found: dict[str, dict[str, dict[str, FeatureMatrix]]] = {space: {} for space in spaces}
    for precision in ("fp32", "bf16"):
        extractors = load_spaces(chosen, host, {}, offline=True, cache_dir=cache_folder(), precision=precision)
        each = {name: survey(part, extractors, part.intensity, store) for name, part in sets.items()}
        for space in spaces:
            found[space][precision] = {name: one.features[space] for name, one in each.items()}
    return {
        space: {other: compare(by["fp32"], by["bf16"], other, 0) for other in ("holdout", GENERATOR)}
        for space, by in found.items()
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", default="inception,efficientnet-lite0")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--work", type=Path, default=Path("ranking"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = study(options.features.split(","), options.images, options.work)
    text = json.dumps({"torch": torch.__version__, "machine": platform.machine(), "spaces": found}, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
