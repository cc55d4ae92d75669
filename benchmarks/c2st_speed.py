"""Time of the classifier two-sample test with its shortcut audit, null and self-test, from decoded images to result.

    python benchmarks/c2st_speed.py --out benchmarks/results/c2st_speed.json

Noise with a faint ramp in one set: how many steps a network learns for depends on the number of images alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

from medtrust.types import ImageHeader, ImageRecord, Intensity, MetricInput, SetData, SetName
from medtrust_explain.c2st import TwoSampleTest

RAMP = 10  # levels from the top of an image to its bottom, in the synthetic set


def some(name: SetName, n: int, side: int, rng: np.random.Generator, ramp: float) -> SetData:
    """Colour images [3, side, side], each of its own patient."""
    pixels = rng.normal(128, 30, (n, 3, side, side)) + np.linspace(0, ramp, side)[:, None]
    header = ImageHeader((3, side, side), "uint8")
    names = tuple(f"{name}-{i}" for i in range(n))
    images = [
        ImageRecord(image, f"{own}.png", own, header, own)
        for image, own in zip(pixels.clip(0, 255).astype(np.uint8), names, strict=True)
    ]
    return SetData(name, images, names, names)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--images", type=int, default=2000, help="per set")
    parser.add_argument("--side", type=int, default=32, help="pixels")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    rng = np.random.default_rng(0)
    train, holdout = (some(name, args.images, args.side, rng, 0) for name in ("train", "holdout"))
    synthetic = some("synthetic", args.images, args.side, rng, RAMP)
    data = MetricInput(train, synthetic, holdout, Intensity(0.0, 255.0, "level"))
    began, cpu = time.perf_counter(), time.process_time()
    result = TwoSampleTest().compute(data)
    wall, spent = time.perf_counter() - began, time.process_time() - cpu
    row = {
        "images_per_set": args.images, "side": args.side, "seconds": round(wall, 2), "cpu_seconds": round(spent, 2),
        "auc": round(result.estimate.value, 4),
        "from": round(result.interval.lo, 4), "to": round(result.interval.hi, 4),
        "null_auc": round(result.null.value, 4), "selftest": result.selftest.status, "torch": torch.__version__,
        "load_average": round(os.getloadavg()[0], 1), "cores": os.cpu_count(),
    }  # fmt: skip
    print(json.dumps(row, indent=1))
    if args.out:
        args.out.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
