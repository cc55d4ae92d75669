"""The tables of docs/scale.md, from what `scale.py` and `scale_trial.py` measured; `tables.py` puts them in place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
SIZES = (10**5, 10**6, 10**7, 10**8)
D = 2048
YEAR, DAY, HOUR = 365.25 * 86400, 86400, 3600


def _read(name: str) -> Any:
    return json.loads((RESULTS / f"scale_{name}.json").read_text())


def trial() -> str:
    """One line per engine of the trial."""
    lines = [
        "| engine | start, s | µs per image | memory, MiB | rows of images | same bytes and order | a worker killed |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in _read("trial")["rows"]:
        same = "yes" if row["same_bytes_and_order"] else "**no**"
        lines.append(
            f"| {row['engine']} | {row['start_s']:.1f} | {row['us_per_image']:.0f} | {row['peak_pss_mib']} "
            f"| {row['rows']} of {row['images']} | {same} | {row['killed_worker']} |"
        )
    return "\n".join(lines)


def engines() -> str:
    """One line per feature space and number of workers."""
    lines = [
        "| space, image | workers | this process, µs per image | Ray, µs per image | ratio | start, s |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(_read("engines")["rows"], key=lambda row: (row["space"], row["workers"])):
        lines.append(
            f"| {row['space']}, {row['side']} x {row['side']} | {row['workers']} | {row['local_us_per_image']:.0f} "
            f"| {row['ray_us_per_image']:.0f} | {row['ratio']:.2f} | {row['start_s']:.0f} |"
        )
    return "\n".join(lines)


def memory() -> str:
    """Memory of each kind of process at a tenth of the images and at the end."""
    found = _read("memory")
    lines = [
        f"| engine | process | MiB after {found['ray']['images'] // 10} images "
        f"| largest MiB in {found['ray']['images']} images |",
        "|---|---|---|---|",
    ]
    names = {"driver": "medtrust itself", "workers": "2 workers together", "daemons": "Ray's daemons together"}
    for engine in ("ray", "local"):
        row = found[engine]
        for kind, early in row["at_tenth_mib"].items():
            if early:
                lines.append(f"| {engine} | {names[kind]} | {early:.0f} | {row['peak_mib'][kind]:.0f} |")
    return "\n".join(lines)


def curves() -> str:
    """Seconds at each n, and the rate that they come to."""
    lines = ["| stage | n = m | seconds | multiplications per second |", "|---|---|---|---|"]
    for row in _read("curves")["rows"]:
        work = _work(row["stage"], row["n"], row["m"], row["d"])
        rate = f"{work / row['seconds'] / 1e9:.1f}·10⁹" if row["stage"] != "fréchet" else ""
        lines.append(f"| {row['stage']} | {row['n']} | {row['seconds']:.3g} | {rate} |")
    return "\n".join(lines)


def _work(stage: str, n: int, m: int, d: int) -> float:
    """Multiplications of a stage, to leading order."""
    return {
        "moments": n * d * d / 2,
        "fréchet": 0.0,
        "nearest": n * m * d,
        "prdc": 3 * n * m * d,
        "kid": 3 * n * m * d,
    }[stage]


def sizing() -> str:
    """Core time of each stage, extrapolated from the largest n measured."""
    rates = {
        row["stage"]: _work(row["stage"], row["n"], row["m"], row["d"]) / row["seconds"]
        for row in _read("curves")["rows"]
    }
    cost = {row["space"]: row["ray_us_per_image"] for row in _read("engines")["rows"] if row["workers"] == 1}
    fixed = next(row["seconds"] for row in _read("curves")["rows"] if row["stage"] == "fréchet")
    sent = _read("bytes")["order_bytes_per_image"] + _read("bytes")["answer_bytes_per_image_2048"]
    lines = [
        "| both sets, images each | " + " | ".join(f"10{'⁵⁶⁷⁸'[i]}" for i in range(len(SIZES))) + " |",
        "|---|" + "---|" * len(SIZES),
    ]

    def line(name: str, cells: list[str]) -> None:
        lines.append(f"| {name} | " + " | ".join(cells) + " |")

    line("decode and radiomics, 224 x 224", [_time(2 * n * cost["radiomics"] * 1e-6) for n in SIZES])
    line("moments of both sets (linear)", [_time(2 * _work("moments", n, n, D) / rates["moments"]) for n in SIZES])
    line("Fréchet distance from moments (constant)", [_time(fixed) for _ in SIZES])
    for stage, name in (
        ("nearest", "nearest train image, exact"),
        ("prdc", "PRDC, exact"),
        ("kid", "KID over all pairs"),
    ):
        line(f"{name} (n·m)", [_time(_work(stage, n, n, D) / rates[stage]) for n in SIZES])
    line("KID in blocks of 1000", [_time(3 * n * 1000 * D / rates["kid"]) for n in SIZES])
    line("sent over the network, both sets", [_bytes(2 * n * sent) for n in SIZES])
    line("features in memory, both sets", [_bytes(2 * n * D * 4) for n in SIZES])
    return "\n".join(lines)


def _time(seconds: float) -> str:
    for unit, name in ((YEAR, "years"), (DAY, "days"), (HOUR, "h"), (60.0, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.2g} s"


def _bytes(count: float) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:.3g} B"
