"""Run a plugin's code so that whatever it does wrong becomes one `PluginFailure`."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TextIO

import pluggy

from medtrust.errors import PluginError
from medtrust.types import PluginFailure

__all__ = ["Isolation", "BrokenPluginError", "Source", "naming_exits", "one_line"]

_LONGEST = 400
_NOT_PLUGINS = {os.path.dirname(__file__), os.path.dirname(pluggy.__file__), os.path.dirname(importlib.__file__)}


@dataclass(frozen=True, slots=True)
class Source:
    """Who a piece of plugin code belongs to.

    Args:
        plugin: Entry-point name.
        distribution: Distribution that installed it.
        version: Version of the distribution.
    """

    plugin: str
    distribution: str
    version: str

    @property
    def label(self) -> str:
        """Distribution with version."""
        return f"{self.distribution} {self.version}".rstrip()

    def failure(self, stage: str, error: str, remedy: str = "") -> PluginFailure:
        """Describe a failure of this plugin."""
        usual = f"update or reinstall {self.distribution}, or leave the plugin out with MEDTRUST_PLUGINS"
        return PluginFailure(self.plugin, self.label, stage, error, remedy or usual)


class BrokenPluginError(PluginError):
    """A plugin's code failed; `failure` says whose, where and why."""

    def __init__(self, failure: PluginFailure) -> None:
        self.failure = failure
        super().__init__(
            f"plugin {failure.plugin} of {failure.distribution} failed at {failure.stage}: {failure.error}; "
            f"{failure.remedy}"
        )

    def __reduce__(self) -> tuple[type[BrokenPluginError], tuple[PluginFailure]]:
        # the default would rebuild the exception from its text, in a parent process for instance
        return type(self), (self.failure,)


def one_line(error: BaseException) -> str:
    """Put an exception on one printable line: type, message, and the plugin's file and line where it was raised."""
    try:
        message = str(error)
    except Exception as unprintable:
        message = f"its message cannot be printed ({type(unprintable).__name__})"
    # a plugin's text reaches terminals and reports: no line breaks, no escape sequences
    message = " ".join("".join(c if c.isprintable() else " " for c in message[: 4 * _LONGEST]).split())
    if len(message) > _LONGEST:
        message = message[: _LONGEST - 1] + "…"
    where = _raised_at(error.__traceback__)
    return f"{type(error).__name__}{': ' if message else ''}{message}{where}"


def _raised_at(trace: TracebackType | None) -> str:
    where = ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if os.path.dirname(file) not in _NOT_PLUGINS and not file.startswith("<"):
            where = f" ({os.path.basename(file)}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return where


class _AtExit:
    """A function that a plugin registered to be called at exit, with whose it is."""

    def __init__(self, function: Callable[..., Any], source: Source) -> None:
        self._function, self._source = function, source

    def __call__(self, *args: Any, **options: Any) -> None:
        try:
            self._function(*args, **options)
        except BaseException as error:  # SystemExit here would change the exit code, which is the verdict
            print(
                f"medtrust: plugin {self._source.plugin} of {self._source.label} failed at exit: {one_line(error)}",
                file=sys.stderr,
            )

    def __eq__(self, other: object) -> bool:
        return self is other or self._function == other  # for atexit.unregister

    def __hash__(self) -> int:
        return hash(self._function)


@contextlib.contextmanager
def naming_exits(source: Source) -> Iterator[None]:
    """While the body runs, functions that are registered with `atexit` are noted as those of `source`."""
    register = atexit.register

    def noted(function: Callable[..., Any], /, *args: Any, **options: Any) -> Callable[..., Any]:
        register(_AtExit(function, source), *args, **options)
        return function

    atexit.register = noted
    try:
        yield
    finally:
        atexit.register = register


class Isolation:
    """Guards calls into plugins, keeps what they print off standard output, and traces the calls.

    Args:
        trace: Print one line per call on standard error.
    """

    def __init__(self, trace: bool) -> None:
        self.trace = trace
        self._lock = threading.Lock()
        self._depth = 0
        self._stdout: TextIO = sys.stdout

    @contextlib.contextmanager
    def call(self, source: Source, stage: str, what: str) -> Iterator[None]:
        """Run the body as code of `source`.

        Args:
            source: Whose code it is.
            stage: Stage to name in a failure.
            what: What is called: a hook, a module, a factory.

        Raises:
            BrokenPluginError: The body raised anything, SystemExit included. KeyboardInterrupt passes through.
        """
        began, outcome = time.perf_counter(), "ok"
        try:
            with self._stdout_to_stderr(), naming_exits(source):
                yield
        except (KeyboardInterrupt, GeneratorExit):
            outcome = "interrupted"
            raise
        except BrokenPluginError as failed:
            outcome = failed.failure.error
            raise
        except BaseException as error:
            outcome = one_line(error)
            raise BrokenPluginError(source.failure(stage, f"{what}: {outcome}", _remedy(error, source))) from error
        finally:
            if stage != "discover":  # that one is asked of every distribution there is
                self.note(source, what, time.perf_counter() - began, outcome)

    def note(self, source: Source, what: str, seconds: float, outcome: str) -> None:
        """Print the line of one call, where calls are traced."""
        if self.trace:
            line = f"medtrust: {seconds * 1000:8.2f} ms  {source.plugin} ({source.label})  {what}  {outcome}"
            print(line, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def _stdout_to_stderr(self) -> Iterator[None]:
        # contextlib.redirect_stdout restores in the wrong order when calls of two threads overlap; counting does not
        with self._lock:
            if self._depth == 0:
                self._stdout, sys.stdout = sys.stdout, sys.stderr
            self._depth += 1
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                if self._depth == 0:
                    sys.stdout = self._stdout


def _remedy(error: BaseException, source: Source) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"install the package that provides {error.name}, or reinstall {source.distribution}"
    return ""
