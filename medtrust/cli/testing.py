"""selftest: does a part of medtrust work on these images?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medtrust.cli.common import PATH, pair, words
from medtrust.errors import ConfigError

if TYPE_CHECKING:
    from medtrust.types import SuiteRow

__all__ = ["selftest"]

RECIPE = "derm-patches"


@click.command()
@click.option("--suite", "suites", help="Suites, comma-separated.  [default: every one that is installed]")
@click.option("--train", type=str, help=f"Real images.  [default: the public set {RECIPE}]")
@click.option("--holdout", type=str, help="Real images of other patients.")
@click.option("--synthetic", type=str, help="A generator's images.")
@click.option("--features", default="radiomics", show_default=True, help="Feature spaces, comma-separated.")
@click.option("--weights", multiple=True, metavar="NAME=PATH", help="Weight file for a feature space; repeatable.")
@click.option("--patients", metavar="REGEX", help="Finds the patient in a file's path.")
@click.option("--intensity", metavar="LO:HI[:UNIT]", help="Declared range, where the files leave it open.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@click.option("--cache", type=PATH, help="Folder of the cache.")
@click.option("--offline", is_flag=True, help="Use the cache only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def selftest(
    suites: str | None,
    train: str | None,
    holdout: str | None,
    synthetic: str | None,
    features: str,
    weights: tuple[str, ...],
    patients: str | None,
    intensity: str | None,
    seed: int,
    device: str,
    precision: str,
    cache: Path | None,
    offline: bool,
    as_json: bool,
) -> int:
    """Test detectors and feature spaces on your own images.

    \b
    Exit codes: 0 everything was tested and held, 1 something failed, 3 something could not be tested.
    """
    from medtrust.cache import FeatureStore
    from medtrust.host import build_host
    from medtrust.images import common_intensity, open_set, parse_intensity
    from medtrust.progress import make_progress
    from medtrust.recipes import cache_folder, get_recipe
    from medtrust.sources import readers_of
    from medtrust.spaces import load_spaces
    from medtrust.suites import as_plain, exit_code_of, run_suites
    from medtrust.types import SuiteInput

    host, progress, place = build_host(), make_progress(as_json), cache or cache_folder()
    declared = parse_intensity(intensity) if intensity else None
    if train is None:
        train = str(get_recipe(RECIPE, cache=place, progress=progress, offline=offline))
    chosen = {host.find("features", name).spec.name: host.find("features", name) for name in words(features)}
    broken = next((name for name, found in chosen.items() if found.status != "ok"), None)
    if broken:
        raise ConfigError(f"feature space {broken} cannot be used: {chosen[broken].status}")
    spaces = load_spaces(
        chosen,
        host,
        {name: Path(path) for name, path in (pair(text, "--weights") for text in weights)},
        offline=offline,
        cache_dir=place,
        device=device,
        precision=precision,
    )
    readers = readers_of(host)
    sets = {
        name: open_set(Path(source), name, readers, patients=patients, intensity=declared)  # type: ignore[arg-type]
        for name, source in (("train", train), ("holdout", holdout), ("synthetic", synthetic))
        if source is not None
    }
    data = SuiteInput(
        train=sets["train"],
        holdout=sets.get("holdout"),
        synthetic=sets.get("synthetic"),
        intensity=common_intensity(list(sets.values())),
        spaces=spaces,
        store=FeatureStore(place / "features"),
        seed=seed,
        progress=progress,
    )
    outcome = run_suites(host, words(suites), data)
    if as_json:
        click.echo(json.dumps(as_plain(outcome), indent=2))
    else:
        _show(outcome)
    return exit_code_of(outcome)


def _show(outcome: dict[str, tuple[SuiteRow, ...]]) -> None:
    for suite, rows in outcome.items():
        click.echo(suite)
        for row in rows:
            click.echo(f"  {row.status.replace('_', ' '):<8} {row.name}: {row.detail}")
            for fact, value in row.facts.items():
                if isinstance(value, dict):
                    click.echo(f"           {fact}: " + ", ".join(f"{k} {_figure(v)}" for k, v in value.items()))


def _figure(value: object) -> str:
    if isinstance(value, list):
        return " → ".join(_figure(item) for item in value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)
