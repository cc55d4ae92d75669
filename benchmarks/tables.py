"""Write the tables of docs/ from plugins' specs, the configuration's keys and benchmarks' results.

    python benchmarks/tables.py

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`; a test holds every one to its source.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "metrics"
RESULTS = ROOT / "benchmarks" / "results"
FEDERATED = ("equality", "coverage", "averages", "membership")
SCALE = ("trial", "engines", "memory", "curves", "sizing")


def metrics() -> str:
    """One line per metric of the fidelity plugin."""
    from medtrust_fidelity.plugin import medtrust_metrics

    lines = ["| metric | results | says | better | needs | runs |", "|---|---|---|---|---|---|"]
    for spec in medtrust_metrics():
        bracket = "[space]" if "features" in spec.needs and not spec.spaces else ""
        ids = ", ".join(f"`{name}{bracket}`" for name in spec.result_ids)
        needs = f"{spec.min_samples} images, {spec.min_patients} patients"
        when = "on request" if spec.optional else "always"
        better = {"lower": "lower", "higher": "higher", "none": "see page"}[spec.direction]
        lines.append(f"| [{spec.name}]({spec.name}.md) | {ids} | {spec.summary} | {better} | {needs} | {when} |")
    return "\n".join(lines)


def parity() -> str:
    """One line per metric and convention, as `benchmarks/parity.py` found them."""
    lines = [
        "| metric | convention | peer | ours | theirs | difference | allowed, because |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results("parity")["rows"]:
        shown = ["all pixels" if row[side] is None else f"{row[side]:.7g}" for side in ("ours", "theirs")]
        gap = "0" if row["difference"] == 0 else f"{row['difference']:.0e}"
        lines.append(
            f"| {row['metric']} | {row['convention']} | {row['peer']} | {shown[0]} | {shown[1]} | {gap} "
            f"| {row['tolerance']:.0e}, {row['because']} |"
        )
    return "\n".join(lines)


def coverage() -> str:
    """One line per statistic and population, as `benchmarks/coverage.py` found them."""
    rows = results("coverage")["rows"]
    sizes = sorted({row["n"] for row in rows})
    heads = [f"n = {n}" for n in sizes]
    lines = [
        f"| statistic | population | {' | '.join(heads)} | draws | percentile bootstrap, n = 50, 100, 400 |",
        f"|{'---|' * (len(sizes) + 4)}",
    ]
    found: dict[tuple[str, str], dict[int, Any]] = {}
    for row in rows:
        found.setdefault((row["statistic"], row["population"]), {})[row["n"]] = row
    statistics = list(dict.fromkeys(statistic for statistic, _ in found))
    for (statistic, population), by_n in sorted(found.items(), key=lambda each: statistics.index(each[0][0])):
        shown = [f"{by_n[n]['cover']:.3f}".lstrip("0") if n in by_n else "" for n in sizes]
        draws = sorted({row["reps"] for row in by_n.values()})
        boots = [row["bootstrap"] for row in by_n.values() if row["bootstrap"] is not None]
        cells = [*shown, "–".join(map(str, draws)), ", ".join(f"{share:.2f}".lstrip("0") for share in boots)]
        lines.append(f"| {statistic} | {population} | {' | '.join(cells)} |")
    return "\n".join(lines)


def coverage_images() -> str:
    """One line per population and size, as `benchmarks/coverage_images.py` found them."""
    found = results("coverage_images")
    lines = [
        "| statistic | features | population | patients | draws | truth | covered | bracket | percentile bootstrap |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        boot = "" if row["bootstrap"] is None else f"{row['bootstrap']:.2f}"
        bracket = "" if row["extrapolated"] == 1 else "yes"
        lines.append(
            f"| {row['statistic']} | {row['features']} | {row['population']} | {row['n']} | {row['reps']} "
            f"| {row['truth']:.3g} | {row['cover']:.3f} | {bracket} | {boot} |"
        )
    return "\n".join(lines)


def precision() -> str:
    """One line per space and pair of sets, as `benchmarks/precision.py` found them."""
    lines = [
        "| space | Fréchet distance of train and | images per set | fp32 | bf16 | change | over halves |",
        "|---|---|---|---|---|---|---|",
    ]
    for space, pairs in results("precision")["spaces"].items():
        for other, row in pairs.items():
            low, high = row["over_halves"]
            lines.append(
                f"| {space} | {other} | {row['n'][1]} | {row['fp32']:.4g} | {row['bf16']:.4g} "
                f"| {row['relative_change']:+.1%} | {low:+.1%} … {high:+.1%} |"
            )
    return "\n".join(lines)


def validity() -> str:
    """One line per set of images and space, as `benchmarks/validity.py` found them."""
    found = results("validity")["data"]
    kinds = list(next(iter(next(iter(found.values())).values()))["spearman"])
    heads = [kind.replace("_", " ") for kind in kinds]
    lines = [f"| images | space | degraded | {' | '.join(heads)} | status |", f"|{'---|' * (len(kinds) + 4)}"]
    for data, spaces in found.items():
        for space, facts in spaces.items():
            values = " | ".join(f"{facts['spearman'][kind]:.2f}" for kind in kinds)
            lines.append(f"| {data} | {space} | {facts['images']} | {values} | {facts['status']} |")
    return "\n".join(lines)


def physics() -> str:
    """One line per set and statistic, as `benchmarks/physics.py` found them."""
    lines = [
        "| images | statistic | train | holdout | `flow` | hybrid | gap: holdout | gap: `flow` | gap: hybrid |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    cells: dict[tuple[str, str], dict[str, Any]] = {}
    for row in results("physics")["rows"]:
        cells.setdefault((row["set"], row["statistic"]), {})[row["images"]] = row
    for (name, statistic), found in cells.items():
        sides = [found[label] for label in ("real again", "twin", "hybrid")]
        means = [" ".join(f"{x:.3g}" for x in side.get("mean", [])) or "too few" for side in sides]
        gaps = [f"{g['gap']:.3g} [{g['lo']:.2g}, {g['hi']:.2g}]" if "gap" in g else "too few" for g in sides]
        train = " ".join(f"{x:.3g}" for x in sides[0]["train_mean"])
        lines.append(f"| {name} | `{statistic}` | {train} | {' | '.join(means)} | {' | '.join(gaps)} |")
    return "\n".join(lines)


def generators() -> str:
    """One line per data set and generator, as `benchmarks/generators.py` found them."""
    rows = results("generators")["rows"]
    spaces = sorted({name.partition("[")[2][:-1] for row in rows for name in row["results"] if ".fd[" in name})
    heads = [f"FD, {space}" for space in reversed(spaces)]
    lines = [
        f"| data | generator | training, CPU s | images/s | {' | '.join(heads)} | precision | recall | copying, p |",
        f"|{'---|' * (7 + len(heads))}",
    ]
    for data in dict.fromkeys(row["data"] for row in rows):
        those = [row for row in rows if row["data"] == data]
        null = [_figure(those[0], f".fd[{space}]", "null") for space in reversed(spaces)]
        lines.append(f"| {data} | real against real | | | {' | '.join(null)} | | | |")
        for row in those:
            took = f"{row['train_cpu_s']:.0f}" if "train_cpu_s" in row else f"{row['train_wall_s']:.0f} wall"
            cells = [data, row["cell"], took, f"{row['samples_per_s']:.0f}"]
            for space in reversed(spaces):
                lo, hi = next(r for name, r in row["results"].items() if name.endswith(f".fd[{space}]"))["interval"]
                cells.append(f"{_figure(row, f'.fd[{space}]')} ({lo:.3g} … {hi:.3g})")
            space = spaces[-1]
            cells += [_figure(row, f"{name}[{space}]") for name in (".precision", ".recall")]
            cells.append(_figure(row, ".cpm", "p"))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ranking() -> str:
    """One line per space and set, as `benchmarks/ranking.py` found them, the best first."""
    shown = {
        "holdout": "holdout (the real-against-real null)",
        "resampled train": "resampled train: turned, mirrored, faint noise",
        "vae, 600 steps": "VAE, 600 steps",
        "vae, 20 steps": "VAE, 20 steps",
        "holdout, blurred": "holdout, blurred by one pixel",
        "holdout, darkest third": "holdout, only its darkest third",
    }
    lines = ["| space | set | n | Fréchet distance | precision | recall |", f"|{'---|' * 6}"]
    for space, rows in results("ranking")["spaces"].items():
        found = {row["set"]: row for row in rows}
        for name, words in shown.items():
            row = found[name]
            cells = [
                "{:.3g} [{:.3g}, {:.3g}]".format(*(x + 0.0 for x in row[key])) for key in ("fd", "precision", "recall")
            ]
            lines.append(f"| {space} | {words} | {row['n']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def disciplines() -> str:
    """One line per discipline and space, as `benchmarks/disciplines.py` found them."""
    kinds = ["blur", "noise", "bias_field", "gamma", "downsampling", "texture_swap"]
    heads = [kind.replace("_", " ") for kind in kinds]
    lines = [f"| discipline | space | {' | '.join(heads)} | |", f"|{'---|' * (len(kinds) + 3)}"]
    for name, row in results("disciplines")["disciplines"].items():
        for item in row["suites"]["features"]:
            values = " | ".join(f"{item['facts']['spearman'][kind]:.2f}" for kind in kinds)
            lines.append(f"| {name} | {item['name']} | {values} | {'fit' if item['status'] == 'ok' else '**unfit**'} |")
    return "\n".join(lines)


def detectors() -> str:
    """One line per discipline: how each copy detector did."""
    found = results("disciplines")["disciplines"]
    names = [item["name"] for item in next(iter(found.values()))["suites"]["privacy"]]
    lines = [f"| discipline | images | units | {' | '.join(names)} |", f"|{'---|' * (len(names) + 3)}"]
    for name, row in found.items():
        status = {item["name"]: item["status"].replace("_", " ") for item in row["suites"]["privacy"]}
        cells = " | ".join(status.get(detector, "too few images") for detector in names)
        lines.append(f"| {name} | {row['images']} | {row['units']} | {cells} |")
    return "\n".join(lines)


def transfer() -> str:
    """One line per target and source, as `benchmarks/transfer.py` found them."""
    lines = [
        "| target | source | seeds | FD from nothing | transferred | better in | recall from nothing | transferred |",
        "|---|---|---|---|---|---|---|---|",
    ]
    roads: dict[tuple[str, str], list[Any]] = {}
    for row in results("transfer")["rows"]:
        roads.setdefault((row["target"], row["source"]), []).append(row)
    ways = ("from nothing", "transferred")
    for (target, source), rows in roads.items():
        fd, recall = (
            [median(row[way][f"{name}[radiomics]"] for row in rows) for way in ways]
            for name in ("fidelity.fd", "diversity.recall")
        )
        better = sum(row[ways[1]]["fidelity.fd[radiomics]"] < row[ways[0]]["fidelity.fd[radiomics]"] for row in rows)
        cells = [target, source, str(len(rows)), *(f"{x:.3g}" for x in fd), f"{better} of {len(rows)}"]
        lines.append(f"| {' | '.join([*cells, *(f'{x:.2f}' for x in recall)])} |")
    return "\n".join(lines)


def settings() -> str:
    """One line per key of the configuration."""
    from medtrust.config import KEYS

    lines = ["| key | default | what |", "|---|---|---|"]
    for name, key in KEYS.items():
        default = ", ".join(key.default) if isinstance(key.default, tuple) else key.default
        shown = "" if default is None or default == "" or default == {} else f"`{str(default).lower()}`"
        lines.append(f"| `{name}` | {shown} | {key.help} |")
    return "\n".join(lines)


def _figure(row: Any, ending: str, field: str = "value") -> str:
    """A number of a row's result, or why there is none."""
    found = next((result for name, result in row["results"].items() if name.endswith(ending)), {})
    return f"{found[field]:.3g}" if field in found else str(found.get("status", "not measured"))


def _beside(file: str, name: str) -> Callable[[], str]:
    """A table of another file beside this one."""

    def table() -> str:
        spec = importlib.util.spec_from_file_location(file, Path(__file__).with_name(f"{file}.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return str(getattr(module, name)())

    return table


TABLES: dict[str, tuple[Path, Callable[[], str]]] = {
    "metrics": (DOCS / "README.md", metrics),
    "parity": (DOCS / "parity.md", parity),
    "generators": (DOCS.parent / "generators.md", generators),
    "coverage": (DOCS / "coverage.md", coverage),
    "coverage_images": (DOCS / "coverage.md", coverage_images),
    "physics": (ROOT / "docs" / "physics.md", physics),
    "precision": (ROOT / "docs" / "features.md", precision),
    "validity": (ROOT / "docs" / "features.md", validity),
    "ranking": (ROOT / "docs" / "features.md", ranking),
    "disciplines": (ROOT / "docs" / "disciplines.md", disciplines),
    "detectors": (ROOT / "docs" / "disciplines.md", detectors),
    "transfer": (ROOT / "docs" / "disciplines.md", transfer),
    **{f"scale_{name}": (ROOT / "docs" / "scale.md", _beside("scale_tables", name)) for name in SCALE},
    **{f"federated-{name}": (ROOT / "docs" / "federated.md", _beside("federated_tables", name)) for name in FEDERATED},
    "settings": (ROOT / "docs" / "reference" / "settings.md", settings),
}


def results(name: str) -> Any:
    """What a benchmark has written."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def filled(name: str) -> tuple[Path, str, str]:
    """The page of a table, its text now, and its text with the table renewed."""
    page, table = TABLES[name]
    now = page.read_text()
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(now):
        raise SystemExit(f"{page} has no place for the table {name}: write <!-- {name} --> and <!-- /{name} --> there")
    return page, now, pattern.sub(lambda found: found[1] + table() + found[2], now)


def main() -> None:
    """Renew every table."""
    for name in TABLES:
        page, now, then = filled(name)
        page.write_text(then)
        print(f"{page.relative_to(ROOT)}: {name} {'renewed' if now != then else 'is as it should be'}")


if __name__ == "__main__":
    main()
