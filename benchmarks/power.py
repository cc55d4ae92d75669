"""Size and power of the copy tests on real images: who is accused wrongly, and which copies are found.

    medtrust data get derm-patches            # prints the folder
    python benchmarks/power.py FOLDER --space pixels --repetitions 200 --out benchmarks/results/power.json

The folder holds `manifest.csv` with the columns file and patient; an .npz with `images` [N, H, W, C] uint8 and `groups`
[N] will do as well. Every repetition splits the patients anew into train, holdout and a third part that stands for the
generator, and replaces a share of the third part by edited copies of train images. The oracle is told which samples are
copies: no test that looks only at the labels of matched patients can do better. Distances between all images and their
other versions are computed once, and the first audit is held against `medtrust.stats.copy_test`.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import platformdirs
import torch

sys.path.insert(0, str(Path(__file__).parent))
from power_data import COPY, FAULTS, FRESH, embedded, extractor_of, load

from medtrust.cache import FeatureStore
from medtrust.seeding import derive_seed
from medtrust.stats import (
    EnrichmentTest,
    Matches,
    authentic,
    closer_records,
    copy_test,
    copying_z,
    extreme_count_tail,
    holm,
    hypergeometric_tail,
    nearest_cell,
    pixel_views,
    rank_patients,
    two_shares_p,
)
from medtrust.types import FeatureMatrix

SPLITS = ((600, 600), (1000, 250))
RATES = (0.02, 0.01, 0.05, 0.005)
NEGATIVES = (FRESH, *FAULTS, "mode-dropping")
KEPT = 0.6  # of the images a mode-dropping generator still makes
FIXED = (5, 10, 20, 50)
NEIGHBOURS = 5
CELLS = 5
ALPHA = 0.05


class Table:
    """Distances from each version of each image to every image, and the cell of each version.

    Args:
        features: Features [N, d] of every version; "fresh real" is what the others are compared with.
        groups: [N] patient numbers.
        views: Further versions of the fresh images in which a copy counts; none outside the pixel space.
        seed: Seed of the cells' centres.
    """

    def __init__(self, features: dict[str, torch.Tensor], groups: np.ndarray, views: Callable | None, seed: int):
        self.groups, self.views, self.features = groups, views, features
        base = features[FRESH]
        seen = [base.double(), *(views(base) if views else ())]
        self.plain = {kind: distances(rows, seen[:1]) for kind, rows in features.items()}
        self.viewed = {k: distances(rows, seen) for k, rows in features.items()} if views else self.plain
        chosen = np.random.default_rng(seed).choice(len(base), CELLS, replace=False)
        centres = base[torch.from_numpy(chosen)].double()
        for _ in range(10):
            cells = torch.from_numpy(nearest_cell(base, centres))
            centres = torch.stack([base[cells == c].double().mean(0) for c in range(CELLS)])
        self.cells = {kind: nearest_cell(rows, centres) for kind, rows in features.items()}


def distances(rows: torch.Tensor, versions: list[torch.Tensor]) -> np.ndarray:
    """Distance of each row to each image in its nearest version [N, N] float32."""
    out = np.empty((len(rows), len(versions[0])), dtype=np.float32)
    for at in range(0, len(rows), 512):
        tile = rows[at : at + 512].double()
        norms = tile.square().sum(1, keepdim=True)
        squared = torch.stack([norms + v.square().sum(1) - 2 * tile @ v.T for v in versions]).amin(0)
        out[at : at + 512] = squared.clamp_min(0).sqrt().numpy()
    return out


@dataclass(frozen=True)
class Deal:
    """One random audit: rows of train and holdout, versions of the samples, and the sources of the copies."""

    train: np.ndarray
    holdout: np.ndarray
    kinds: tuple[str, ...]
    samples: np.ndarray
    copies: int


def deal(table: Table, split: tuple[int, int], kind: str, rate: float, samples: int, seed: int) -> Deal:
    """Split the patients at random and draw the synthetic set."""
    rng = np.random.default_rng(seed)
    groups = table.groups
    people = rng.permutation(groups.max() + 1)
    part = np.full(len(people), 2)
    part[people[: sum(split)]] = 1
    part[people[: split[0]]] = 0
    train, holdout, rest = (np.flatnonzero(part[groups] == side) for side in range(3))
    copies = round(rate * samples)
    sources = rng.choice(train, copies, replace=False)
    if kind == "mode-dropping":  # only what looks like one of its images, drawn at random
        rest = rest[np.argsort(table.plain[FRESH][rng.choice(rest)][rest])[: int(KEPT * len(rest))]]
    fresh = rng.choice(rest, min(samples - copies, len(rest)), replace=False)
    made = FRESH if kind == "mode-dropping" else kind
    return Deal(train, holdout, (COPY,) * copies + (made,) * len(fresh), np.r_[sources, fresh], copies)


def rows_of(kept: dict[str, np.ndarray], audit: Deal, columns: np.ndarray) -> np.ndarray:
    """Distances of the samples to some images [m, len(columns)]."""
    c = audit.copies
    parts = [kept[COPY][np.ix_(audit.samples[:c], columns)]] if c else []
    return np.concatenate([*parts, kept[audit.kinds[-1]][np.ix_(audit.samples[c:], columns)]])


def ratio(rows: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest patient and copy score, from distances to images sorted by patient."""
    nearest = np.minimum.reduceat(rows, starts, axis=1)
    few = np.sort(np.partition(nearest, NEIGHBOURS, axis=1)[:, : NEIGHBOURS + 1], axis=1)
    return nearest.argmin(1), few[:, 0] / few[:, 1:].mean(1)


def by_patient(rows: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort rows by patient: rows, patients, and where each patient starts."""
    rows = rows[np.argsort(groups[rows], kind="stable")]
    patients, starts = np.unique(groups[rows], return_index=True)
    return rows, patients, starts


def one_audit(
    table: Table, split: tuple[int, int], kind: str, rate: float, samples: int, seed: int, test: EnrichmentTest
) -> dict[str, float]:
    """Run one audit; returns the p-value of each test, and 0 or 1 for rules without one."""
    audit = deal(table, split, kind, rate, samples, seed)
    found = close_pairs(table, audit, test)
    found["extreme count"] = extreme(table, audit)
    found["combined"] = float(holm([found["cpm"], found["extreme count"]]).min())
    return found | others(table, audit)


def close_pairs(table: Table, audit: Deal, test: EnrichmentTest) -> dict[str, float]:
    """Close-pair membership, its oracle, and simpler forms of it."""
    groups = table.groups
    pool, patients, starts = by_patient(np.r_[audit.train, audit.holdout], groups)
    in_train = np.isin(patients, groups[audit.train])

    def rank(kept: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        best, score = ratio(rows_of(kept, audit, pool), starts)
        ranked = rank_patients(Matches(best, best, score, score))
        return ranked, in_train[best[ranked]]

    ranked, labels = rank(table.viewed)
    copied = np.ones(len(set(groups[audit.samples[: audit.copies]])), dtype=bool)
    found = {"cpm": test(labels).p, "oracle": test(np.r_[copied, labels[ranked >= audit.copies]]).p}
    plain = rank(table.plain)[1] if table.views else labels
    return found | {"cpm, no views": test(plain).p, "fixed counts": fixed_count_p(test, plain)}


def extreme(table: Table, audit: Deal) -> float:
    """Samples whose copy score against train is below that of every holdout patient."""
    groups = table.groups
    train, _, starts = by_patient(audit.train, groups)
    holdout, _, first = by_patient(audit.holdout, groups)
    synthetic = ratio(rows_of(table.viewed, audit, train), starts)[1]
    real = np.minimum.reduceat(ratio(table.viewed[FRESH][np.ix_(holdout, train)], starts)[1], first)
    return extreme_count_tail(int((synthetic < real.min()).sum()), len(synthetic), len(real))


def others(table: Table, audit: Deal) -> dict[str, float]:
    """The usual numbers: C_T, the distance to the closest record, and authenticity."""
    groups, fresh = table.groups, table.plain[FRESH]
    made = audit.kinds[-1]
    to_train = rows_of(table.plain, audit, audit.train)
    real = fresh[np.ix_(audit.holdout, audit.train)]
    cells = np.r_[table.cells[COPY][audit.samples[: audit.copies]], table.cells[made][audit.samples[audit.copies :]]]
    low = closer_records(to_train.min(1), real.min(1))
    within = fresh[np.ix_(audit.train, audit.train)].copy()
    within[groups[audit.train][:, None] == groups[audit.train]] = np.inf
    own = within.min(1)
    genuine = [int(authentic(d.min(1), d.argmin(1), own).sum()) for d in (to_train, real)]
    z = copying_z(to_train.min(1), real.min(1), cells, table.cells[FRESH][audit.holdout])[0]
    return {
        "C_T": float(z >= -3),  # the usual rule
        "DCR": float(low[0] >= low[1]),
        "authenticity": two_shares_p(genuine[0], len(to_train), genuine[1], len(real)),
    }


def fixed_count_p(test: EnrichmentTest, labels: np.ndarray) -> float:
    """Combine hypergeometric tests at four fixed counts by the smallest p: the plain way, for comparison."""
    counts = tuple(count for count in FIXED if count <= len(labels))
    observed = smallest_of(labels[None], test.n_train, test.n_holdout, counts)[0]
    return float((1 + (fixed_null(test, counts) <= observed + 1e-12).sum()) / 2000)


def smallest_of(rows: np.ndarray, n_train: int, n_holdout: int, counts: tuple[int, ...]) -> np.ndarray:
    """Smallest hypergeometric p-value of each ranking over some counts."""
    at = np.array(counts)
    return hypergeometric_tail(np.cumsum(rows, axis=1)[:, at - 1], n_train, n_holdout, at).min(axis=1)


@cache
def fixed_null(test: EnrichmentTest, counts: tuple[int, ...]) -> np.ndarray:
    """The smallest p-values of rankings without copies."""
    return smallest_of(test.draw_labels(counts[-1], 1999, seed=1), test.n_train, test.n_holdout, counts)


def check_against_product(table: Table, split: tuple[int, int], samples: int) -> None:
    """Stop unless this file's ranking gives the same statistic as the product's own test."""
    audit = deal(table, split, FRESH, 0.0, samples, 0)
    ours = close_pairs(table, audit, EnrichmentTest(*split, seed=0))["cpm"]
    base, names = table.features[FRESH], [str(g) for g in table.groups]
    train, holdout = (
        FeatureMatrix(base[rows], tuple(names[i] for i in rows), ("",) * len(rows), "", "")
        for rows in (audit.train, audit.holdout)
    )
    product = copy_test(train, holdout, base[audit.samples], seed=0, views=table.views)
    if abs(product.p - ours) > 0.01:
        raise SystemExit(f"this benchmark ranks differently from the product: p {ours} against {product.p}")


def make_table(data: Path, space: str, kinds: Iterable[str], seed: int, cache: Path) -> Table:
    """Load the images and embed every version of them."""
    images, groups, _ = load(data)
    store, extractor = FeatureStore(cache / "features"), extractor_of(space, cache)
    every = np.arange(len(images))
    features = {kind: embedded(extractor, images, kind, every, seed, store) for kind in kinds}
    if getattr(extractor, "standardise", False):
        mean, sd = features[FRESH].mean(0), features[FRESH].std(0).clamp_min(1e-6)
        features = {kind: (rows - mean) / sd for kind, rows in features.items()}
    shape = (images.shape[1], min(images.shape[2], 32), min(images.shape[3], 32))
    return Table(features, groups, partial(pixel_views, shape=shape) if space == "pixels" else None, seed)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path, help="folder with manifest.csv, or .npz")
    parser.add_argument("--space", default="pixels", help="feature space in which copies are looked for")
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--samples", type=int, default=700, help="synthetic images per audit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path(platformdirs.user_cache_dir("medtrust")))
    parser.add_argument("--splits", default="600/600,1000/250", help="train/holdout patients, comma-separated")
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    args = parser.parse_args(argv)
    began = time.perf_counter()
    table = make_table(args.data, args.space, (FRESH, COPY, *FAULTS), args.seed, args.cache)
    check_against_product(table, SPLITS[0], args.samples)
    print(f"distances ready after {time.perf_counter() - began:.0f} s", flush=True)
    cases = [(FRESH, rate) for rate in RATES] + [(kind, 0.0) for kind in NEGATIVES]
    rows = []
    for split in [tuple(map(int, each.split("/"))) for each in args.splits.split(",")]:
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
            "space": args.space, "alpha": ALPHA, "machine": machine, "rows": rows,
        }  # fmt: skip
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
