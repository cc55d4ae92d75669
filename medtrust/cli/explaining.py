"""explain: why an audit ended as it did, or where a classifier of the user's looks."""

from __future__ import annotations

from pathlib import Path

import click

from medtrust.cli.common import PATH, words
from medtrust.errors import ConfigError

__all__ = ["explain"]


@click.command()
@click.argument("what", type=PATH)
@click.option("--model", type=PATH, help="Classifier to explain on the images WHAT: .onnx, or TorchScript.")
@click.option("--class", "label", type=int, help="Class to explain.  [default: the one predicted for each image]")
@click.option("--layer", default="", help="Layer for class activation maps.  [default: the last one with a map]")
@click.option("--layers", "list_layers", is_flag=True, help="List the layers and stop.")
@click.option("--maps", default="hirescam", show_default=True, help="Explainers, comma-separated.")
@click.option("--size", metavar="H[xW]", help="Bring images to this size.  [default: what the model asks for]")
@click.option("--range", "span", default="0:1", show_default=True, metavar="LO:HI", help="What its input spans.")
@click.option(
    "--role",
    type=click.Choice(["train", "holdout", "synthetic"]),
    default="holdout",
    show_default=True,
    help="What the images are; only synthetic ones keep their names.",
)
@click.option("--most", type=click.IntRange(8), default=64, show_default=True, help="Images to look at.")
@click.option("--intensity", metavar="LO:HI[:UNIT]", help="Declared range, where the files leave it open.")
@click.option(
    "--evidence",
    type=click.Choice(["none", "blur", "full"]),
    default="none",
    show_default=True,
    help="Pictures in the report.",
)
@click.option("--out", type=PATH, default=Path("medtrust-explanation"), show_default=True, help="Report's folder.")
@click.option("--seed", type=int, default=0, show_default=True, help="Root seed.")
@click.option("--allow-code", is_flag=True, help="Open TorchScript, which is a program: only for files you trust.")
@click.option("--quiet", is_flag=True, help="No progress.")
def explain(
    what: Path,
    model: Path | None,
    label: int | None,
    layer: str,
    list_layers: bool,
    maps: str,
    size: str | None,
    span: str,
    role: str,
    most: int,
    intensity: str | None,
    evidence: str,
    out: Path,
    seed: int,
    allow_code: bool,
    quiet: bool,
) -> int:
    """Explain a finished audit (WHAT is its report.json), or a classifier (--model) on the images WHAT."""
    if model is None:
        if what.suffix != ".json":
            raise ConfigError(f"{what} is no report.json; to explain a classifier on these images add --model")
        from medtrust.report import read_report
        from medtrust.report.proof import proof
        from medtrust.report.reasons import explanation

        finished = read_report(what).to_dict()
        click.echo(f"{proof(finished)}\n\n{explanation(finished)}")
        return 0
    from medtrust.explain_model import Inputs, explain_classifier, layers_of
    from medtrust.images import parse_intensity
    from medtrust.progress import make_progress

    declared = parse_intensity(intensity) if intensity else None
    inputs = Inputs(what, _size(size), _span(span), role, most, declared)  # type: ignore[arg-type]
    if list_layers:
        for name, shape in layers_of(model, inputs, allow_code=allow_code).items():
            click.echo(f"{name:<60} {' x '.join(map(str, shape))}")
        return 0
    report = explain_classifier(
        model,
        inputs,
        out=out,
        progress=make_progress(quiet),
        explainers=words(maps),
        label=label,
        layer=layer,
        evidence=evidence,
        seed=seed,
        allow_code=allow_code,
    )
    for row in report.results:
        state = f"removal gap {row.estimate.value:.2f}" if row.estimate else f"{row.status}: {row.reason}"
        click.echo(f"{row.id}  {state}")
    click.echo(out / "report.html")
    return 0


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(f"--size {text} is not H or HxW, such as 224 or 240x320")
    return int(parts[0]), int(parts[-1])


def _span(text: str) -> tuple[float, float]:
    lo, separator, hi = text.partition(":")
    try:
        span = float(lo), float(hi)
    except ValueError:
        span = (0.0, 0.0)
    if not separator or not span[0] < span[1]:
        raise ConfigError(f"--range {text} is not LO:HI, such as 0:1 or -1:1")
    return span
