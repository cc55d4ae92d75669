"""What does it bring to begin with another discipline's weights? `python benchmarks/transfer.py --work DIR`

A VAE is fitted on few patches of a target discipline: from nothing, and from a VAE that was fitted on many patches of a
source discipline, with the same number of steps. Samples of both are compared with tiles that neither has seen. For
each seed the split is drawn anew, so that the spread over seeds is that of data and training. Also asked: does the
transferred generator copy patients of its *source*? The result file grows row by row.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from discipline_sets import DISCIPLINES, discipline

import medtrust
from medtrust.host import build_host
from medtrust.images import ImageSet, open_set, write_set
from medtrust.progress import QuietProgress
from medtrust.recipes import cache_folder
from medtrust.sampling import sample_to
from medtrust.sources import GeneratorSource, open_generator, readers_of
from peers import ROOT, machine

RESULT = ROOT / "benchmarks" / "results" / "transfer.json"
ROADS = (
    ("ophthalmology", "dermatology"),
    ("pathology", "dermatology"),
    ("radiology, MR", "radiology, X-ray"),
    ("radiology, MR", "radiology, CT"),
)
FEW = 60  # tiles of the target
MANY = 600  # patches of the source
STEPS = {"source": 250, "target": 80}
SAMPLES = 600
HOLDOUT = 150
SPACE = "radiomics"


def _written(folder: Path, images: ImageSet, rows: Any) -> Path:
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        write_set(partial, ((f"{folder.name}-{i:04d}", images[int(i)].pixels) for i in rows), images.intensity)
        partial.rename(folder)
    return folder


def _split(images: ImageSet, sizes: dict[str, int], seed: int, work: Path) -> dict[str, Path]:
    one_each = list({patient: row for row, patient in enumerate(images.patients)}.values())
    drawn, sets, begun = np.random.default_rng((seed, 7)).permutation(one_each), {}, 0
    for name, size in sizes.items():
        sets[name] = _written(work / name, images, drawn[begun : begun + size])
        begun += size
    return sets


def _fit(data: Path, out: Path, steps: int, seed: int, start: Path | None) -> Path:
    host = build_host()
    train = open_set(data, "train", readers_of(host), patients=".+")
    options = {"steps": str(steps), "augment": "flips"} | ({"start": str(start)} if start else {})
    factory = host.load(host.find("generator", "vae"))()
    return Path(factory.train(train, train.intensity, out, seed=seed, progress=QuietProgress(), options=options))


def _drawn(checkpoint: Path, out: Path, seed: int) -> Path:
    if not out.is_dir():
        generator = open_generator(GeneratorSource("vae", checkpoint, {}), build_host(), "cpu")
        sample_to(generator, SAMPLES, out, seed=seed, progress=QuietProgress())
    return out


def _audit(train: Path, holdout: Path | None, synthetic: Path, seed: int, metrics: list[str]) -> dict[str, Any]:
    report = medtrust.audit(
        train=train,
        holdout=holdout,
        synthetic=synthetic,
        features=[SPACE],
        metrics=metrics,
        patients=".+",
        seed=seed,
        cache=cache_folder(),
        progress=QuietProgress(),
    )
    found: dict[str, Any] = {}
    for result in report.results:
        found[result.id] = result.test.p if result.test else result.estimate.value if result.estimate else result.reason
    return found


def row(target: str, source: str, seed: int, work: Path) -> dict[str, Any]:
    """Fit with and without the source's weights, and audit both.

    Args:
        target: Discipline with few tiles.
        source: Discipline with many.
        seed: Of the splits, the trainings and the samples.
        work: Folder.
    """
    place = work / f"{target}-{source}-{seed}".replace(", ", "-")
    begun = work / f"{source}-{seed}".replace(", ", "-")
    for folder in (place, begun):
        folder.mkdir(parents=True, exist_ok=True)
    few = _split(discipline(target, work), {"train": FEW, "holdout": HOLDOUT}, seed, place)
    many = _split(discipline(source, work), {"train": MANY, "holdout": MANY // 2}, seed, begun)
    began = time.process_time()
    first = _fit(many["train"], begun / "source", STEPS["source"], seed, None)
    out: dict[str, Any] = {"target": target, "source": source, "seed": seed}
    for name, start in (("from nothing", None), ("transferred", first)):
        path = _fit(few["train"], place / name.replace(" ", "-"), STEPS["target"], seed, start)
        samples = _drawn(path, place / f"{name.replace(' ', '-')}-samples", seed)
        out[name] = _audit(few["holdout"], None, samples, seed, ["fd", "prdc"])  # against images it never saw
        out[name] |= _audit(few["train"], few["holdout"], samples, seed, ["cpm"])
    if source == "dermatology":  # of the same shape and unit as the target, so that copies can be looked for
        synthetic = place / "transferred-samples"
        out["copies of the source"] = _audit(many["train"], many["holdout"], synthetic, seed, ["cpm"])
    out["cpu_s"] = round(time.process_time() - began, 1)
    return out


def main() -> None:
    """Run what the result file lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("transfer"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    found = json.loads(options.out.read_text()) if options.out.is_file() else {"rows": []}
    torch.set_num_threads(1)
    assert {name for road in ROADS for name in road} <= set(DISCIPLINES)
    for seed in range(options.seeds):
        for target, source in ROADS:
            if any((r["target"], r["source"], r["seed"]) == (target, source, seed) for r in found["rows"]):
                continue
            found["rows"].append(row(target, source, seed, options.work))
            found["machine"] = machine(1)
            options.out.write_text(json.dumps(found, indent=1) + "\n")
            print(json.dumps(found["rows"][-1]), flush=True)


if __name__ == "__main__":
    main()
