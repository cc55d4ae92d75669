"""Every trainable generator on real images: `python benchmarks/generators.py [--only derm] [--cells vae,gan]`.

With `--seconds N`, training stops after N seconds and the next call goes on from its last note, and nothing is audited
before it has ended: training goes in pieces and its CPU time counts, so that a busy machine can run it.

Two data sets: dermoscopic patches (3 x 32 x 32, 8 bit) and CT slices in Hounsfield units (1 x 32 x 32, 16 bit, averaged
down from 512 x 512; head and knee of the Visible Human, chests of ct-rider and ct-lung-dx). Each is split by patient
into train and holdout of one size; a generator is fitted on train by its own recipe, as many images are drawn as train
has, and the audit compares them in two feature spaces. The result file grows by one row per generator, so that a
stopped study goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import medtrust
from medtrust.demo import split_patients
from medtrust.host import build_host
from medtrust.images import ImageSet, open_set, write_set
from medtrust.progress import QuietProgress, make_progress
from medtrust.recipes import cache_folder, get_recipe
from medtrust.sampling import sample_to
from medtrust.sources import GeneratorSource, open_generator, readers_of
from medtrust.types import Intensity
from peers import ROOT, machine

RESULT = ROOT / "benchmarks" / "results" / "generators.json"
PATIENTS = {"derm": 400, "ct": 80}
AUGMENT = {"derm": "dihedral", "ct": "none"}
CELLS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "vae, a minute": ("vae", {"steps": "240"}),
    "flow, a minute": ("flow", {"steps": "200"}),
    "gan, a minute": ("gan", {"steps": "280"}),
    "vae": ("vae", {}),
    "gan": ("gan", {}),
    "flow": ("flow", {}),
    "flow, longer": ("flow", {"steps": "1000"}),
    "ddpm": ("ddpm", {}),
    "edm": ("edm", {}),
}
REGIONS = {
    "head": ("ct-visible-human", "Head"),
    "knee": ("ct-visible-human", "Knee"),
    "chest": ("ct-rider", "1.3.6.1.4.1.9328.50.1.83304264089411327530730818890072724533"),
    "lung": ("ct-lung-dx", ""),
}
SIDE, BLOCK = 32, 5
SAVE = 20
SEED = 1


def ct_slices(folder: Path, readers: Any) -> Path:
    """Average 512 x 512 slices of four people and places down to 32 x 32; five neighbouring slices are one patient."""
    rows = []

    def slices() -> Iterator[tuple[str, np.ndarray]]:
        for region, (recipe, place) in REGIONS.items():
            root = get_recipe(recipe, cache=cache_folder(), progress=make_progress())
            images = open_set(root / place, "train", readers)
            for i, record in enumerate(images):
                fine = record.pixels[0].astype(np.float64)
                size = min(fine.shape) // SIDE * SIDE
                top, left = (fine.shape[0] - size) // 2, (fine.shape[1] - size) // 2
                step = size // SIDE
                coarse = fine[top : top + size, left : left + size].reshape(SIDE, step, SIDE, step).mean((1, 3))
                name = f"{region}-{i:03d}"
                rows.append((f"{name}.npz", f"{region}{i // BLOCK}", region))
                yield name, np.rint(coarse).clip(-1024, 3071).astype(np.int16)[None]

    write_set(folder, slices(), Intensity(-1024, 3071, "HU", (-160, 240)))
    _manifest(folder, rows)
    return folder


def _manifest(folder: Path, rows: list[tuple[str, str, str]]) -> None:
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("file", "patient", "region"), *rows])


def sets_of(name: str, work: Path, readers: Any) -> dict[str, Path]:
    """Write train and holdout to `work`."""
    if name == "derm":
        source = get_recipe("derm-patches", cache=cache_folder(), progress=make_progress())
    else:
        source = ct_slices(work / "all", readers)
    sides = split_patients(open_set(source, "train", readers), PATIENTS[name], SEED)
    return {side: _copy(work / side, side, images) for side, images in zip(("train", "holdout"), sides, strict=True)}


def _copy(folder: Path, prefix: str, images: ImageSet) -> Path:
    names = [f"{prefix}-{i:04d}" for i in range(len(images))]
    files = write_set(folder, ((n, r.pixels) for n, r in zip(names, images, strict=True)), images.intensity)
    regions = [header.attributes.get("region", "") for header in images.headers]
    _manifest(folder, [(f.name, p, r) for f, p, r in zip(files, images.patients, regions, strict=True)])
    return folder


class Stopped(BaseException):
    """The time for this call is up."""


class Budget(QuietProgress):
    """Keeps the CPU seconds up to each note from which training resumes; stops after one, once the time is up."""

    def __init__(self, seconds: float, note: Path) -> None:
        self.end, self.began, self.done, self.note = time.perf_counter() + seconds, time.process_time(), 0, note
        self.before = json.loads(note.read_text()) if note.exists() else 0.0

    def keep(self) -> float:
        spent: float = self.before + time.process_time() - self.began
        self.note.write_text(json.dumps(spent))
        return spent

    def advance(self, n: int = 1) -> None:
        self.done += n
        if self.done % SAVE == 1:  # the note of the step before has just been written
            self.keep()
            if time.perf_counter() > self.end:
                raise Stopped


def fit(name: str, data: str, train: ImageSet, work: Path, seconds: float, threads: int) -> float:
    """Train, or go on training; returns the CPU seconds that it took in all once it has ended."""
    kind, options = CELLS[name]
    host = build_host()
    factory = host.load(host.find("generator", kind))()
    given = {"augment": AUGMENT[data], "save": str(SAVE), "threads": str(threads), **options}
    work.mkdir(parents=True, exist_ok=True)
    budget = Budget(seconds, work / "seconds.json")
    if (work / "checkpoint" / "samples.png").exists():
        return float(budget.before)
    factory.train(train, train.intensity, work / "checkpoint", seed=SEED, progress=budget, options=given)
    return budget.keep()


def cell(
    name: str, data: str, sets: Mapping[str, Path], work: Path, spaces: list[str], seconds: float, threads: int
) -> dict[str, Any]:
    """Train, sample, audit."""
    kind, _ = CELLS[name]
    host, progress = build_host(), make_progress()
    train = open_set(sets["train"], "train", readers_of(host))
    checkpoint, out = work / "checkpoint", work / "samples"
    spent = fit(name, data, train, work, seconds, threads)
    factory = host.load(host.find("generator", kind))()
    generator = open_generator(GeneratorSource(kind, checkpoint, {}), host, "cpu")
    rate = work / "rate.json"
    if not rate.exists():
        shutil.rmtree(out, ignore_errors=True)
        busy = time.perf_counter()
        sample_to(generator, len(train), out, seed=SEED, progress=progress)
        rate.write_text(json.dumps(len(train) / (time.perf_counter() - busy)))
    if seconds < 1e8:
        raise Stopped
    weights = factory.open(checkpoint, {}, "cpu")._model.parameters()
    report = medtrust.audit(
        train=sets["train"],
        holdout=sets["holdout"],
        synthetic=out,
        features=spaces,
        metrics=["fd", "prdc", "cpm"],
        policy="research",
        seed=SEED,
        progress=progress,
        cache=cache_folder(),
        host=host,
    )
    row: dict[str, Any] = {
        "data": data,
        "cell": name,
        "kind": kind,
        "recipe": json.loads((checkpoint / "card.json").read_text())["recipe"],
        "parameters": sum(p.numel() for p in weights),
        "images": len(train),
        "nfe": generator.caps.steps,
        "threads": threads,
        "train_cpu_s": spent,
        "samples_per_s": json.loads(rate.read_text()),
        "spread": float(np.std([r.pixels.mean() for r in open_set(out, "synthetic", readers_of(host))])),
        "results": {},
    }
    for result in report.results:
        answer: dict[str, Any] = {"status": result.status, "reason": result.reason}
        if result.estimate:
            answer["value"] = result.estimate.value
        if result.interval:
            answer["interval"] = [result.interval.lo, result.interval.hi]
        if result.null:
            answer["null"] = result.null.value
        if result.test:
            answer["p"] = result.test.p
        row["results"][result.id] = answer
    shutil.copy(checkpoint / "samples.png", work.parent / f"{data}-{name.replace(', ', '-')}.png")
    return row


def main() -> None:
    """Run what is asked for and what the result file lacks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PATIENTS, action="append")
    parser.add_argument("--cells", default=",".join(("vae", "flow", "gan", "flow; longer", "ddpm", "edm")))
    parser.add_argument("--features", default="radiomics,inception")
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "medtrust-generators")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    readers = readers_of(build_host())
    for name in [c.replace(";", ",") for c in options.cells.split(",")]:
        for data in options.only or PATIENTS:
            found = json.loads(options.out.read_text()) if options.out.exists() else {"rows": []}
            if any((row["data"], row["cell"]) == (data, name) for row in found["rows"]):
                continue
            work = options.work / data
            sets = {side: work / side for side in ("train", "holdout")}
            if not (work / "ready").exists():
                shutil.rmtree(work, ignore_errors=True)
                sets = sets_of(data, work, readers)
                (work / "ready").touch()
            place = work / name.replace(", ", "-")
            spaces = options.features.split(",")
            try:
                row = cell(name, data, sets, place, spaces, options.seconds, options.threads)
            except Stopped:
                print(f"{data}, {name}: {place / 'seconds.json'}", flush=True)
                continue
            found = json.loads(options.out.read_text()) if options.out.exists() else {"rows": []}
            found["rows"] = sorted([*found["rows"], row], key=lambda r: (r["data"], list(CELLS).index(r["cell"])))
            found["machine"] = machine(options.threads)
            options.out.write_text(json.dumps(found, indent=1) + "\n")
            print(json.dumps({k: v for k, v in row.items() if k != "recipe"}, indent=1), flush=True)


if __name__ == "__main__":
    main()
