"""What does the engine ray cost beside this process, and what does each stage cost as sets grow?

    python benchmarks/scale.py engines  # seconds per image of both engines, interleaved rounds
    python benchmarks/scale.py memory   # memory of driver, workers and daemons while 100 000 images pass
    python benchmarks/scale.py curves   # Fréchet, KID, PRDC and neighbours at growing n
    python benchmarks/scale.py bytes    # what crosses process borders, per image

Each writes `benchmarks/results/scale_<stage>.json`, from which docs/scale.md takes its tables. Images of 32 x 32 are
made while they are read, so that the disk plays no part.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from memory import LEVELS, SIDE, Made, Projection
from scale_trial import tree

from medtrust import ops
from medtrust.images.imageset import Entry, ImageSet
from medtrust.progress import QuietProgress
from medtrust.scaling import make_engine, work
from medtrust.scaling.gathering import stripped
from medtrust.scaling.shards import cut
from medtrust.spaces import Opening
from medtrust.stats.frechet import frechet_distance
from medtrust.types import ImageHeader, Limits

RESULTS = Path(__file__).parent / "results"


class Cheap(Projection):
    """A projection that costs next to nothing, so that the engine's own cost shows."""

    def __init__(self, columns: int = 64, *, device: str = "cpu") -> None:
        super().__init__(columns)


def images_of(n: int, side: int = SIDE) -> ImageSet:
    """n images of noise, four to a patient."""
    reader = Made()
    entries = [
        Entry(Path("made"), f"{i}", f"p{i // 4}", ImageHeader((1, side, side), "uint8", i, LEVELS), reader, "made")
        for i in range(n)
    ]
    return ImageSet("train", entries, LEVELS, Limits(), patients_known=True)


SPACES = {"projection": "scale:Cheap", "radiomics": "medtrust_features.radiomics:Radiomics"}


def passing(machine: Any, n: int, space: str, progress: Any = None, side: int = SIDE) -> float:
    """One pass; seconds."""
    opening = Opening(SPACES[space], {"device": "cpu"})
    begun = time.perf_counter()
    machine.survey(
        images_of(n, side), {space: opening.open()}, {space: opening}, LEVELS, None,
        batch_size=64, progress=progress or QuietProgress(),
    )  # fmt: skip
    return time.perf_counter() - begun


def engines(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds per image of this process and of some workers, interleaved in one process."""
    rows = []
    cases = (("projection", SIDE, options.images), ("radiomics", 224, options.images // 8))
    begun = time.perf_counter()
    with make_engine("local", workers=1) as local, make_engine("ray", workers=options.workers) as ray:
        passing(ray, 512, "projection")
        start = time.perf_counter() - begun
        for space, side, n in cases:
            passing(ray, 64 * options.workers, space, side=side)
            pairs = [
                (passing(local, n, space, side=side), passing(ray, n, space, side=side)) for _ in range(options.rounds)
            ]
            alone, spread = (statistics.median(column) for column in zip(*pairs, strict=True))
            rows.append(
                {
                    "space": space, "side": side, "images": n, "workers": options.workers,
                    "local_us_per_image": round(alone / n * 1e6, 1), "ray_us_per_image": round(spread / n * 1e6, 1),
                    "ratio": round(statistics.median(theirs / mine for mine, theirs in pairs), 3),
                    "start_s": round(start, 1),
                }
            )  # fmt: skip
    place = options.out or RESULTS / "scale_engines.json"
    others = json.loads(place.read_text())["rows"] if place.exists() else []
    return {"rows": [row for row in others if row["workers"] != options.workers] + rows}


class Watch(QuietProgress):
    """Samples memory by kind of process while a pass goes on."""

    def __init__(self, every: float) -> None:
        self.done, self.on, self.every, self.points = 0, True, every, []
        self.begun = time.perf_counter()
        threading.Thread(target=self._run, daemon=True).start()

    def advance(self, n: int = 1) -> None:
        self.done += n

    def _run(self) -> None:
        while self.on:
            point = {"s": round(time.perf_counter() - self.begun, 1), "images": self.done}
            for pid, mib in tree().items():
                words = Path(f"/proc/{pid}/cmdline").read_bytes() if Path(f"/proc/{pid}").exists() else b""
                kind = "driver" if pid == os.getpid() else "workers" if words.startswith(b"ray::") else "daemons"
                if words.startswith((b"ray::Dash", b"ray::Runtime")):
                    kind = "daemons"
                point[kind] = round(point.get(kind, 0.0) + mib, 1)
            self.points.append(point)
            time.sleep(self.every)


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """100 000 images through two workers, with memory over time."""
    passed = {}
    for name, make in (
        ("ray", lambda: make_engine("ray", workers=2)),
        ("local", lambda: make_engine("local", workers=2)),
    ):
        with make() as machine:
            passing(machine, 512, "projection")
            watch = Watch(options.every)
            seconds = passing(machine, options.memory_images, "projection", watch)
            watch.on = False
            time.sleep(2 * options.every)
        points = [p for p in watch.points if p["images"] > 0]
        early = next(p for p in points if p["images"] >= options.memory_images / 10)
        kinds = ("driver", "workers", "daemons")
        passed[name] = {
            "images": options.memory_images, "columns": 64, "seconds": round(seconds, 1),
            "peak_mib": {k: max(p.get(k, 0) for p in points) for k in kinds},
            "at_tenth_mib": {k: early.get(k) for k in kinds},
            "last_mib": {k: points[-1].get(k) for k in kinds},
            "points": points[:: max(1, len(points) // 40)],
        }  # fmt: skip
    return passed


def curves(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each stage that sees whole sets, at growing n."""
    rng = torch.Generator().manual_seed(0)
    d = 2048
    tests: dict[str, tuple[tuple[int, ...], Callable[[torch.Tensor, torch.Tensor], Any]]] = {
        "moments": ((2048, 4096, 8192), lambda x, y: _moments(x)),
        "fréchet": ((4096,), lambda x, y: frechet_distance(x.double(), y.double())),
        "nearest": ((1024, 2048, 4096, 8192), lambda x, y: ops.nearest(x, y, 5)),
        "prdc": ((1024, 2048, 4096), lambda x, y: ops.prdc(x, y, 5)),
        "kid": ((1024, 2048, 4096), lambda x, y: ops.mmd(x.double(), y.double())),
    }  # fmt: skip
    rows = []
    for name, (sizes, work_of) in tests.items():
        for n in sizes:
            x, y = torch.randn(n, d, generator=rng), torch.randn(n, d, generator=rng)
            seconds = []
            for _ in range(options.rounds):
                begun = time.process_time()  # of the one core, whoever else wants it
                work_of(x, y)
                seconds.append(time.process_time() - begun)
            rows.append({"stage": name, "n": n, "m": n, "d": d, "seconds": round(statistics.median(seconds), 4)})
            print(rows[-1], flush=True)
    return {"isa": ops.info(), "rows": rows}


def _moments(x: torch.Tensor) -> Any:
    found = ops.Moments(x.shape[1])
    for start in range(0, len(x), 512):
        found.update(x[start : start + 512])
    return found


def bytes_(options: argparse.Namespace) -> dict[str, Any]:
    """Pickled sizes of what travels, per image, at 2048 columns and 224 x 224 pixels of 16 bits."""
    n, side = 512, 224
    images = images_of(n)
    (shard, *_) = cut(images, 64)
    entries = tuple(
        stripped(replace(entry, path=Path(f"/data/study/series/{entry.name}.dcm")))
        for entry in images.entries(shard.where)
    )
    order = len(pickle.dumps(work.Order(shard, entries)))
    place = work.Place(os.getcwd(), 1)
    setup = work.Setup("", place, "train", {"p": Opening("scale:Cheap", {"columns": 2048})}, LEVELS, Limits(), 64)
    answer = work.run(setup, work.Order(shard, images.entries(shard.where)))
    if isinstance(answer, work.Refusal):
        answer.throw(shard)
    bare = len(pickle.dumps(replace(answer, rows={})))
    return {
        "shard": len(shard),
        "order_bytes_per_image": round(order / len(shard), 1),
        "answer_bytes_per_image_without_rows": round(bare / len(shard), 1),
        "row_bytes_2048": 2048 * 4,
        "answer_bytes_per_image_2048": round(len(pickle.dumps(answer)) / len(shard), 1),
        "pixels_bytes_224_16bit": side * side * 2,
        "known_digest_bytes": 32,
    }  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["engines", "memory", "curves", "bytes"])
    parser.add_argument("--images", type=int, default=8192)
    parser.add_argument("--memory-images", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=1, help="of the stage engines; each is kept in the result")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--every", type=float, default=1.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {"engines": engines, "memory": memory, "curves": curves, "bytes": bytes_}[options.stage](options)
    found = {"torch": torch.__version__, "cores": os.cpu_count(), "load": os.getloadavg()[0], **found}
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    (options.out or RESULTS / f"scale_{options.stage}.json").write_text(text)
    print(text[:3000])


if __name__ == "__main__":
    main()
