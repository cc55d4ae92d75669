"""The host: registers plugins, collects what they contribute, loads it, and fires events."""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint
from operator import attrgetter
from types import ModuleType
from typing import Any

import pluggy

from medtrust.config import env_flag
from medtrust.hookspecs import EVENT_HOOKS, GROUP, REGISTRATION_HOOKS, MedtrustSpecs
from medtrust.host.catalogue import Catalogue
from medtrust.host.contributions import KINDS, Contribution
from medtrust.host.describing import Plugin, describe, overview
from medtrust.host.discovery import Found, by_hand, canonical, check_api, choose, discover, import_plugin
from medtrust.host.isolation import BrokenPluginError, Isolation, Source
from medtrust.types import PluginFailure

__all__ = ["Host", "build_host"]

_HOOKS = {hook.removeprefix("medtrust_"): hook for hook in (*REGISTRATION_HOOKS, *EVENT_HOOKS)}


class Host:
    """Plugins and what they contribute. Build one with `build_host`.

    Args:
        strict: Raise on the first failure of any plugin.
        isolation: Guards every call into a plugin.
    """

    def __init__(self, strict: bool, isolation: Isolation) -> None:
        self._strict = strict
        self._isolation = isolation
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(MedtrustSpecs)
        self._known: dict[Source, Plugin] = {}
        self._catalogue = Catalogue()
        self._history: dict[str, Mapping[str, Any]] = {}
        self._left_out: tuple[str, ...] = ()

    # -------------------------------------------------------------------------------------- registration

    def register(self, instance: object, name: str, *, distribution: str = "local", version: str = "0") -> None:
        """Add a plugin that no distribution installs, such as one defined in a notebook.

        Args:
            instance: Module or object with `@hookimpl` functions.
            name: What to call the plugin.
            distribution: First part of its contributions' full names.
            version: Version to show.

        Raises:
            BrokenPluginError: Something is wrong with it; what it offered before that is kept.
        """
        module = instance.__name__ if isinstance(instance, ModuleType) else type(instance).__module__
        plugin = self._plugin(Source(name, distribution, version), module)
        before = len(plugin.failures)
        self._add(plugin, instance)
        if len(plugin.failures) > before:
            raise BrokenPluginError(plugin.failures[before])

    def _admit(self, found: Found) -> None:
        plugin = self._plugin(found.source, found.entry_point.module)
        try:
            instance = import_plugin(found, self._isolation)
        except BrokenPluginError as failed:
            self._record(failed, plugin)
        else:
            self._add(plugin, instance)

    def _plugin(self, source: Source, module: str = "") -> Plugin:
        return self._known.setdefault(source, Plugin(source, module))

    def _record(self, failed: BrokenPluginError, plugin: Plugin) -> None:
        if self._strict:
            raise failed
        if failed.failure not in plugin.failures:  # a broken event hook fails once per metric; once is enough to know
            plugin.failures.append(failed.failure)

    def _add(self, plugin: Plugin, instance: object) -> None:
        try:
            with self._isolation.call(plugin.source, "register", plugin.module):
                check_api(instance, plugin.module, plugin.source)
                self._enlist(plugin, instance)
        except BrokenPluginError as failed:
            self._record(failed, plugin)
            return
        plugin.instance = instance
        plugin.complete = True
        for kind in KINDS:
            for implementation in self._implementations(plugin, KINDS[kind][0]):
                self._collect(plugin, kind, implementation)
        for hook, arguments in self._history.items():
            self._tell(plugin, hook, arguments)

    def _enlist(self, plugin: Plugin, instance: object) -> None:
        twins = [name for name, other in self._manager.list_name_plugin() if other is instance]
        if twins or self._manager.has_plugin(plugin.full_name):
            error = f"the same plugin is registered already, as {(twins or [plugin.full_name])[0]}"
            raise BrokenPluginError(plugin.source.failure("register", error, "remove one of the two entry points"))
        try:
            self._manager.register(instance, plugin.full_name)
            error = self._hook_error(instance)
            if error:
                raise BrokenPluginError(plugin.source.failure("register", error))
        except BaseException:
            if self._manager.has_plugin(plugin.full_name):  # pluggy may keep a plugin whose registration failed
                self._manager.unregister(name=plugin.full_name)
            raise

    def _hook_error(self, instance: object) -> str:
        """Find what pluggy lets pass in silence: unknown hooks, wrappers, forgotten decorators."""
        for name in _HOOKS.values():
            if callable(getattr(instance, name, None)) and self._manager.parse_hookimpl_opts(instance, name) is None:
                return f"{name} lacks the decorator @hookimpl"
        callers = self._manager.get_hookcallers(instance)
        if not callers:
            return "it has no function with the decorator @hookimpl"
        for caller in callers:
            for one in caller.get_hookimpls():
                if one.plugin is instance and not caller.has_spec() and not one.optionalhook:
                    close = difflib.get_close_matches(caller.name.removeprefix("medtrust_"), _HOOKS, n=1)
                    hint = f"; did you mean {_HOOKS[close[0]]}?" if close else "; a newer medtrust may have it"
                    return f"there is no hook {caller.name}{hint}"
                if one.plugin is instance and (one.wrapper or one.hookwrapper):
                    return f"{caller.name} is a hook wrapper; each plugin is called by itself, so none can wrap another"
        return ""

    def _implementations(self, plugin: Plugin, hook: str) -> list[pluggy.HookImpl]:
        return [one for one in getattr(self._manager.hook, hook).get_hookimpls() if one.plugin is plugin.instance]

    def _collect(self, plugin: Plugin, kind: str, implementation: pluggy.HookImpl) -> None:
        hook, wanted = KINDS[kind]
        specs: list[Any] = []
        try:
            with self._isolation.call(plugin.source, "hook", hook):
                offered: Any = implementation.function()
                if isinstance(offered, str | bytes | Mapping) or not hasattr(offered, "__iter__"):
                    error = f"{hook} returned {type(offered).__name__}, wanted an iterable of {wanted.__name__}"
                    remedy = "use `yield`, or return a list; an empty one offers nothing"
                    raise BrokenPluginError(plugin.source.failure("contract", error, remedy))
                for spec in offered:  # one by one: what came before an exception is kept
                    specs.append(spec)
        except BrokenPluginError as failed:
            plugin.complete = False
            self._record(failed, plugin)
        for spec in specs:
            try:
                plugin.contributions.append(self._catalogue.add(kind, spec, plugin.source))
            except BrokenPluginError as failed:
                self._record(failed, plugin)

    # ------------------------------------------------------------------------------------------- asking

    @property
    def failures(self) -> tuple[PluginFailure, ...]:
        """What went wrong in plugins so far and was not raised, sorted by plugin."""
        return tuple(failure for plugin in self._sorted() for failure in plugin.failures)

    def contributions(self, kind: str) -> tuple[Contribution, ...]:
        """Return the contributions of one kind, sorted by full name.

        Raises:
            ValueError: There is no such kind.
        """
        return self._catalogue.of(kind)

    def find(self, kind: str, name: str) -> Contribution:
        """Find a contribution by its full name, or by its short name while that is unique.

        Raises:
            ConfigError: Nothing bears this name.
            PluginError: Two distributions offer it, or the plugin that offers it is broken.
        """
        broken = [plugin.failures[0] for plugin in self._sorted() if plugin.failures and not plugin.complete]
        return self._catalogue.find(kind, name, broken, self._left_out)

    def load(self, contribution: Contribution) -> Any:
        """Import what a contribution's `factory` names.

        Raises:
            BrokenPluginError: What it requires is not installed, or the import failed.
        """
        if contribution.status != "ok":
            lack, _, remedy = contribution.status.rpartition("; ")
            raise BrokenPluginError(contribution.source.failure("import", f"{contribution.full_name}: {lack}", remedy))
        factory: str = contribution.spec.factory
        module, _, attribute = factory.partition(":")
        with self._isolation.call(contribution.source, "import", factory):
            return attrgetter(attribute)(importlib.import_module(module))

    def note(self, contribution: Contribution, what: str, seconds: float, outcome: str) -> None:
        """Trace a computation of a contribution, where calls are traced."""
        self._isolation.note(contribution.source, what, seconds, outcome)

    def plugins(self) -> list[dict[str, Any]]:
        """Describe every plugin, broken ones included, as JSON-ready data sorted by name.

        Returns:
            Per plugin: name, distribution, version, status ("ok", "partly broken", "broken"), failure (what went wrong
            first, or None), digest (SHA-256 of its sources) and contributions (kind, name, version, summary, status).
        """
        return [overview(plugin) for plugin in self._sorted()]

    def describe(self, name: str) -> dict[str, Any]:
        """Describe one plugin or contribution: everything that it declares, and every failure.

        Raises:
            ConfigError: Nothing bears this name.
            PluginError: More than one thing does.
        """
        return describe(name, self._sorted())

    def _sorted(self) -> list[Plugin]:
        return sorted(self._known.values(), key=lambda p: (p.source.plugin, canonical(p.source.distribution)))

    # ------------------------------------------------------------------------------------------- events

    def fire(self, hook: str, **arguments: Any) -> tuple[PluginFailure, ...]:
        """Tell every plugin of an event, in the order of their names; one that fails does not silence the next.

        Args:
            hook: Name of an event hook. A historic one is told again to plugins that are registered later.
            arguments: Exactly the arguments that the hook specifies.

        Returns:
            The failures of this call; `failures` has them as well.

        Raises:
            ValueError: There is no such event hook, or the arguments do not fit it.
            BrokenPluginError: A plugin failed and the host is strict.
        """
        if hook not in EVENT_HOOKS:
            raise ValueError(f"there is no event hook {hook!r}; event hooks: {', '.join(EVENT_HOOKS)}")
        specification = getattr(self._manager.hook, hook).spec
        if set(specification.argnames) != set(arguments):
            raise ValueError(
                f"{hook} takes {', '.join(specification.argnames)}, not {', '.join(arguments) or 'nothing'}"
            )
        if specification.opts["historic"]:
            self._history[hook] = dict(arguments)
        return tuple(failure for plugin in self._sorted() for failure in self._tell(plugin, hook, arguments))

    def _tell(self, plugin: Plugin, hook: str, arguments: Mapping[str, Any]) -> list[PluginFailure]:
        failures = []
        for implementation in self._implementations(plugin, hook) if plugin.instance is not None else ():
            try:
                with self._isolation.call(plugin.source, "hook", hook):
                    implementation.function(*(arguments[name] for name in implementation.argnames))
            except BrokenPluginError as failed:
                self._record(failed, plugin)
                failures.append(failed.failure)
        return failures


def build_host(
    *,
    allow: Iterable[str] | None = None,
    strict: bool | None = None,
    trace: bool | None = None,
    entry_points: Iterable[EntryPoint] | None = None,
) -> Host:
    """Discover, import and register the plugins that are installed.

    Args:
        allow: Entry points or distributions to import, by name; all others are not even imported. An empty list means
            no plugin at all, None what MEDTRUST_PLUGINS says, or all plugins where it is unset.
        strict: Raise on the first failure; None means what MEDTRUST_STRICT says.
        trace: Show each call into a plugin on standard error; None means what MEDTRUST_TRACE says.
        entry_points: Use these instead of what is installed.

    Raises:
        BrokenPluginError: A plugin failed and `strict` is true.
        ConfigError: MEDTRUST_STRICT or MEDTRUST_TRACE is neither on nor off.
    """
    if allow is None and "MEDTRUST_PLUGINS" in os.environ:
        allow = os.environ["MEDTRUST_PLUGINS"].split(",")
    if allow is not None:
        allow = [name.strip() for name in ([allow] if isinstance(allow, str) else allow) if name.strip()]
    isolation = Isolation(env_flag("MEDTRUST_TRACE") if trace is None else trace)
    host = Host(env_flag("MEDTRUST_STRICT") if strict is None else strict, isolation)
    found, unreadable = discover(isolation) if entry_points is None else (by_hand(entry_points), [])
    chosen, left_out, failed = choose(found, unreadable, allow)
    host._left_out = tuple(f.source.plugin for f in left_out)
    for source, failure in failed:
        host._record(failure, host._plugin(source))
    for one in chosen:
        host._admit(one)
    return host
