"""Tables of docs/federated.md, from what `benchmarks/federated.py` has written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def results() -> Any:
    """What the benchmark has written."""
    return json.loads((Path(__file__).parent / "results" / "federated.json").read_text())


def equality() -> str:
    """One line per number of sites."""
    head = "| sites | `fd` | its null | `mmd` | `cpm` statistic | `C_T` | `cpm` p | p in one pool | `C_T` in one pool |"
    lines = [head, "|---" * 9 + "|"]
    for row in results()["equality"]:
        errors = (f"{row[name]:.0e}" for name in ("fd_error", "fd_null_error", "mmd_error", "cpm_error", "ct_error"))
        p, pool, z = row["cpm_p"], row["cpm_one_pool_p"], row["ct_unstratified"]
        lines.append(
            f"| {row['sites']} | {' | '.join(errors)} | {p:.2g} | {pool:.2g} | {z:.2f} (by site {row['ct']:.2f}) |"
        )
    return "\n".join(lines)


def coverage() -> str:
    """One line per case."""
    lines = ["| sites | folds | patients a site | images each | tails | `fd` | its null | `mmd` | its null |"]
    lines.append("|---" * 9 + "|")
    for row in results()["coverage"]:
        shape = [row[name] for name in ("sites", "folds", "patients", "images")]
        tails = "t, 5 degrees" if row["heavy_tails"] else "Gaussian"
        held = [f"{row[name]:.3f}" for name in ("fd", "fd_null", "mmd", "mmd_null")]
        lines.append(f"| {' | '.join(map(str, [*shape, tails, *held]))} |")
    return "\n".join(lines)


def averages() -> str:
    """Two generators by two rules."""
    found = results()["averages"]
    lines = ["| generator | average of the sites' distances | pooled distance |", "|---|---|---|"]
    for name in ("faithful", "collapsed"):
        lines.append(f"| {name} | {found[f'{name}_average']:.2f} | {found[f'{name}_pooled']:.4f} |")
    return "\n".join(lines)


def membership() -> str:
    """AUC by images per dimension."""
    rows = results()["membership"]
    head = " | ".join(str(row["rows_per_dimension"]) for row in rows)
    return (
        f"| images per dimension | {head} |\n{'|---' * (len(rows) + 1)}|\n| AUC | "
        + " | ".join(f"{row['auc']:.3f}" for row in rows)
        + " |"
    )
