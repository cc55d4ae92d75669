"""Time of the copy tests on large sets: close-pair membership, extreme count and evidence.

    python benchmarks/privacy_speed.py --out benchmarks/results/privacy_speed.json

Features are drawn at random with planted copies: the time of an exact search does not depend on what is searched.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch

from medtrust.stats import conformal_p, copy_score, copy_test, extreme_count_tail


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--train", type=int, default=100_000)
    parser.add_argument("--holdout", type=int, default=10_000)
    parser.add_argument("--synthetic", type=int, default=10_000)
    parser.add_argument("--columns", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    generator = torch.Generator().manual_seed(0)
    train, holdout, synthetic = (
        torch.randn(n, args.columns, generator=generator) for n in (args.train, args.holdout, args.synthetic)
    )
    copies = args.synthetic // 100
    synthetic[:copies] = train[:copies] + 0.1 * torch.randn(copies, args.columns, generator=generator)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    cpu = time.process_time()
    outcome = copy_test(train, holdout, synthetic, seed=0)
    marks = {"cpm": time.perf_counter() - began}
    codes = np.arange(args.train)
    scores, real = (copy_score(rows, train, codes).score for rows in (synthetic, holdout))
    count = int((scores < real.min()).sum())
    p = extreme_count_tail(count, len(scores), len(real))
    conformal = conformal_p(scores, real)
    marks["extreme count"] = time.perf_counter() - began - sum(marks.values())
    worst = torch.from_numpy(np.argsort(outcome.matches.score)[:12])
    pairs = [copy_score(synthetic[worst], rows, np.arange(len(rows))).row for rows in (train, holdout)]
    marks["evidence"] = time.perf_counter() - began - sum(marks.values())
    total = time.perf_counter() - began
    found = float(np.mean(np.isin(pairs[0], np.arange(copies))))
    row = {
        "train": args.train, "holdout": args.holdout, "synthetic": args.synthetic, "columns": args.columns,
        "threads": args.threads, "seconds": round(total, 2), "cpu_seconds": round(time.process_time() - cpu, 2),
        "stages": {name: round(value, 2) for name, value in marks.items()},
        "features_mib": round((train.numel() + holdout.numel() + synthetic.numel()) * 4 / 2**20),
        "extra_peak_mib": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024),
        "p_cpm": outcome.p, "p_extreme_count": p, "extreme": count, "smallest_conformal_p": float(conformal.min()),
        "evidence_that_are_copies": found, "torch": torch.__version__,
    }  # fmt: skip
    print(json.dumps(row, indent=1))
    if args.out:
        args.out.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
