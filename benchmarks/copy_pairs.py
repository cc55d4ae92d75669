"""Does the copy score tell near-duplicate pairs of real images from unrelated pairs, and in which embedding?

    medtrust data get derm-patches            # prints the folder
    python benchmarks/copy_pairs.py FOLDER --spaces pixels,radiomics --out benchmarks/results/copy_pairs.json

derm-patches holds pairs that people judged alike and pairs of unrelated patches. One image of each pair joins the
reference, the other is offered as a synthetic image; its score is the distance to its partner over the mean distance to
the five nearest other images. Pairs of identical pixels are counted apart: they are no test.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import platformdirs
import torch
from PIL import Image
from scipy.stats import rankdata

sys.path.insert(0, str(Path(__file__).parent))
from power_data import LEVELS, extractor_of

from medtrust import ops
from medtrust.cache import FeatureStore, space_key
from medtrust.stats import pixel_views

_NAME = re.compile(r"patch(\d+)([ab])\.bmp")
_BATCH = 64
NEIGHBOURS = 5


def pairs_of(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the pairs of one kind: first and second image of each [P, 3, 32, 32] uint8."""
    found: dict[int, dict[str, np.ndarray]] = {}
    for path in sorted(folder.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match:
            pixels = np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)
            if pixels.shape == (3, 32, 32):
                found.setdefault(int(match[1]), {})[match[2]] = pixels
    whole = [found[number] for number in sorted(found) if len(found[number]) == 2]
    return np.stack([pair["a"] for pair in whole]), np.stack([pair["b"] for pair in whole])


def features_of(space: str, images: np.ndarray, cache: Path) -> torch.Tensor:
    """Features of images in one space; what the store holds is not computed again."""
    extractor, store = extractor_of(space, cache), FeatureStore(cache / "features")
    key, out = space_key(extractor.digest, LEVELS), []
    for at in range(0, len(images), _BATCH):
        batch = images[at : at + _BATCH]
        digests = [hashlib.sha256(b"uint8" + each.tobytes()).hexdigest() for each in batch]
        known = store.lookup(key, digests)
        if any(row is None for row in known):
            values = extractor.extract(torch.from_numpy(batch), LEVELS)
            store.add(key, digests, values)
        else:
            values = torch.stack([row for row in known if row is not None])
        out.append(values.double().clone())
    values = torch.cat(out)
    if getattr(extractor, "standardise", False):
        values = (values - values.mean(0)) / values.std(0).clamp_min(1e-9)
    return values


def scores(first: torch.Tensor, second: torch.Tensor, views) -> np.ndarray:
    """Copy score of each second image against its partner, among all first images [P]."""
    itself = torch.arange(len(first))
    versions = [first, *(views(first.float()) if views else ())]
    partner = torch.stack([(second - version).norm(dim=1) for version in versions]).amin(0)
    near = [ops.nearest(second, version.double(), NEIGHBOURS, (itself, itself)) for version in versions]
    distance, row = (torch.cat([each[i] for each in near], dim=1) for i in (0, 1))
    others = []
    for values, rows in zip(distance, row, strict=True):
        order = values.argsort(stable=True)
        _, first_seen = np.unique(rows[order].numpy(), return_index=True)
        others.append(float(values[order][torch.from_numpy(np.sort(first_seen)[:NEIGHBOURS])].mean()))
    return (partner / torch.tensor(others).clamp_min(1e-12)).numpy()


def auc(low: np.ndarray, high: np.ndarray) -> float:
    """Chance that a score of the first group is the smaller one."""
    ranks = rankdata(np.r_[low, high])[: len(low)]
    return float(1 - (ranks.sum() - len(low) * (len(low) + 1) / 2) / (len(low) * len(high)))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--spaces", default="pixels,radiomics,inception")
    parser.add_argument("--alike", type=int, default=0, help="use the first so many pairs that were judged alike")
    parser.add_argument("--apart", type=int, default=0, help="use the first so many unrelated pairs")
    parser.add_argument("--cache", type=Path, default=Path(platformdirs.user_cache_dir("medtrust")))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    alike, apart = pairs_of(args.data / "Similar"), pairs_of(args.data / "nonSimilar")
    if args.alike:
        alike = tuple(side[: args.alike] for side in alike)
    if args.apart:
        apart = tuple(side[: args.apart] for side in apart)
    same = (alike[0] == alike[1]).all(axis=(1, 2, 3))
    rows = []
    for space in args.spaces.split(","):
        stacked = features_of(space, np.concatenate([*alike, *apart]), args.cache)
        a, b, c, d = stacked.split([len(alike[0])] * 2 + [len(apart[0])] * 2)
        views = partial(pixel_views, shape=(3, 32, 32)) if space == "pixels" else None
        found = scores(torch.cat([a, c]), torch.cat([b, d]), views)
        near, far = found[: len(a)], found[len(a) :]
        rng = np.random.default_rng(0)
        boot = [auc(rng.choice(near, len(near)), rng.choice(far, len(far))) for _ in range(200)]
        row = {
            "space": space, "alike": len(near), "identical": int(same.sum()), "apart": len(far),
            "auc": auc(near, far), "auc_of_not_identical": auc(near[~same], far), "se": float(np.std(boot)),
        }  # fmt: skip
        rows.append(row)
        print(json.dumps(row), flush=True)
    if args.out:
        args.out.write_text(json.dumps({"data": args.data.name, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
