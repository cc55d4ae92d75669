"""How much memory does one pass over many images take? `python benchmarks/memory.py --images 100000 --columns 2048`

Images of 32 x 32 are made while they are read, so that the disk plays no part; they go through the same image set,
feature store and survey as an audit's. The space is a fixed random projection to as many columns as inception has.
Peak memory is the process's, torch and all (ru_maxrss).
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medtrust.cache import FeatureStore
from medtrust.extraction import survey
from medtrust.images.imageset import Entry, ImageSet
from medtrust.types import ImageHeader, Intensity, Limits

LEVELS = Intensity(0, 255, "level")
SIDE = 32


class Made:
    """Image `index` is noise with that seed."""

    def scan(self, path: Path, limits: Limits) -> list[ImageHeader]:
        raise NotImplementedError("the entries are made by hand")

    def read(self, path: Path, header: ImageHeader, limits: Limits) -> np.ndarray:
        return np.random.default_rng(header.index).integers(0, 256, header.shape, dtype=np.uint8)


class Projection:
    """A fixed random projection."""

    names: tuple[str, ...] = ()
    digest = "ab" * 32

    def __init__(self, columns: int) -> None:
        self.weights = torch.randn(SIDE * SIDE, columns, generator=torch.Generator().manual_seed(0)) / SIDE

    def extract(self, images: torch.Tensor, intensity: Intensity) -> torch.Tensor:
        return images.flatten(1).float() @ self.weights


def peak() -> float:
    """Largest resident memory so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if platform.system() == "Darwin" else 2**10)


def measure(images: int, columns: int, store: Path) -> dict[str, Any]:
    """One pass, and one more, which must extract nothing.

    Args:
        images: How many.
        columns: Width of the space.
        store: Folder of the feature store.

    Returns:
        Peak memory before and after, seconds, and how many images each pass extracted.
    """
    reader = Made()
    entries = [
        Entry(store, f"{i}", f"p{i // 4}", ImageHeader((1, SIDE, SIDE), "uint8", i, LEVELS), reader, "made")
        for i in range(images)
    ]
    space = Projection(columns)
    before, start = peak(), time.perf_counter()
    found = survey(
        ImageSet("train", entries, LEVELS, Limits(), patients_known=True),
        {"projection": space}, LEVELS, FeatureStore(store), workers=2,
    )  # fmt: skip
    seconds, after, first = time.perf_counter() - start, peak(), dict(found.extracted)
    shape = tuple(found.features["projection"].values.shape)
    del found
    again = survey(
        ImageSet("train", entries, LEVELS, Limits(), patients_known=True),
        {"projection": space}, LEVELS, FeatureStore(store), workers=2,
    )  # fmt: skip
    return {
        "images": images,
        "columns": columns,
        "shape": shape,
        "mib_before": round(before),
        "mib_peak": round(after),
        "mib_peak_with_second_pass": round(peak()),
        "seconds": round(seconds, 1),
        "extracted": first["projection"],
        "extracted_again": again.extracted["projection"],
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--columns", type=int, default=2048)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.images, options.columns, Path(folder))
    print(json.dumps(found, indent=1))
    if options.out:
        options.out.write_text(json.dumps({"torch": torch.__version__, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
