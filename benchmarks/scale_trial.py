"""Which engine serves best? One pass over small images by five of them: `python benchmarks/scale_trial.py`

Each does what an audit needs: decode (here: make) every image, extract a fixed random projection in batches of 64,
return pixel digests and rows to one process. Two workers each, one thread per worker, the peers with their own defaults
elsewhere. Peers that are not installed are left out by name: pip install 'ray[data]' 'dask[distributed]'.

Measured per engine: seconds to start, seconds per pass, the largest memory of all its processes together, whether the
rows are the local ones bit for bit and in order, and what happens when a worker is killed in mid-pass.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", RAY_USAGE_STATS_ENABLED="0", RAY_DATA_DISABLE_PROGRESS_BARS="1")

import numpy as np
import torch

SIDE, COLUMNS, BATCH, SHARD = 32, 256, 64, 256
WEIGHTS = np.random.default_rng(0).standard_normal((SIDE * SIDE, COLUMNS), dtype=np.float32) / SIDE


def image(index: int) -> np.ndarray:
    """Noise with that seed."""
    return np.random.default_rng(index).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)


def shard(start: int, stop: int, die: str = "") -> tuple[list[int], list[str], np.ndarray]:
    """Positions, digests and rows; `die` names a file whose absence kills this process once, in the middle."""
    torch.set_num_threads(1)
    weights, rows, digests = torch.from_numpy(WEIGHTS), [], []
    for first in range(start, stop, BATCH):
        pixels = [image(i) for i in range(first, min(first + BATCH, stop))]
        digests += [hashlib.sha256(each.tobytes()).hexdigest() for each in pixels]
        rows.append((torch.from_numpy(np.stack(pixels)).flatten(1).float() @ weights).numpy())
        if die and start <= 1024 < stop and not Path(die).exists():
            Path(die).touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return list(range(start, stop)), digests, np.concatenate(rows)


def spans(n: int) -> list[tuple[int, int]]:
    """Cut n images into shards."""
    return [(start, min(start + SHARD, n)) for start in range(0, n, SHARD)]


class Local:
    """This process."""

    name = "this process"

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to stop."""

    def run(self, n: int, die: str = "") -> list[Any]:
        return [shard(*span) for span in spans(n)]


class RayTasks(Local):
    """Stateless tasks, as medtrust uses them."""

    name = "Ray tasks"

    def start(self) -> None:
        import ray

        self.folder = tempfile.mkdtemp(prefix="mt-", dir="/tmp")
        ray.init(
            address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error",
            _temp_dir=self.folder,
        )  # fmt: skip

    def stop(self) -> None:
        import ray

        ray.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, n: int, die: str = "") -> list[Any]:
        import ray

        task = ray.remote(max_retries=3)(shard)
        found, ahead = [], []
        for span in spans(n):
            ahead.append(task.remote(*span, die))
            if len(ahead) > 4:
                found.append(ray.get(ahead.pop(0)))
        return found + ray.get(ahead)


class RayActors(RayTasks):
    """Two actors that Ray restarts, fed in turn."""

    name = "Ray actors"

    def start(self) -> None:
        super().start()
        import ray

        class Worker:
            def shard(self, start: int, stop: int, die: str) -> Any:
                return shard(start, stop, die)

        actor = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=3)(Worker)
        self.pool = [actor.remote() for _ in range(2)]

    def run(self, n: int, die: str = "") -> list[Any]:
        import ray

        found, ahead = [], []
        for i, span in enumerate(spans(n)):
            ahead.append(self.pool[i % 2].shard.remote(*span, die))
            if len(ahead) > 4:
                found.append(ray.get(ahead.pop(0)))
        return found + ray.get(ahead)


class RayData(RayTasks):
    """Ray Data: a range of indices, mapped in batches, taken in order."""

    name = "Ray Data"

    def start(self) -> None:
        import pandas  # noqa: F401 - what Ray Data needs beside Ray
        import pyarrow  # noqa: F401
        import ray.data

        super().start()
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False

    def run(self, n: int, die: str = "") -> list[Any]:
        import ray.data

        def work(batch: dict[str, np.ndarray]) -> dict[str, Any]:
            ids = batch["id"]
            positions, digests, rows = shard(int(ids[0]), int(ids[-1]) + 1, die)
            return {"id": np.array(positions), "digest": np.array(digests), "row": rows}

        made = ray.data.range(n, override_num_blocks=max(1, n // SHARD)).map_batches(work, batch_size=SHARD)
        return [(list(b["id"]), list(b["digest"]), b["row"]) for b in made.iter_batches(batch_size=SHARD)]


class Dask(Local):
    """dask.distributed with two worker processes."""

    name = "Dask"

    def start(self) -> None:
        import dask
        from distributed import Client, LocalCluster

        dask.config.set({"distributed.scheduler.allowed-failures": 3})
        self.cluster = LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50,
            local_directory=tempfile.mkdtemp(),
        )  # fmt: skip
        self.client = Client(self.cluster)

    def stop(self) -> None:
        self.client.close()
        self.cluster.close()

    def run(self, n: int, die: str = "") -> list[Any]:
        found, ahead = [], []
        for span in spans(n):
            ahead.append(self.client.submit(shard, *span, die, pure=False, retries=3))
            if len(ahead) > 4:
                found.append(ahead.pop(0).result())
        return found + [future.result() for future in ahead]


def _rank(rank: int, n: int, folder: str, die: str) -> None:
    import torch.distributed as dist
    from torch.utils.data import DistributedSampler

    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    rows = list(DistributedSampler(range(n), 2, rank, shuffle=False))
    found = []
    for first in range(0, len(rows), SHARD):
        part = rows[first : first + SHARD]
        answers = [shard(i, i + 1, die) for i in part]
        found.append((part, [a[1][0] for a in answers], np.concatenate([a[2] for a in answers])))
    gathered: list[Any] = [None, None]
    dist.gather_object(found, gathered if rank == 0 else None)
    if rank == 0:
        torch.save([answer for each in gathered for answer in each], f"{folder}/rows")
    dist.destroy_process_group()


class Distributed(Local):
    """torch.distributed (gloo) with DistributedSampler, whose ranks take every second image."""

    name = "torch.distributed"

    def run(self, n: int, die: str = "") -> list[Any]:
        with tempfile.TemporaryDirectory() as folder:
            context = torch.multiprocessing.spawn(_rank, (n, folder, die), nprocs=2, join=False)
            while not context.join(timeout=120):
                pass
            return torch.load(f"{folder}/rows", weights_only=False)


class Memory:
    """The largest sum of resident memory of this process and all below it, MiB, sampled every 0.2 s."""

    def __enter__(self) -> Memory:
        self.peak, self.on = 0.0, True
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.on = False
        self.thread.join()

    def _watch(self) -> None:
        while self.on:
            self.peak = max(self.peak, sum(tree().values()))
            time.sleep(0.2)


def tree() -> dict[int, float]:
    """Proportional memory (PSS, which counts shared pages once) of this process and all below it, MiB."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    mine = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in mine} - mine:
        mine |= more
    found = {}
    for pid in mine:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        line = next((line for line in rollup.splitlines() if line.startswith("Pss:")), "Pss: 0")
        found[pid] = int(line.split()[1]) / 1024
    return found


def trial(make: Callable[[], Local], n: int, rounds: int, truth: list[Any]) -> dict[str, Any]:
    """Start, pass, pass with a murder, stop."""
    engine = make()
    begun = time.perf_counter()
    engine.start()
    engine.run(2 * SHARD)  # the first tasks pay for the imports of the workers
    started = time.perf_counter() - begun
    seconds = []
    try:
        with Memory() as memory:
            for _ in range(rounds):
                begun = time.perf_counter()
                found = engine.run(n)
                seconds.append(time.perf_counter() - begun)
        same = _flat(found) == _flat(truth)
        killed = "not tried"
        if type(engine) is not Local:
            with tempfile.TemporaryDirectory() as folder:
                begun = time.perf_counter()
                try:
                    again = engine.run(n, f"{folder}/died")
                    outcome = "same bytes" if _flat(again) == _flat(truth) else "OTHER BYTES"
                except Exception as error:
                    outcome = f"{type(error).__name__}"
                assert Path(f"{folder}/died").exists()
                killed = f"{outcome} after {time.perf_counter() - begun:.1f} s"
    finally:
        engine.stop()
    positions = [p for answer in found for p in answer[0]]
    return {
        "engine": engine.name,
        "images": n,
        "start_s": round(started, 2),
        "pass_s": round(statistics.median(seconds), 3),
        "us_per_image": round(statistics.median(seconds) / n * 1e6, 1),
        "peak_pss_mib": round(memory.peak),
        "rows": len(positions),
        "same_bytes_and_order": same,
        "killed_worker": killed,
    }


def _flat(answers: list[Any]) -> str:
    state = hashlib.sha256()
    for positions, digests, rows in answers:
        for position, digest, row in zip(positions, digests, rows, strict=True):
            state.update(f"{int(position)} {digest} ".encode() + np.ascontiguousarray(row).tobytes())
    return state.hexdigest()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_001)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    truth = Local().run(options.images)
    found = []
    for make in (Local, RayTasks, RayActors, RayData, Dask, Distributed):
        if options.only and options.only not in make.name:
            continue
        try:
            found.append(trial(make, options.images, options.rounds, truth))
            print(json.dumps(found[-1]), flush=True)
        except ImportError as error:
            print(f"{make.name} left out: {error}", file=sys.stderr)
    if options.out:
        options.out.write_text(
            json.dumps({"cores": os.cpu_count(), "torch": torch.__version__, "rows": found}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
