"""audit, gate, report: from images to a verdict."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from medtrust.cli.common import PATH, show, words
from medtrust.errors import ConfigError

__all__ = ["audit", "compare", "gate", "report"]

F = TypeVar("F", bound=Callable[..., Any])


def _audit_options(command: F) -> F:
    options = [
        click.option("--train", type=str, help="Real images that the generator was fitted on."),
        click.option("--holdout", type=str, help="Real images of other patients, never used to fit."),
        click.option(
            "--synthetic", type=str, help="The generator's images, or the generator as kind:path?option=value."
        ),
        click.option("--features", help="Feature spaces, comma-separated.  [default: radiomics]"),
        click.option("--metrics", help="Metrics, comma-separated; all, optional.  [default: all]"),
        click.option("--subgroups", metavar="COLUMN", help="Manifest columns that hold each image's subgroup."),
        click.option(
            "--profile",
            help="Settings of a discipline: ct, mr, xray, pathology, dermatology, ophthalmology, or a file.",
        ),
        click.option("--policy", help="Policy file, or research, clinical-strict, ci-smoke.  [default: research]"),
        click.option("--baseline", type=PATH, help="Earlier report.json for non-regression gates."),
        click.option(
            "--weights", multiple=True, metavar="NAME=PATH", help="Weight file for a feature space; repeatable."
        ),
        click.option("--patients", metavar="REGEX", help="Finds the patient in a file's path."),
        click.option("--intensity", metavar="LO:HI[:UNIT]", help="Declared range, where the files leave it open."),
        click.option("--slices", metavar="AXIS:STEP", help="Slices of volumes: every STEP-th along z, y or x."),
        click.option(
            "--volumes", type=click.Choice(["mean", "mean-sd"]), help="Compare volumes, by features of their slices."
        ),
        click.option("--out", type=PATH, help="Folder for the report.  [default: medtrust-report]"),
        click.option("--format", "format_", help="Report formats, comma-separated.  [default: json,html]"),
        click.option(
            "--evidence", type=click.Choice(["none", "blur", "full"]), help="Pictures in the report.  [default: none]"
        ),
        click.option("--n-synthetic", type=int, help="Images to draw from a generator.  [default: as many as train]"),
        click.option("--condition", help="What to ask a generator for, as in `medtrust sample`."),
        click.option("--level", type=float, help="Confidence level.  [default: 0.95]"),
        click.option("--seed", type=int, help="Root seed.  [default: 0]"),
        click.option("--metric-timeout", type=float, metavar="SECONDS", help="Longest that one metric may take."),
        click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Where networks run.  [default: cpu]"),
        click.option(
            "--precision", type=click.Choice(["fp32", "bf16"]), help="Arithmetic of networks.  [default: fp32]"
        ),
        click.option(
            "--engine",
            type=click.Choice(["local", "ray"]),
            help="Who decodes, extracts and searches.  [default: local]",
        ),
        click.option("--ray-address", metavar="HOST:PORT", help="Ray cluster to join.  [default: a private one]"),
        click.option("--workers", type=int, help="Decoding threads; processes of ray.  [default: number of cores]"),
        click.option("--batch-size", type=int, help="Images per batch.  [default: 64]"),
        click.option("--offline/--online", default=None, help="Never open a socket.  [default: offline under CI]"),
        click.option("--allow-code", is_flag=True, help="Let the generator's artefact run the code that it brings."),
        click.option("--cache", type=PATH, help="Folder of the feature cache."),
        click.option("--strict", is_flag=True, help="A WARN exits 1."),
        click.option("--config", type=PATH, help="medtrust.toml to read.  [default: ./medtrust.toml if present]"),
        click.option("--quiet", is_flag=True, help="No progress."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@_audit_options
def audit(config: Path | None, quiet: bool, strict: bool, allow_code: bool, **given: Any) -> int:
    """Compare synthetic images with the real ones; write report.json and report.html; exit by the verdict."""
    from medtrust.api import audit as run
    from medtrust.config import KEYS, load_config
    from medtrust.images import parse_intensity, parse_slices
    from medtrust.progress import make_progress

    given["format"] = given.pop("format_")
    settings = load_config({key: value for key, value in given.items() if value not in (None, ())}, file=config)
    values = {key: settings.get(key) for key in KEYS if key != "profile"}  # its settings are among the others
    for key in ("train", "synthetic"):
        if not values[key]:
            raise ConfigError(f"--{key} is missing: name the {key} images (see `medtrust audit --help`)")
    out = values["out"]
    values["formats"] = values.pop("format")
    values["slices"] = parse_slices(values["slices"]) if values["slices"] else None
    values["intensity"] = parse_intensity(values["intensity"]) if values["intensity"] else None
    report = run(**values, config=settings, strict=strict, allow_code=allow_code, progress=make_progress(quiet))
    return show(report, out)


@click.command()
@click.argument("report", type=PATH)
@click.option("--policy", required=True, help="Policy file, or research, clinical-strict, ci-smoke.")
@click.option("--baseline", type=PATH, help="Earlier report.json for non-regression gates.")
@click.option("--strict", is_flag=True, help="A WARN exits 1.")
@click.option("--explain", is_flag=True, help="Print the proof of every gate instead of the summary.")
@click.option("--out", type=PATH, help="Write the judged report.json into this folder.")
def gate(report: Path, policy: str, baseline: Path | None, strict: bool, explain: bool, out: Path | None) -> int:
    """Judge a finished report by a policy; exit by the verdict."""
    from medtrust import gate as judging
    from medtrust.report import read_report, to_json
    from medtrust.report.proof import proof
    from medtrust.writing import write_atomically

    rules = judging.load_policy(policy)
    before = judging.baseline_for(rules, baseline)
    judged = judging.judge(read_report(report), rules, baseline=before, strict=strict)
    if out is not None:
        write_atomically(out / "report.json", to_json(judged))
    if not explain:
        return show(judged)
    click.echo(proof(judged.to_dict()))
    return judged.exit_code


@click.command()
@click.argument("report", type=PATH)
@click.option("--format", "format_", default="html", show_default=True, help="Report formats, comma-separated.")
@click.option("--out", type=PATH, help="Folder to write to.  [default: beside the report]")
@click.option("--verify", is_flag=True, help="Write nothing: check report.json, its pictures and its renderings.")
def report(report: Path, format_: str, out: Path | None, verify: bool) -> int:
    """Render a finished report.json in other formats, or verify it."""
    from medtrust.host import build_host
    from medtrust.report import read_report
    from medtrust.report.integrity import check_folder
    from medtrust.writing import write_atomically

    host = build_host()
    finished = read_report(report)
    if verify:
        formats = [c for c in host.contributions("report_format") if c.status == "ok"]
        files = {c.spec.filename: partial(host.load, c) for c in formats}
        for line in check_folder(finished.to_dict(), report.parent, files):
            click.echo(line)
        return 0
    for name in words(format_):
        contribution = host.find("report_format", name)
        path = (out or report.parent) / contribution.spec.filename
        write_atomically(path, host.load(contribution)(finished.to_dict(), report.parent))
        click.echo(path)
    return 0


@click.command()
@click.argument("reports", type=PATH, nargs=-1, required=True)
@click.option("--out", type=PATH, default=Path("compare.html"), show_default=True, help="Page to write.")
def compare(reports: tuple[Path, ...], out: Path) -> int:
    """Put two or more reports side by side; the first is what the others are compared with."""
    from medtrust.report import read_report
    from medtrust.report.compare import compare as line_up
    from medtrust.report.compare import compare_page
    from medtrust.report.text import plain
    from medtrust.writing import write_atomically

    finished = [read_report(path).to_dict() for path in reports]
    write_atomically(out, compare_page(finished, [str(path) for path in reports]))
    for row in line_up(finished):
        words = [word for word in row.words[1:] if word in ("better", "worse", "not told apart")]
        if words:
            click.echo(f"{plain(row.id, 80)}: {', '.join(words)}")
    click.echo(out)
    return 0
