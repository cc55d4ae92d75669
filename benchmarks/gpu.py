"""Proof and speed on a CUDA device: `python benchmarks/gpu.py`; without one `python benchmarks/gpu.py --dry-run`.

Builds the CUDA kernels for the device, checks every op against its float64 twin, races the ops against the peers that
are installed, and writes benchmarks/results/<device>.json with the digest of csrc/. `--stale` lists results that were
measured on other sources.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from peers import ROOT, csrc_digest

RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("torch", "pytorch-msssim", "torchmetrics", "diffusers", "fussim", "cuvs-cu13", "cuvs-cu12")


@dataclass(frozen=True)
class Row:
    """One line of a race: time on the device, median and best of the rounds, and the error beside it."""

    case: str
    name: str
    note: str
    median_ms: float
    best_ms: float
    ratio: float
    error: float


def stale_results(folder: Path, digest: str) -> list[str]:
    """Names of the device results in a folder that were measured on other native sources.

    Args:
        folder: Where the JSON files lie.
        digest: Of the sources as they are.

    Returns:
        File names, sorted; results of processors are not looked at.
    """
    documents = ((path, json.loads(path.read_text())) for path in sorted(folder.glob("*.json")))
    return [
        path.name for path, found in documents if "device" in found and found.get("machine", {}).get("csrc") != digest
    ]


def build(arch: str) -> None:
    """Build the extension in place for one architecture."""
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    settings = {**os.environ, "MEDTRUST_CUDA": "1", "MEDTRUST_CUDA_ARCHS": arch}
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=settings, check=False)
    if done.returncode:
        raise SystemExit(f"gpu.py: the build for sm_{arch} failed, see above; install nvcc and a C++ compiler")
    print(f"built for sm_{arch} in {time.perf_counter() - start:.0f} s")


def check(device: str, small: bool) -> list[dict[str, Any]]:
    """Run every check; a result per check with its error, or the reason why it was left out."""
    from gpu_checks import CHECKS, rough_conditions

    results = []
    for one in CHECKS:
        facts: dict[str, Any] = {"check": one.name, "limit": one.limit}
        if device == "cuda":
            torch.cuda.empty_cache()
            free = torch.cuda.mem_get_info()[0]
            if free < one.memory:
                facts["left_out"] = f"needs {one.memory / 2**30:.0f} GiB of device memory, {free / 2**30:.0f} are free"
                print(f"left out  {one.name}: {facts['left_out']}")
                results.append(facts)
                continue
        with rough_conditions(device):
            facts["error"] = one.error(device, small)
        facts["passed"] = facts["error"] <= one.limit
        print(
            f"{'passed' if facts['passed'] else 'FAILED':9} {one.name}: {facts['error']:.2e}, allowed {one.limit:.0e}"
        )
        results.append(facts)
    return results


def clock(device: str) -> Callable[[Callable[[], Any]], float]:
    """Milliseconds of a call: between two CUDA events on a device, by the wall on a processor."""

    def on_device(run: Callable[[], Any]) -> float:
        torch.cuda.synchronize()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    def on_cpu(run: Callable[[], Any]) -> float:
        start = time.perf_counter()
        run()
        return 1000 * (time.perf_counter() - start)

    return on_device if device == "cuda" else on_cpu


def race(device: str, small: bool, rounds: int) -> list[Row]:
    """All contenders of every case in turns; the order moves on each round."""
    from gpu_races import FAMILIES

    timed, rows = clock(device), []
    for family in FAMILIES:
        for one in family(device, small):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                errors = [abs(c.value(c.run()) - one.oracle) for c in one.contenders]
                times: list[list[float]] = [[] for _ in errors]
                for turn in range(rounds):
                    for i in range(len(times)):
                        i = (turn + i) % len(times)
                        times[i].append(timed(one.contenders[i].run))
            for contender, mine, error in zip(one.contenders, times, errors, strict=True):
                ratio = statistics.median(theirs / ours for theirs, ours in zip(mine, times[0], strict=True))
                figures = (statistics.median(mine), min(mine), ratio, error)
                rows.append(Row(one.case, contender.name, contender.note, *figures))
                who = f"{contender.name} ({contender.note})" if contender.note else contender.name
                print(f"| {one.case} | {who} | {' | '.join(f'{figure:.3g}' for figure in figures)} |")
    return rows


def machine() -> dict[str, Any]:
    """Facts that a figure means nothing without."""
    from medtrust import ops

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    facts = {"python": platform.python_version(), "cuda": torch.version.cuda, "native": ops.info()}
    return {**facts, "csrc": csrc_digest(), "packages": versions}


def device_facts() -> dict[str, Any]:
    """Name, memory, architecture and driver of the device."""
    about = torch.cuda.get_device_properties(0)
    query = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        driver = f"unknown ({error})"
    return {
        "name": about.name,
        "memory_gib": round(about.total_memory / 2**30, 1),
        "arch": f"{about.major}{about.minor}",
        "multiprocessors": about.multi_processor_count,
        "driver, clock, power": driver,
    }


def dry_run(rounds: int) -> int:
    """Everything that needs no device: small checks and races on the processor, nothing written."""
    print("dry run: small sizes on the processor, to show that every check and race runs; no figure here is a result")
    failed = [one for one in check("cpu", True) if not one["passed"]]
    print("| case | who | median ms | best ms | x ours | error |\n|---|---|---|---|---|---|")
    race("cpu", True, rounds)
    print(
        "with a device it would: build with MEDTRUST_CUDA=1 for its architecture, run the checks above at full size on "
        "a side stream and beyond 2^31 elements, time the races with CUDA events, and write "
        f"{RESULTS.relative_to(ROOT)}/<device>.json with csrc digest {csrc_digest()}"
    )
    return len(failed)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="run all that needs no device, write nothing")
    parser.add_argument("--stale", action="store_true", help="list results measured on other sources; 1 if there are")
    parser.add_argument("--no-build", action="store_true", help="use the extension as it is installed")
    parser.add_argument("--rounds", type=int, default=None, help="turns of each contender (20; 1 in a dry run)")
    parser.add_argument("--out", type=Path, help="result file (default: benchmarks/results/<device>.json)")
    options = parser.parse_args()
    if options.stale:
        stale = stale_results(RESULTS, csrc_digest())
        for name in stale:
            print(f"stale: {name} was measured on other csrc/; run benchmarks/gpu.py on that device again")
        return int(bool(stale))
    if options.dry_run:
        return int(dry_run(options.rounds or 1) > 0)
    if not torch.cuda.is_available():
        raise SystemExit("gpu.py: torch finds no CUDA device; use --dry-run to see what would run")
    device = device_facts()
    if not options.no_build:
        build(device["arch"])
    facts = machine()
    if not facts["native"]["cuda"]:
        raise SystemExit("gpu.py: the extension has no CUDA kernels; run it without --no-build")
    checks = check("cuda", False)
    failed = [one["check"] for one in checks if not one.get("passed", True)]
    rounds = options.rounds or 20
    rows = [] if failed else race("cuda", False, rounds)  # a wrong kernel's time is no result
    slug = re.sub(r"[^a-z0-9]+", "-", device["name"].lower()).strip("-")
    out = options.out or RESULTS / f"{slug}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "device": device,
        "machine": facts,
        "rounds": rounds,
        "checks": checks,
        "rows": [asdict(row) for row in rows],
    }
    out.write_text(json.dumps(document, indent=1) + "\n")
    print(f"wrote {out}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
