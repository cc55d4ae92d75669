"""Size and power of the copy test on real images: who is accused wrongly, and which copies are found.

    python benchmarks/power.py images.npz --repetitions 100 --out results/power.json

The archive holds `images` [N, H, W, C] uint8, unique, and `groups` [N], the patient of each. Every repetition splits
the patients anew into train, holdout and a third part that stands for the generator, and replaces a share of the third
part by edited copies of train images. The oracle is told which samples are copies: no test that looks only at the
labels of matched patients can do better.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from medtrust.seeding import derive_seed
from medtrust.stats import (
    LIGHT_EDITS,
    CopyTest,
    copy_test,
    edit_image,
    hypergeometric_tail,
    pixel_embedding,
    pixel_views,
)
from medtrust.types import FeatureMatrix, Intensity

LEVELS = Intensity(0.0, 255.0, "level")
SPLITS = ((600, 600), (1000, 250))
RATES = (0.0, 0.01, 0.02, 0.05)
NEGATIVES = ("fresh real", "under-dispersed", "over-dispersed")
FIXED = (5, 10, 20, 50)
ALPHA = 0.05


def negatives(kind: str, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn fresh real images [n, C, H, W] into those of a generator that copies nobody but has this fault."""
    values = images.astype(np.float64)
    if kind == "under-dispersed":
        values = values.mean(0) + 0.5 * (values - values.mean(0))
    elif kind == "over-dispersed":
        values = values + rng.normal(0, 25, values.shape)
    return values.clip(0, 255).round().astype(np.uint8)


def fixed_count_p(outcome: CopyTest, labels: np.ndarray) -> float:
    """Combine hypergeometric tests at four fixed counts by the smallest p: the plain way, for comparison."""
    counts = np.array([count for count in FIXED if count <= len(labels)])
    null = outcome.test.draw_labels(int(counts[-1]), 4999, seed=1)

    def smallest(rows: np.ndarray) -> np.ndarray:
        hits = np.cumsum(rows, axis=1)[:, counts - 1]
        return hypergeometric_tail(hits, outcome.test.n_train, outcome.test.n_holdout, counts).min(axis=1)

    return float((1 + (smallest(null) <= smallest(labels[None])[0] + 1e-12).sum()) / 5000)


def one_audit(
    images: np.ndarray, groups: np.ndarray, split: tuple[int, int], kind: str, rate: float, samples: int, seed: int
) -> dict[str, bool]:
    """Run one audit; returns whether each test rejects at 5 %."""
    rng = np.random.default_rng(seed)
    people = rng.permutation(groups.max() + 1)
    n_train, n_real = split[0], sum(split)
    part = np.empty(len(people), dtype=int)
    part[people] = np.repeat([0, 1, 2], [n_train, split[1], len(people) - n_real])
    train, holdout, rest = (np.flatnonzero(part[groups] == which) for which in range(3))
    synthetic = negatives(kind, images[rng.choice(rest, samples, replace=False)], rng)
    copies = round(rate * samples)
    sources = rng.choice(train, copies, replace=False)
    for at, source in enumerate(sources):
        synthetic[at] = edit_image(images[source], LIGHT_EDITS[at % len(LIGHT_EDITS)], rng).round().astype(np.uint8)

    def features(rows: np.ndarray) -> FeatureMatrix:
        patients = tuple(map(str, groups[rows]))
        return FeatureMatrix(embed(images[rows]), patients, ("",) * len(rows), "pixels", "")

    shape = (images.shape[1], min(images.shape[2], 32), min(images.shape[3], 32))
    views = partial(pixel_views, shape=shape)
    outcome = copy_test(features(train), features(holdout), embed(synthetic), seed=seed, views=views)
    copied = len(set(groups[sources]))
    others = outcome.in_train[outcome.ranked >= copies]
    oracle = np.r_[np.ones(copied, dtype=bool), others]
    plain = copy_test(features(train), features(holdout), embed(synthetic), seed=seed)
    return {
        "cpm": outcome.p <= ALPHA,
        "cpm, no views": plain.p <= ALPHA,
        "fixed counts, no views": fixed_count_p(plain, plain.in_train) <= ALPHA,
        "oracle": outcome.test(oracle).p <= ALPHA,
    }


def embed(images: np.ndarray) -> torch.Tensor:
    return pixel_embedding(torch.from_numpy(images), LEVELS)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path, help="npz with images [N, H, W, C] uint8 and groups [N]")
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--samples", type=int, default=700, help="synthetic images per audit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    args = parser.parse_args(argv)
    archive = np.load(args.data, allow_pickle=False)
    images, groups = archive["images"].transpose(0, 3, 1, 2), archive["groups"]
    cases = [(kind, 0.0) for kind in NEGATIVES] + [(NEGATIVES[0], rate) for rate in RATES[1:]]
    rows = []
    for split in SPLITS:
        for kind, rate in cases:
            began = time.perf_counter()
            names = (f"{split[0]}/{split[1]}", kind, rate)
            outcomes = [
                one_audit(images, groups, split, kind, rate, args.samples, derive_seed(args.seed, *map(str, names), i))
                for i in range(args.repetitions)
            ]
            rejected = {name: float(np.mean([o[name] for o in outcomes])) for name in outcomes[0]}
            rows.append({"train/holdout": names[0], "negatives": kind, "copies": rate, "rejects": rejected})
            cells = "  ".join(f"{name} {value:.2f}" for name, value in rejected.items())
            seconds = (time.perf_counter() - began) / args.repetitions
            print(f"{names[0]:>9}  {kind:<16} {rate:5.1%}  {cells}  ({seconds:.1f} s each)", flush=True)
    if args.out:
        machine = {"machine": platform.machine(), "python": platform.python_version(), "torch": torch.__version__}
        table = {
            "repetitions": args.repetitions, "samples": args.samples, "seed": args.seed, "data": args.data.name,
            "edits": LIGHT_EDITS, "alpha": ALPHA, "machine": machine, "rows": rows,
        }  # fmt: skip
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
