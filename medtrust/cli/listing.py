"""plugins, data, info: see what there is."""

from __future__ import annotations

import json
from pathlib import Path

import click

from medtrust.cli.common import PATH

__all__ = ["data", "info", "plugins"]


@click.group()
def plugins() -> None:
    """See what is installed."""


@plugins.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plugins_list(as_json: bool) -> None:
    """List plugins and what each contributes."""
    from medtrust.host import build_host

    host = build_host()
    if as_json:
        click.echo(json.dumps({"plugins": host.plugins()}, indent=2))
        return
    for kind in ("metric", "features", "generator", "explainer", "suite", "format", "report_format"):
        contributions = host.contributions(kind)
        if contributions:
            click.echo(f"{kind.replace('_', ' ')}s" if kind != "features" else "feature spaces")
        for c in contributions:
            state = "" if c.status == "ok" else f"  [{c.status}]"
            merged = ", ".join(statistic for _, statistic in getattr(c.spec, "mergeable", ()))
            click.echo(f"  {c.full_name:<30} {c.spec.summary}{merged and f' (federated: {merged})'}{state}")
    for failure in host.failures:
        click.echo(f"broken: {failure.plugin} ({failure.distribution}) at {failure.stage}: {failure.error}", err=True)
        if failure.remedy:
            click.echo(f"  {failure.remedy}", err=True)


@plugins.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plugins_show(name: str, as_json: bool) -> None:
    """Show everything that a plugin or contribution declares."""
    from medtrust.host import build_host

    facts = build_host().describe(name)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    for key, value in facts.items():
        click.echo(f"{key:<22} {value if isinstance(value, str) else json.dumps(value)}")


@click.group()
def data() -> None:
    """Public images and weights, pinned by digest."""


@data.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def data_list(as_json: bool) -> None:
    """List the recipes."""
    from dataclasses import asdict

    from medtrust.recipes import list_recipes

    recipes = list_recipes()
    if as_json:
        click.echo(json.dumps([asdict(recipe) for recipe in recipes], indent=2, default=str))
        return
    for recipe in recipes:
        click.echo(f"{recipe.name:<20} {recipe.kind:<8} {recipe.summary}")


@data.command("get")
@click.argument("name")
@click.option("--cache", type=PATH, help="Folder of the cache.")
@click.option("--offline", is_flag=True, help="Use the cache only.")
def data_get(name: str, cache: Path | None, offline: bool) -> None:
    """Fetch one recipe, check its SHA-256, unpack it into the cache and print where it is."""
    from medtrust.progress import make_progress
    from medtrust.recipes import cache_folder, get_recipe

    place = get_recipe(name, cache=cache or cache_folder(), progress=make_progress(), offline=offline)
    click.echo(place)


@data.command("split")
@click.argument("source", type=PATH)
@click.option("--holdout", type=float, default=0.5, show_default=True, help="Share of the patients for the holdout.")
@click.option("--stratify", metavar="COLUMN", help="Manifest column of which both sides shall hold the same mixture.")
@click.option("--patients", metavar="REGEX", help="Finds the patient in a file's path.")
@click.option("--intensity", metavar="LO:HI[:UNIT]", help="Declared range, where the files leave it open.")
@click.option("--seed", type=int, default=0, show_default=True)
def data_split(
    source: Path, holdout: float, stratify: str | None, patients: str | None, intensity: str | None, seed: int
) -> None:
    """Divide SOURCE by patient: writes train.csv and holdout.csv beside the images, which audits take as sets."""
    from medtrust.host import build_host
    from medtrust.images import open_set, parse_intensity, split_set, write_split
    from medtrust.progress import make_progress
    from medtrust.sources import readers_of

    declared = parse_intensity(intensity) if intensity else None
    images = open_set(source, "train", readers_of(build_host()), patients=patients, intensity=declared)
    images.inspect(progress=make_progress())
    split = split_set(images, holdout, seed=seed, stratify=stratify)
    sides = zip(write_split(source, images, split), split.patients, (split.train, split.holdout), strict=True)
    for path, count, rows in sides:
        click.echo(f"{path}: {len(rows)} images of {count} patients")
    if split.joined:
        click.echo(f"{split.joined} patients share an exact image with another and were kept on its side")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(as_json: bool) -> None:
    """Show versions, the native core, the device and the plugins."""
    from medtrust.about import about
    from medtrust.host import build_host

    facts = about(build_host())
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    for part, values in facts.items():
        click.echo(part)
        for key, value in values.items():
            if value not in (None, []):
                shown = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
                click.echo(f"  {key.replace('_', ' '):<22} {shown}")
