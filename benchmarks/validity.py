"""Which degradations does a feature space notice? The features suite of `medtrust selftest`, on public images.

    python benchmarks/validity.py --data derm-patches --features radiomics,efficientnet-lite0,inception
    python benchmarks/validity.py --data ct-rider --features radiomics,efficientnet-lite0 --images 32
    python benchmarks/validity.py --data ct-lung-dx --features radiomics --images 32

`--images` of them are degraded in six ways at five strengths: the suite of `medtrust selftest` takes 64, an audit 32.
Printed is Spearman's correlation of strength and Fréchet distance from other images of the same set. derm-patches are
counted by patient; ct-rider and ct-lung-dx have one patient each, so every slice is declared a unit (`--patients .+`),
and the answer is about those slices alone. With `--out` what was found joins the file, by data.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch

from medtrust.cache import FeatureStore
from medtrust.demo import split_patients
from medtrust.extraction import survey
from medtrust.host import build_host
from medtrust.images import ImageSet, open_set
from medtrust.progress import QuietProgress
from medtrust.recipes import cache_folder, get_recipe
from medtrust.seeding import derive_seed
from medtrust.sources import readers_of
from medtrust.spaces import load_spaces
from medtrust.validity import check_spaces

DATA = ("derm-patches", "ct-rider", "ct-lung-dx")
IMAGES = 400  # of derm-patches: those of benchmarks/precision.py, whose features are in the same store


def images_of(data: str) -> ImageSet:
    """Open one of the public sets.

    Args:
        data: Name of the recipe.
    """
    readers = readers_of(build_host())
    place = get_recipe(data, cache=cache_folder(), progress=QuietProgress())
    if data != "derm-patches":
        return open_set(place, "train", readers, patients=".+")
    train, _ = split_patients(open_set(place, "train", readers), 600, derive_seed(0, "demo", "split"))
    return train[:IMAGES]


def measure(data: str, spaces: list[str], images: int, work: Path) -> dict[str, Any]:
    """Check the spaces.

    Args:
        data: Name of the recipe.
        spaces: Feature spaces.
        images: How many to degrade.
        work: Folder of the feature store.

    Returns:
        By space: status, Spearman's correlations and distances.
    """
    host, train = build_host(), images_of(data)
    extractors = load_spaces(
        {name: host.find("features", name) for name in spaces}, host, {}, offline=True, cache_dir=cache_folder()
    )
    store = FeatureStore(work / "features")
    found = survey(train, extractors, train.intensity, store)
    checks = check_spaces(train, found.features, extractors, train.intensity, store, images=images)
    return {space: check.as_dict() for space, check in checks.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=DATA, default="derm-patches")
    parser.add_argument("--features", default="radiomics,efficientnet-lite0")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--work", type=Path, default=Path("validity"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(options.data, options.features.split(","), options.images, options.work)
    for space, facts in found.items():
        print(space, facts["status"], facts["spearman"])
    if options.out:
        known = json.loads(options.out.read_text())["data"] if options.out.is_file() else {}
        known[options.data] = {**known.get(options.data, {}), **found}
        facts = {"torch": torch.__version__, "machine": platform.machine(), "data": known}
        options.out.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
