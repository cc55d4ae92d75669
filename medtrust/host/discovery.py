"""Find the entry points of installed distributions, and import those that are allowed."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distribution, distributions
from pathlib import Path
from typing import Any

from medtrust.config import did_you_mean
from medtrust.hookspecs import API_VERSION, GROUP
from medtrust.host.isolation import BrokenPluginError, Isolation, Source

__all__ = ["Found", "by_hand", "canonical", "check_api", "choose", "discover", "import_plugin"]

Failed = tuple[Source, BrokenPluginError]


@dataclass(frozen=True, slots=True)
class Found:
    """An entry point of the group, not yet imported."""

    source: Source
    entry_point: EntryPoint


def canonical(name: str) -> str:
    """Spell a distribution's name the one way in which all its spellings compare equal."""
    return re.sub(r"[-_.]+", "-", name).lower()


def discover(isolation: Isolation) -> tuple[list[Found], list[Failed]]:
    """List the plugins of every installed distribution, without importing one.

    Distributions are read one by one, because `importlib.metadata.entry_points` gives nothing at all once a single
    distribution is broken.

    Returns:
        Plugins sorted by name and distribution, and the distributions that could not be read.
    """
    found: list[Found] = []
    unreadable: list[Failed] = []
    seen: set[str] = set()
    for installed in distributions():
        source = _folder_source(installed)
        try:
            with isolation.call(source, "discover", "metadata"):
                if f"[{GROUP}]" not in (installed.read_text("entry_points.txt") or ""):
                    continue
                name = _fact(installed, "Name")
                if not name:
                    raise ValueError("METADATA has no Name")
                if canonical(name) not in seen:
                    seen.add(canonical(name))
                    # where a name is installed twice, the one that Python itself takes
                    found += _plugins_of(distribution(name))
        except BrokenPluginError as failed:
            unreadable.append((source, failed))
    return sorted(found, key=_order), unreadable


def by_hand(entry_points: Iterable[EntryPoint]) -> list[Found]:
    """List entry points that the caller gives; one without a distribution belongs to "local"."""
    return sorted((Found(_source(one, one.dist), one) for one in entry_points), key=_order)


def _plugins_of(installed: Distribution) -> Iterator[Found]:
    for entry_point in installed.entry_points.select(group=GROUP):
        yield Found(_source(entry_point, installed), entry_point)


def _source(entry_point: EntryPoint, installed: Distribution | None) -> Source:
    if installed is None:
        return Source(entry_point.name, "local", "0")
    return Source(entry_point.name, _fact(installed, "Name"), _fact(installed, "Version") or "(no version)")


def _fact(installed: Distribution, key: str) -> str:
    facts = installed.metadata
    return facts[key] if key in facts else ""  # noqa: SIM401 - PackageMetadata has no get() before Python 3.12


def _folder_source(installed: Distribution) -> Source:
    """Name a distribution by its folder, `name-version.dist-info`: its metadata may be what is broken."""
    stem = Path(str(getattr(installed, "_path", "(unnamed)"))).stem
    name, _, version = stem.partition("-")
    return Source("(all)", name, version)


def _order(found: Found) -> tuple[str, str]:
    return found.source.plugin, canonical(found.source.distribution)


def choose(
    found: Sequence[Found], unreadable: Sequence[Failed], allow: Iterable[str] | None
) -> tuple[list[Found], list[Found], list[Failed]]:
    """Apply the allow-list.

    Args:
        found: Installed plugins.
        unreadable: Distributions that could not be read.
        allow: Names of entry points or distributions; None allows all, an empty list nothing.

    Returns:
        The allowed plugins, those left out, and the failures: allowed distributions that could not be read, and
        allowed names that nothing bears.
    """
    if allow is None:
        return list(found), [], list(unreadable)
    wanted = {canonical(name): name for name in sorted(allow)}
    chosen = [one for one in found if wanted.keys() & _names(one.source)]
    failed = [one for one in unreadable if canonical(one[0].distribution) in wanted]
    borne = {name for source in [*(c.source for c in chosen), *(f[0] for f in failed)] for name in _names(source)}
    known = {one.source.plugin for one in found} | {one.source.distribution for one in found}
    for name in (name for key, name in wanted.items() if key not in borne):
        source = Source(name, "(not installed)", "")
        error = f"no installed plugin or distribution is called {name!r}{did_you_mean(name, sorted(known))}"
        failure = source.failure("discover", error, f"install it, or take {name} out of MEDTRUST_PLUGINS")
        failed.append((source, BrokenPluginError(failure)))
    return chosen, [one for one in found if one not in chosen], failed


def _names(source: Source) -> set[str]:
    return {canonical(source.plugin), canonical(source.distribution)}


def import_plugin(found: Found, isolation: Isolation) -> Any:
    """Import one plugin; a class is instantiated.

    Raises:
        BrokenPluginError: The import raised, or the instantiation did.
    """
    with isolation.call(found.source, "import", found.entry_point.value):
        plugin = found.entry_point.load()
    with isolation.call(found.source, "register", found.entry_point.value):
        return plugin() if inspect.isclass(plugin) else plugin


def check_api(plugin: object, module: str, source: Source) -> None:
    """Refuse a plugin that states, in itself or in its module, a newer API than this medtrust has.

    Raises:
        BrokenPluginError: It does.
    """
    stated = getattr(plugin, "MEDTRUST_API", getattr(sys.modules.get(module), "MEDTRUST_API", API_VERSION))
    if not isinstance(stated, int) or stated > API_VERSION:
        error = f"it is written for plugin API {stated!r}, this medtrust has {API_VERSION}"
        remedy = f"update medtrust, or install an older {source.distribution}"
        raise BrokenPluginError(source.failure("register", error, remedy))
