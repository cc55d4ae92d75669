"""Find modules on disk without importing anything."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Iterable
from importlib.machinery import ModuleSpec
from pathlib import Path

__all__ = ["locate", "missing", "source_digest"]


def locate(module: str) -> ModuleSpec | None:
    """Find a module as an import would, but without importing its parent packages.

    `importlib.util.find_spec("a.b")` imports `a`; a listing must not run anybody's code.

    Args:
        module: Dotted name.

    Returns:
        The module's spec, or None where there is no such module.
    """
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # already imported, by something that left no spec behind
        return None
    name = top
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = f"{name}.{part}"
        spec = importlib.machinery.PathFinder.find_spec(name, list(spec.submodule_search_locations))
    return spec


def missing(modules: Iterable[str]) -> tuple[str, ...]:
    """Name those modules that cannot be imported because nothing provides them."""
    return tuple(name for name in modules if sys.modules.get(name) is None and locate(name) is None)


def source_digest(module: str) -> str:
    """Digest the Python sources that a plugin module belongs to.

    Args:
        module: Dotted name: a package's module stands for all `.py` files below that package's folder, a top-level
            module for its one file.

    Returns:
        Hexadecimal SHA-256 over relative names and contents; empty where there is no source file.
    """
    spec = locate(module)
    if spec is None or not spec.has_location or spec.origin is None or not os.path.isfile(spec.origin):
        return ""
    origin = Path(spec.origin)
    alone = "." not in module and spec.submodule_search_locations is None
    digest = hashlib.sha256()
    for file in [origin] if alone else _sources(origin.parent):
        digest.update(file.relative_to(origin.parent).as_posix().encode("utf-8", "surrogateescape") + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _sources(folder: Path) -> list[Path]:
    files = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names if name.endswith(".py")]
    return sorted(file for file in files if file.is_file())
