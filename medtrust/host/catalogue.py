"""What plugins contribute, by kind and name."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

from medtrust.config import did_you_mean
from medtrust.errors import ConfigError, MedtrustError, PluginError
from medtrust.host.contributions import KINDS, Contribution, contribute, flaw
from medtrust.host.discovery import canonical
from medtrust.host.isolation import BrokenPluginError, Source
from medtrust.types import PluginFailure

__all__ = ["Catalogue"]


class Catalogue:
    """Contributions by kind and full name, and the offers that were refused."""

    def __init__(self) -> None:
        self._accepted: dict[str, dict[str, Contribution]] = {kind: {} for kind in KINDS}
        self._refused: dict[tuple[str, str], PluginFailure] = {}

    def add(self, kind: str, spec: Any, source: Source) -> Contribution:
        """Take in what a plugin offers.

        Raises:
            BrokenPluginError: The offer is not a sound spec of its kind, or its distribution offered the name before.
        """
        error = flaw(kind, spec)
        key = _key(source.distribution, str(getattr(spec, "name", "")))
        accepted = self._accepted[kind]
        if not error and key in accepted:
            error = f"{kind} {spec.name} is offered twice by this distribution; plugin {accepted[key].plugin} keeps it"
        if error:
            failure = source.failure("contract", f"{KINDS[kind][0]}: {error}")
            self._refused.setdefault((kind, key), failure)
            raise BrokenPluginError(failure)
        accepted[key] = contribute(kind, spec, source)
        return accepted[key]

    def of(self, kind: str) -> tuple[Contribution, ...]:
        """Return the contributions of one kind, sorted by full name.

        Raises:
            ValueError: There is no such kind.
        """
        if kind not in KINDS:
            raise ValueError(f"there is no kind {kind!r}; kinds: {', '.join(KINDS)}")
        return tuple(sorted(self._accepted[kind].values(), key=attrgetter("full_name")))

    def find(self, kind: str, name: str, broken: Iterable[PluginFailure], left_out: Iterable[str]) -> Contribution:
        """Find a contribution by full name, or by short name while that is unique.

        Args:
            kind: One of `KINDS`.
            name: Full or short name.
            broken: Failures of plugins whose contributions are not all known.
            left_out: Plugins that the allow-list keeps out, for the error message.

        Raises:
            ConfigError: Nothing bears this name.
            PluginError: Two distributions offer it, or the plugin that offers it is broken.
        """
        everything = self.of(kind)
        distribution, _, short = name.rpartition("/")
        found = [
            c
            for c in everything
            if c.spec.name == short and (not distribution or canonical(c.distribution) == canonical(distribution))
        ]
        if len(found) > 1:
            who = " and ".join(c.source.label for c in found)
            raise PluginError(f"{kind} {name} is offered by {who}; write {' or '.join(c.full_name for c in found)}")
        if not found:
            raise self._not_found(kind, distribution, short, tuple(broken), tuple(left_out))
        return found[0]

    def _not_found(
        self, kind: str, distribution: str, short: str, broken: tuple[PluginFailure, ...], left_out: tuple[str, ...]
    ) -> MedtrustError:
        for (refused_kind, key), failure in self._refused.items():
            owner, _, refused = key.rpartition("/")
            if refused_kind == kind and refused == short and canonical(distribution or owner) == owner:
                return BrokenPluginError(failure)
        if distribution:
            for failure in broken:
                if canonical(failure.distribution.rpartition(" ")[0]) == canonical(distribution):
                    return BrokenPluginError(failure)
        everything = self.of(kind)
        names = [c.full_name if distribution else c.spec.name for c in everything]
        asked = f"{distribution}/{short}" if distribution else short
        text = f"no {kind.replace('_', ' ')} is called {asked!r}{did_you_mean(asked, names)}"
        text += f"; there are: {', '.join(c.full_name for c in everything) or 'none'}"
        for failure in broken:
            text += f"; plugin {failure.plugin} of {failure.distribution} may offer it, but is broken: {failure.error}"
        if left_out:
            text += f"; MEDTRUST_PLUGINS leaves out {', '.join(left_out)}"
        return ConfigError(text)


def _key(distribution: str, name: str) -> str:
    return f"{canonical(distribution)}/{name}"
