"""Fair comparison: contenders in turns on one input in one process, error beside time, facts of the machine."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.metadata
import json
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Contender:
    """One way to compute a case's value.

    Args:
        name: What the table shows; ours starts with "medtrust".
        run: Computes the value on the case's input.
        value: The value as a float, from what `run` returns.
        note: dtype, precision, or what else a reader must know.
    """

    name: str
    run: Callable[[], Any]
    value: Callable[[Any], float] = float
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One line of a result.

    Args:
        case: What was computed.
        name: Who computed it.
        note: How.
        median_ms: Median over the rounds.
        best_ms: Fastest round: nearest to what an idle machine shows.
        cpu_ms: Median of the processor time over all threads, which other programs do not take part in.
        ratio: Median over the rounds of its time divided by ours in the same round; 1 for ours.
        cpu_ratio: The same for processor time.
        error: Absolute difference from the float64 value.
    """

    case: str
    name: str
    note: str
    median_ms: float
    best_ms: float
    cpu_ms: float
    ratio: float
    cpu_ratio: float
    error: float


def compare(case: str, oracle: float, contenders: list[Contender], rounds: int) -> list[Row]:
    """Run the contenders in turns; the first one is ours.

    Args:
        case: Name of the case.
        oracle: The float64 value.
        contenders: Ours first.
        rounds: Turns of each, after one that is not counted.

    Returns:
        A row per contender.
    """
    times: list[list[float]] = [[] for _ in contenders]
    spent: list[list[float]] = [[] for _ in contenders]
    errors = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for contender in contenders:
            errors.append(abs(contender.value(contender.run()) - oracle))
        for turn in range(rounds):
            # The order moves on each round: a neighbour's threads that still spin hit everyone alike.
            order = [(turn + i) % len(contenders) for i in range(len(contenders))]
            for i in order:
                start, busy = time.perf_counter(), time.process_time()
                contenders[i].run()
                times[i].append(1000 * (time.perf_counter() - start))
                spent[i].append(1000 * (time.process_time() - busy))
    rows = []
    for i, contender in enumerate(contenders):
        ratio, cpu_ratio = (
            statistics.median(peer / ours for peer, ours in zip(all_[i], all_[0], strict=True))
            for all_ in (times, spent)
        )
        medians = statistics.median(times[i]), min(times[i]), statistics.median(spent[i])
        rows.append(Row(case, contender.name, contender.note, *medians, ratio, cpu_ratio, errors[i]))
    return rows


def once(case: str, oracle: float, contenders: list[Contender]) -> list[Row]:
    """Run each contender one time, ours first: for cases of half a minute. The note gains the peak of memory it took.

    Args:
        case: Name of the case.
        oracle: The float64 value.
        contenders: Ours first.

    Returns:
        A row per contender.
    """
    rows: list[Row] = []
    for contender in contenders:
        before = _resident(restart=True)
        start, busy = time.perf_counter(), time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = contender.run()
        wall, spent = 1000 * (time.perf_counter() - start), 1000 * (time.process_time() - busy)
        taken = f"+{(_resident(restart=False) - before) / 2**30:.2f} GiB" if before else "memory not measured"
        note = f"{contender.note}, {taken}" if contender.note else taken
        ours = rows[0] if rows else None
        ratios = (wall / ours.median_ms, spent / ours.cpu_ms) if ours else (1.0, 1.0)
        error = abs(contender.value(found) - oracle)
        rows.append(Row(case, contender.name, note, wall, wall, spent, *ratios, error))
    return rows


def _resident(restart: bool) -> int:
    """Peak of resident memory in bytes since it was restarted; 0 where the system does not tell (Linux does)."""
    status, control = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not status.exists() or not control.exists():
        return 0
    if restart:
        control.write_text("5")
    return 1024 * int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1])


def module(name: str) -> Any | None:
    """A peer's module, or None after saying that it is not installed.

    Args:
        name: Import name.

    Returns:
        The module.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        print(f"left out: {name} ({error})", file=sys.stderr)
        return None


def csrc_digest() -> str:
    """Digest of the native sources: a result with another one was measured on other kernels."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "csrc").rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def machine(threads: int) -> dict[str, Any]:
    """Facts that a figure means nothing without."""
    import torch

    from medtrust import ops

    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    load = Path("/proc/loadavg")
    packages = (
        "torch",
        "pytorch-msssim",
        "piq",
        "torchmetrics",
        "kornia",
        "fast-ssim",
        "scikit-image",
        "torch-fidelity",
        "prdc",
        "faiss-cpu",
    )
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "cpu": cpu,
        "threads": threads,
        "load_before": float(load.read_text().split()[0]) if load.exists() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "native": ops.info(),
        "csrc": csrc_digest(),
        "packages": versions,
    }


def main(name: str, cases: Callable[[int], list[Row]], rounds: int) -> None:
    """Command line of a benchmark: runs the cases, prints a table, writes a JSON file.

    Args:
        name: Name of the benchmark.
        cases: Runs everything for a number of rounds.
        rounds: Default number of rounds.
    """
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="result file; by default benchmarks/results/<name>.t<threads>.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    facts = machine(options.threads)
    rows = cases(options.rounds)
    print(f"| case | who | median ms | best ms | CPU ms | x ours | x ours, CPU | error |\n|{'---|' * 8}")
    for row in rows:
        who = f"{row.name} ({row.note})" if row.note else row.name
        figures = (row.median_ms, row.best_ms, row.cpu_ms, row.ratio, row.cpu_ratio)
        print(f"| {row.case} | {who} | {' | '.join(f'{figure:.3g}' for figure in figures)} | {row.error:.1e} |")
    out = options.out or ROOT / "benchmarks" / "results" / f"{name}.t{options.threads}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    document = {"machine": facts, "rounds": options.rounds, "rows": [asdict(row) for row in rows]}
    out.write_text(json.dumps(document, indent=1) + "\n")
