"""Size and power of the copy test on real images: who is accused wrongly, and which copies are found.

    medtrust data get derm-patches            # prints the folder
    python benchmarks/power.py FOLDER --repetitions 200 --out benchmarks/results/power.json

The folder holds `manifest.csv` with the columns file and patient; an .npz with `images` [N, H, W, C] uint8 and `groups`
[N] will do as well. Every repetition splits the patients anew into train, holdout and a third part that stands for the
generator, and replaces a share of the third part by edited copies of train images. The oracle is told which samples are
copies: no test that looks only at the labels of matched patients can do better. Distances between all images and their
edited versions are computed once, and the first audit is held against `medtrust.stats.copy_test`.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medtrust.seeding import derive_seed
from medtrust.stats import (
    LIGHT_EDITS,
    EnrichmentTest,
    Matches,
    copy_test,
    edit_image,
    hypergeometric_tail,
    pixel_embedding,
    pixel_views,
    rank_patients,
)
from medtrust.types import FeatureMatrix, Intensity

LEVELS = Intensity(0.0, 255.0, "level")
SPLITS = ((600, 600), (1000, 250))
RATES = (0.005, 0.01, 0.02, 0.05)
NEGATIVES = ("fresh real", "under-dispersed", "over-dispersed")
FIXED = (5, 10, 20, 50)
NEIGHBOURS = 5
ALPHA = 0.05


class Table:
    """Distances from each version of each image to every image.

    Args:
        images: [N, C, H, W] uint8.
        groups: [N] patient numbers.
        kinds: Versions to prepare: negatives and edits.
        seed: Seed of the edits.
    """

    def __init__(self, images: np.ndarray, groups: np.ndarray, kinds: Iterable[str], seed: int) -> None:
        self.groups = groups
        rng = np.random.default_rng(seed)
        base = embed(images)
        self.views = partial(pixel_views, shape=(images.shape[1], min(images.shape[2], 32), min(images.shape[3], 32)))
        self.embedded = {kind: embed(version(kind, images, rng)) for kind in kinds}
        self.plain: dict[str, np.ndarray] = {}
        self.viewed: dict[str, np.ndarray] = {}
        seen = [base.double(), *self.views(base)]
        for kind, rows in self.embedded.items():
            self.plain[kind] = distances(rows, seen[:1])
            self.viewed[kind] = distances(rows, seen)


def version(kind: str, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Edit images, or make them those of a generator that copies nobody but has a fault."""
    if kind == "fresh real":
        return images
    if kind in LIGHT_EDITS:
        return np.stack([edit_image(image, kind, rng).round().astype(np.uint8) for image in images])
    values = images.astype(np.float64)
    if kind == "under-dispersed":
        values = values.mean(0) + 0.5 * (values - values.mean(0))
    else:
        values = values + rng.normal(0, 25, values.shape)
    return values.clip(0, 255).round().astype(np.uint8)


def embed(images: np.ndarray) -> torch.Tensor:
    return pixel_embedding(torch.from_numpy(images), LEVELS)


def distances(rows: torch.Tensor, versions: list[torch.Tensor]) -> np.ndarray:
    """Distance of each row to each image in its nearest version [N, N] float32."""
    out = np.empty((len(rows), len(versions[0])), dtype=np.float32)
    for at in range(0, len(rows), 512):
        tile = rows[at : at + 512].double()
        norms = tile.square().sum(1, keepdim=True)
        squared = torch.stack([norms + v.square().sum(1) - 2 * tile @ v.T for v in versions]).amin(0)
        out[at : at + 512] = squared.clamp_min(0).sqrt().numpy()
    return out


def one_audit(
    table: Table, split: tuple[int, int], kind: str, rate: float, samples: int, seed: int, test: EnrichmentTest
) -> dict[str, float]:
    """Run one audit; returns the p-value of each test."""
    rng = np.random.default_rng(seed)
    groups = table.groups
    people = rng.permutation(groups.max() + 1)
    part = np.full(len(people), 2)
    part[people[: sum(split)]] = 1
    part[people[: split[0]]] = 0
    train, rest = np.flatnonzero(part[groups] == 0), np.flatnonzero(part[groups] == 2)
    pool = np.flatnonzero(part[groups] < 2)
    pool = pool[np.argsort(groups[pool], kind="stable")]
    patients, starts = np.unique(groups[pool], return_index=True)
    copies = round(rate * samples)
    sources = rng.choice(train, copies, replace=False)
    edits = [LIGHT_EDITS[at % len(LIGHT_EDITS)] for at in range(copies)]
    fresh = rng.choice(rest, samples - copies, replace=False)

    def rank(kept: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        planted = [kept[edit][source][pool] for edit, source in zip(edits, sources, strict=True)]
        rows = np.concatenate([np.reshape(planted, (copies, len(pool))), kept[kind][np.ix_(fresh, pool)]])
        nearest = np.minimum.reduceat(rows, starts, axis=1)
        few = np.sort(np.partition(nearest, NEIGHBOURS, axis=1)[:, : NEIGHBOURS + 1], axis=1)
        best, score = nearest.argmin(1), few[:, 0] / few[:, 1:].mean(1)
        ranked = rank_patients(Matches(best, best, few[:, 0], score))
        return ranked, part[patients[best[ranked]]] == 0

    ranked, labels = rank(table.viewed)
    _, plain = rank(table.plain)
    copied = np.ones(len(set(groups[sources])), dtype=bool)
    return {
        "cpm": test(labels).p,
        "cpm, no views": test(plain).p,
        "fixed counts, no views": fixed_count_p(test, plain),
        "oracle": test(np.r_[copied, labels[ranked >= copies]]).p,
    }


def fixed_count_p(test: EnrichmentTest, labels: np.ndarray) -> float:
    """Combine hypergeometric tests at four fixed counts by the smallest p: the plain way, for comparison."""
    counts = np.array([count for count in FIXED if count <= len(labels)])
    null = test.draw_labels(int(counts[-1]), 1999, seed=1)

    def smallest(rows: np.ndarray) -> np.ndarray:
        hits = np.cumsum(rows, axis=1)[:, counts - 1]
        return hypergeometric_tail(hits, test.n_train, test.n_holdout, counts).min(axis=1)

    return float((1 + (smallest(null) <= smallest(labels[None])[0] + 1e-12).sum()) / 2000)


def check_against_product(table: Table, split: tuple[int, int], samples: int) -> None:
    """Stop unless this file's ranking gives the same statistic as the product's own test."""
    test = EnrichmentTest(*split, seed=0)
    rng = np.random.default_rng(0)
    groups = table.groups
    people = rng.permutation(groups.max() + 1)
    ours = one_audit(table, split, "fresh real", 0.0, samples, 0, test)["cpm"]
    rows = [np.flatnonzero(np.isin(groups, people[a:b])) for a, b in ((0, split[0]), (split[0], sum(split)))]
    rest = np.flatnonzero(np.isin(groups, people[sum(split) :]))
    rng.choice(np.flatnonzero(np.isin(groups, people[: split[0]])), 0, replace=False)
    base = table.embedded["fresh real"]
    train, holdout = (FeatureMatrix(base[r], tuple(map(str, groups[r])), ("",) * len(r), "pixels", "") for r in rows)
    fresh = rng.choice(rest, samples, replace=False)
    product = copy_test(train, holdout, base[fresh], seed=0, views=table.views)
    if abs(product.p - ours) > 0.01:
        raise SystemExit(f"this benchmark ranks differently from the product: p {ours} against {product.p}")


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read images [N, C, H, W] uint8 of one size, and the number of each image's patient [N]."""
    if path.is_dir():
        with (path / "manifest.csv").open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        images = np.stack([np.asarray(Image.open(path / row["file"]).convert("RGB")) for row in rows])
        names = np.array([row["patient"] for row in rows])
    else:
        archive = np.load(path, allow_pickle=False)
        images, names = archive["images"], archive["groups"]
    return images.transpose(0, 3, 1, 2), np.unique(names, return_inverse=True)[1]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path, help="folder with manifest.csv, or .npz")
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--samples", type=int, default=700, help="synthetic images per audit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    args = parser.parse_args(argv)
    began = time.perf_counter()
    table = Table(*load(args.data), [*NEGATIVES, *LIGHT_EDITS], args.seed)
    check_against_product(table, SPLITS[0], args.samples)
    print(f"distances ready after {time.perf_counter() - began:.0f} s", flush=True)
    cases = [(kind, 0.0) for kind in NEGATIVES] + [(NEGATIVES[0], rate) for rate in RATES]
    rows = []
    for split in SPLITS:
        test = EnrichmentTest(*split, seed=args.seed)
        for kind, rate in cases:
            name = f"{split[0]}/{split[1]}"
            seeds = [derive_seed(args.seed, name, kind, str(rate), i) for i in range(args.repetitions)]
            found = [one_audit(table, split, kind, rate, args.samples, seed, test) for seed in seeds]
            rejected = {each: float(np.mean([p[each] <= ALPHA for p in found])) for each in found[0]}
            rows.append({"train/holdout": name, "negatives": kind, "copies": rate, "rejects": rejected})
            cells = "  ".join(f"{each} {value:.3f}" for each, value in rejected.items())
            print(f"{name:>9}  {kind:<16} {rate:5.1%}  {cells}", flush=True)
    if args.out:
        machine = {"machine": platform.machine(), "python": platform.python_version(), "torch": torch.__version__}
        report = {
            "repetitions": args.repetitions, "samples": args.samples, "seed": args.seed, "data": args.data.name,
            "edits": LIGHT_EDITS, "alpha": ALPHA, "machine": machine, "rows": rows,
        }  # fmt: skip
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
