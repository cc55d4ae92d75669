"""Plugins and contributions as JSON-ready data, for `medtrust plugins` and the report."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from medtrust.config import did_you_mean
from medtrust.errors import ConfigError, PluginError
from medtrust.host.contributions import Contribution
from medtrust.host.discovery import canonical
from medtrust.host.isolation import Source
from medtrust.host.locate import source_digest
from medtrust.types import PluginFailure

__all__ = ["Plugin", "describe", "overview"]

_SHOWN = ("kind", "name", "version", "summary", "status")


@dataclass(slots=True)
class Plugin:
    """What the host knows of one plugin, broken ones included.

    Args:
        source: Who it is.
        module: Dotted name of the module that its entry point names.
        instance: The object that is registered; None while it is not.
        contributions: What it offers.
        failures: What went wrong.
        complete: Every registration hook ran to its end, so that nothing it offers is unknown.
    """

    source: Source
    module: str = ""
    instance: object | None = None
    contributions: list[Contribution] = field(default_factory=list)
    failures: list[PluginFailure] = field(default_factory=list)
    complete: bool = False

    @property
    def full_name(self) -> str:
        """Distribution and entry point."""
        return f"{self.source.distribution}/{self.source.plugin}"

    @property
    def status(self) -> str:
        """ok, partly broken (something it offers is usable), or broken."""
        if not self.failures:
            return "ok"
        return "broken" if self.instance is None else "partly broken"


def overview(plugin: Plugin) -> dict[str, Any]:
    """Return one row of `medtrust plugins list --json`."""
    return {
        "name": plugin.source.plugin,
        "distribution": plugin.source.distribution,
        "version": plugin.source.version,
        "status": plugin.status,
        "failure": f"{plugin.failures[0].stage}: {plugin.failures[0].error}" if plugin.failures else None,
        "digest": source_digest(plugin.module) if plugin.module else "",
        "contributions": [{key: c.as_dict()[key] for key in _SHOWN} for c in plugin.contributions],
    }


def describe(name: str, plugins: Sequence[Plugin]) -> dict[str, Any]:
    """Describe one plugin, or else one contribution, completely.

    Args:
        name: Plugin, contribution, full name of either, or a distribution with one plugin; tried in this order.
        plugins: All plugins.

    Raises:
        ConfigError: Nothing bears this name.
        PluginError: More than one thing does.
    """
    everything = [c for plugin in plugins for c in plugin.contributions]
    bearers: list[Plugin] | list[Contribution] = [p for p in plugins if name in (p.source.plugin, p.full_name)]
    bearers = bearers or [c for c in everything if name in (c.spec.name, c.full_name)]
    bearers = bearers or [p for p in plugins if canonical(p.source.distribution) == canonical(name)]
    if not bearers:
        known = [p.source.plugin for p in plugins] + [c.spec.name for c in everything]
        close = did_you_mean(name, known)
        raise ConfigError(f"no plugin or contribution is called {name!r}{close}; see `medtrust plugins list`")
    if len(bearers) > 1:
        choices = [b.full_name if isinstance(b, Plugin) else f"the {b.kind} {b.full_name}" for b in bearers]
        raise PluginError(f"{name} is more than one thing: {', '.join(choices)}; ask for one by its full name")
    bearer = bearers[0]
    if isinstance(bearer, Contribution):
        return {**bearer.as_dict(), "plugin": bearer.plugin, "distribution": bearer.source.label}
    return {
        **overview(bearer),
        "module": bearer.module,
        "contributions": [c.as_dict() for c in bearer.contributions],
        "failures": [dataclasses.asdict(failure) for failure in bearer.failures],
    }
