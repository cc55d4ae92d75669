"""federated: one report from several sites that show nobody their images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medtrust.cli.common import PATH, pair, show, words

if TYPE_CHECKING:
    from medtrust.federated.reading import Reader

__all__ = ["federated"]


@click.group()
def federated() -> None:
    """Evaluate a generator at several sites that share sums, never images (docs/federated.md)."""


@federated.command()
@click.argument("key", type=PATH)
def keygen(key: Path) -> None:
    """Make a site's key pair: KEY stays at the site, KEY with .pub goes to whoever writes the study."""
    from medtrust.federated import new_key

    made = new_key(key)
    click.echo(f"{key.with_suffix('.pub')}: {made.public}")


def _reader(cache: Path | None, weights: tuple[str, ...], patients: str | None, device: str, offline: bool) -> Reader:
    from medtrust.federated.reading import Reader
    from medtrust.host import build_host
    from medtrust.progress import make_progress
    from medtrust.recipes import cache_folder

    named = {name: Path(path) for name, path in (pair(text, "--weights") for text in weights)}
    return Reader(build_host(), cache or cache_folder(), named, offline, device, patients, make_progress())


@federated.command()
@click.argument("settings", type=PATH)
@click.option("--synthetic", type=PATH, required=True, help="The generator's images, which every site may see.")
@click.option("--reference", type=PATH, help="Public real images that scale the features.")
@click.option("--out", type=PATH, default=Path("study.medtrust"), show_default=True, help="The study to write.")
@click.option("--intensity", metavar="LO:HI[:UNIT]", help="Declared range, where the files leave it open.")
@click.option("--weights", multiple=True, metavar="NAME=PATH", help="Weight file for a feature space; repeatable.")
@click.option("--cache", type=PATH, help="Folder of the feature cache.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--offline", is_flag=True, help="Never open a socket.")
def study(
    settings: Path,
    synthetic: Path,
    reference: Path | None,
    out: Path,
    intensity: str | None,
    weights: tuple[str, ...],
    cache: Path | None,
    device: str,
    offline: bool,
) -> None:
    """Make the study of SETTINGS (a study.toml) and the synthetic images: the file that all sites agree upon."""
    from medtrust.federated.reading import read_settings, study_from
    from medtrust.images import parse_intensity
    from medtrust.writing import write_atomically

    reader = _reader(cache, weights, None, device, offline)
    declared = parse_intensity(intensity) if intensity else None
    made = study_from(
        read_settings(settings), synthetic, reader, base=settings.parent, reference=reference, intensity=declared
    )
    write_atomically(out, made.to_bytes())
    click.echo(f"{out}: study {made.name}, SHA-256 {made.digest}, {len(made.keys)} sites")
    if made.rules.below():
        click.echo(f"rules below medtrust's own: {', '.join(made.rules.below())} ({made.rules.lowered})")


@federated.command()
@click.argument("study", type=PATH)
@click.option("--name", required=True, help="Name of this site in the study.")
@click.option("--key", type=PATH, required=True, help="This site's private key.")
@click.option("--train", type=PATH, required=True, help="This site's share of what the generator was fitted on.")
@click.option("--holdout", type=PATH, required=True, help="Real images of other patients of this site.")
@click.option("--ledger", type=PATH, help="What this site has revealed so far.  [default: the key with .ledger]")
@click.option("--out", type=PATH, help="The statement to write.  [default: NAME.statement]")
@click.option("--patients", metavar="REGEX", help="Finds the patient in a file's path.")
@click.option("--weights", multiple=True, metavar="NAME=PATH", help="Weight file for a feature space; repeatable.")
@click.option("--cache", type=PATH, help="Folder of the feature cache.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--offline", is_flag=True, help="Never open a socket.")
def site(
    study: Path,
    name: str,
    key: Path,
    train: Path,
    holdout: Path,
    ledger: Path | None,
    out: Path | None,
    patients: str | None,
    weights: tuple[str, ...],
    cache: Path | None,
    device: str,
    offline: bool,
) -> None:
    """Compute this site's signed statement: sums and counts, held against the study's rules and the site's ledger."""
    from medtrust.federated import read_key
    from medtrust.federated.merging import membership_of
    from medtrust.federated.releasing import release
    from medtrust.writing import write_atomically

    agreed = _study(study)
    secret = read_key(key)
    data = _reader(cache, weights, patients, device, offline).site(agreed, train, holdout)
    said = release(agreed, name, data, secret, ledger or key.with_suffix(".ledger"))
    place = out or Path(f"{name}.statement")
    write_atomically(place, said.to_bytes())
    click.echo(f"{place}: {said.numbers} numbers in {len(said.to_bytes())} bytes, signed as {name}")
    auc = membership_of(agreed, said.facts)
    if auc is not None:
        click.echo(
            f"who holds an image of yours can tell that it is in these sums with an AUC of {auc:.2f} (0.5 is guessing)"
        )


@federated.command()
@click.argument("study", type=PATH)
@click.argument("statements", type=PATH, nargs=-1, required=True)
@click.option("--policy", default="federated", show_default=True, help="Policy file, or the name of a ready one.")
@click.option("--out", type=PATH, default=Path("medtrust-report"), show_default=True, help="Folder for the report.")
@click.option("--format", "format_", default="json,html", show_default=True, help="Report formats, comma-separated.")
@click.option("--strict", is_flag=True, help="A WARN exits 1.")
def merge(study: Path, statements: tuple[Path, ...], policy: str, out: Path, format_: str, strict: bool) -> int:
    """Check the sites' STATEMENTS and join them into a trust report; exit by the verdict."""
    from medtrust.api import render_report
    from medtrust.federated import Statement
    from medtrust.federated import merge as join
    from medtrust.host import build_host
    from medtrust.writing import ensure_folder, write_atomically

    agreed = _study(study)
    told = [Statement.from_bytes(_content(path), agreed) for path in statements]
    report = join(agreed, told, policy=policy, strict=strict)
    ensure_folder(out)
    for filename, content in render_report(report, out, words(format_), build_host()).items():
        write_atomically(out / filename, content)
    return show(report, out)


def _study(path: Path) -> Any:
    from medtrust.federated import Study

    return Study.from_bytes(_content(path))


def _content(path: Path) -> bytes:
    from medtrust.errors import ConfigError

    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); check the path") from error
