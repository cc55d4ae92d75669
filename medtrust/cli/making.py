"""sample, train, demo: make images, then perhaps judge them."""

from __future__ import annotations

from pathlib import Path

import click

from medtrust.cli.common import PATH, pair, show
from medtrust.errors import ConfigError

__all__ = ["demo", "sample", "train"]


@click.command()
@click.argument("spec")
@click.option("--n", type=click.IntRange(1), required=True, help="How many images.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=PATH, required=True, help="Folder for the images.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--condition", help="A class, CLASS=SHARE,…, a sentence, a .txt with one per line, or a set of images.")
@click.option("--allow-code", is_flag=True, help="Let the generator's artefact run the code that it brings.")
@click.option("--offline", is_flag=True, help="Never open a socket.")
def sample(
    spec: str, n: int, seed: int, out: Path, device: str, condition: str | None, allow_code: bool, offline: bool
) -> None:
    """Draw images from a generator given as kind:path?option=value; a stopped run goes on where it was."""
    from medtrust.conditions import read_conditions
    from medtrust.host import build_host
    from medtrust.progress import make_progress
    from medtrust.sampling import sample_to
    from medtrust.sources import open_generator, parse_source, readers_of, request_of

    host = build_host()
    source = parse_source(spec, lambda kind: host.find("generator", kind) is not None)
    if isinstance(source, Path):
        raise ConfigError(f"{spec} is a path, not a generator; write kind:path (see `medtrust plugins list`)")
    request = request_of(source, host.find("generator", source.kind).spec.version)
    generator = open_generator(source, host, device, allow_code=allow_code, offline=offline)
    asked, names = None, None
    if condition is not None:
        asked, names, digest = read_conditions(condition, generator.conditions, readers_of(host))
        request["condition"] = digest
    sample_to(generator, n, out, seed=seed, progress=make_progress(), request=request, condition=asked, names=names)
    click.echo(out)


@click.command()
@click.argument("kind")
@click.option("--data", required=True, help="Images to fit on.")
@click.option("--out", type=PATH, required=True, help="Folder for the checkpoint.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--patients", metavar="REGEX", help="Finds the patient in a file's path.")
@click.option("--intensity", metavar="LO:HI[:UNIT]", help="Declared range, where the files leave it open.")
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="Option of the recipe; repeatable.")
def train(
    kind: str, data: str, out: Path, seed: int, patients: str | None, intensity: str | None, options: tuple[str, ...]
) -> None:
    """Fit a generator of KIND on a folder of images."""
    from medtrust.host import build_host
    from medtrust.images import open_set, parse_intensity
    from medtrust.progress import make_progress
    from medtrust.sources import readers_of

    host = build_host()
    contribution = host.find("generator", kind)
    if not contribution.spec.trainable:
        raise ConfigError(f"generator {kind} cannot be trained here; see `medtrust plugins list` for those that can")
    declared = parse_intensity(intensity) if intensity else None
    images = open_set(Path(data), "train", readers_of(host), patients=patients, intensity=declared)
    pairs = dict(pair(text, "--option") for text in options)
    factory = host.load(contribution)()
    click.echo(factory.train(images, images.intensity, out, seed=seed, progress=make_progress(), options=pairs))


@click.command()
@click.option(
    "--out", type=PATH, default=Path("medtrust-demo"), show_default=True, help="Folder for images and report."
)
@click.option(
    "--plant-copies",
    type=click.FloatRange(0, 0.5),
    default=0.0,
    show_default=True,
    help="Share of the synthetic set to replace by edited training images.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--cache", type=PATH, help="Folder of the cache.")
@click.option("--offline", is_flag=True, help="Use the cache only.")
def demo(out: Path, plant_copies: float, seed: int, cache: Path | None, offline: bool) -> int:  # fmt: skip
    """Train a small generator on real dermoscopy patches, audit it, and write the report."""
    from medtrust.demo import run_demo
    from medtrust.progress import make_progress

    report = run_demo(out, seed=seed, plant_copies=plant_copies, cache=cache, offline=offline, progress=make_progress())
    return show(report, out)
