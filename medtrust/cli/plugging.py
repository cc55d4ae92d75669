"""plugins check, plugins new: what a plugin's author runs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from medtrust.cli.common import PATH, pair
from medtrust.cli.listing import plugins

__all__ = ["plugins_check", "plugins_new"]

FAILED = 1
TAKEN_BY = {"options": ("metric", "generator", "features"), "examples": ("format",), "path": ("generator",)}
NEW = ("metric", "generator", "features", "explainer", "format")
CHECKED = ("metric", "generator", "features", "explainer", "format", "report_format")


@plugins.command("check")
@click.argument("name")
@click.option("--kind", type=click.Choice(CHECKED), help="Where one name is borne by several kinds.")
@click.option("--example", "examples", multiple=True, type=PATH, help="A valid file of the format; repeatable.")
@click.option("--path", "artefact", default="", help="Artefact of the generator.")
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="Option of the plugin; repeatable.")
@click.option(
    "--expect-failure",
    "expected",
    multiple=True,
    metavar="CHECK=REASON",
    help="A check that is known to fail, and why.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plugins_check(
    name: str,
    kind: str | None,
    examples: tuple[Path, ...],
    artefact: str,
    options: tuple[str, ...],
    expected: tuple[str, ...],
    as_json: bool,
) -> int:
    """Check that a contribution keeps its contract.

    \b
    Exit codes: 0 it does, 1 a check failed or too few ran, 2 usage, 70 the plugin is broken.
    """
    from medtrust.errors import ConfigError
    from medtrust.testing.running import CHECKS, check, kind_of

    found = kind_of(name, kind or "")
    given: dict[str, object] = {"expected_failures": dict(pair(one, "--expect-failure") for one in expected)}
    if options:
        given["options"] = dict(pair(one, "--option") for one in options)
    if examples:
        given["examples"] = list(examples)
    if artefact:
        given["path"] = artefact
    if found == "format" and not examples:
        raise ConfigError(f"{name} is a file format: give one or more valid files of it with --example")
    for option, kinds in TAKEN_BY.items():
        if option in given and found not in kinds:
            raise ConfigError(f"--{option.removesuffix('s')} does not go with a {found.replace('_', ' ')}")
    try:
        account = check(name, kind=found, **given)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if as_json:
        click.echo(json.dumps(account.as_dict(), indent=2))
        return FAILED if account.complaints else 0
    says = {one.name: one.says for one in CHECKS[found][0]}
    marks = {"passed": "ok", "failed": "FAILED", "expected failure": "expected", "not applicable": "-"}
    for outcome in account.outcomes:
        click.echo(f"  {marks[outcome.state]:<9} {outcome.check:<26} {outcome.detail or says[outcome.check]}")
    click.echo(account.summary)
    if account.ran < account.floor:
        click.echo(account.complaints[-1], err=True)
    return FAILED if account.complaints else 0


@plugins.command("new")
@click.argument("name")
@click.option("--kind", required=True, type=click.Choice(NEW), help="What it shall offer.")
@click.option("--folder", type=PATH, default=Path(), help="Where to put the folder NAME.  [default: here]")
def plugins_new(name: str, kind: str, folder: Path) -> None:
    """Write a new plugin: complete, installable, typed, tested. NAME is its distribution, such as edge-sharpness."""
    from medtrust.scaffold import write_plugin

    for file in write_plugin(name, kind, folder):
        click.echo(file)
    click.echo(
        f"\nnext:\n  cd {folder / name}\n  pip install --editable '.[test]'\n  pytest\n"
        "then change the file that holds the " + kind + ", and see docs/plugins/"
    )
