"""Run every benchmark and write the tables of docs/performance.md: `python benchmarks/run.py`.

Each bench_*.py runs alone, with 1 and with 2 threads, and writes benchmarks/results/<name>.t<threads>.json. `--tables`
writes the tables anew from the files that are there, without running anything.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE.parent / "docs" / "performance.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def tables(results: Path) -> str:
    """The figures of all result files as Markdown.

    Args:
        results: Folder of the JSON files.

    Returns:
        One table per file, in order of name and threads.
    """
    parts = []
    for path in sorted(results.glob("*.t[0-9]*.json")):
        parts.append(table(path.name.partition(".")[0], json.loads(path.read_text())))
    return "\n".join(parts)


def table(name: str, document: dict[str, Any]) -> str:
    """One result file as Markdown."""
    machine = document["machine"]
    threads = f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''}"
    load = "" if machine["load_before"] is None else f", load {machine['load_before']:.1f} at the start"
    lines = [
        f"**{name}, {threads}.** {machine['cpu']}, {machine['native']['isa']}, torch {machine['torch']}, "
        f"{document['rounds']} rounds{load}, csrc {machine['csrc']}.",
        "",
        "| case | who | median ms | best ms | CPU ms | × ours, wall | × ours, CPU | error |",
        f"|{'---|' * 8}",
    ]
    for row in document["rows"]:
        who = f"{row['name']} ({row['note']})" if row["note"] else row["name"]
        figures = (row[key] for key in ("median_ms", "best_ms", "cpu_ms", "ratio", "cpu_ratio"))
        lines.append(f"| {row['case']} | {who} | {' | '.join(map(rounded, figures))} | {row['error']:.1e} |")
    return "\n".join(lines) + "\n"


def rounded(figure: float) -> str:
    """Three digits, without an exponent."""
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.3g}"


def page(text: str, results: Path) -> str:
    """The page with its figures replaced.

    Args:
        text: The page.
        results: Folder of the JSON files.

    Returns:
        The page with the tables between the two markers.
    """
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{tables(results)}{END}{rest.split(END)[1]}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="benchmarks to run, such as ssim; all by default")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, help="turns of each contender; by default the benchmark's own")
    parser.add_argument("--tables", action="store_true", help="run nothing, write the tables of the page")
    options = parser.parse_args()
    here = [path.stem.removeprefix("bench_") for path in sorted(HERE.glob("bench_*.py"))]
    unknown = set(options.names) - set(here)
    if unknown:
        parser.error(f"{', '.join(unknown)} is not one of {', '.join(here)}")
    for name in [] if options.tables else options.names or here:
        for threads in options.threads:
            command = [sys.executable, str(HERE / f"bench_{name}.py"), f"--threads={threads}"]
            command += [f"--out={RESULTS / f'{name}.t{threads}.json'}"]
            command += [f"--rounds={options.rounds}"] if options.rounds else []
            # Peers that keep threads of their own are held to the same number.
            pinned = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL")}
            subprocess.run(command, check=True, env={**os.environ, **pinned})
    PAGE.write_text(page(PAGE.read_text(), RESULTS))


if __name__ == "__main__":
    main()
