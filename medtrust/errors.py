"""Every error that medtrust raises on purpose.

Each message says what happened, to which file or plugin, and what to do next; the command line prints it as
one line and exits with the class's `exit_code`.
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "DataError",
    "EngineError",
    "Insufficient",
    "MedtrustError",
    "NativeError",
    "PluginError",
    "SafetyError",
    "SelectionError",
]


class MedtrustError(Exception):
    """An error whose message is meant for the person at the keyboard."""

    exit_code = 70


class ConfigError(MedtrustError):
    """A wrong option, policy, configuration file or metric name."""

    exit_code = 2


class DataError(MedtrustError):
    """Input that cannot be read or understood: an empty folder, a truncated file, an ambiguous range."""

    exit_code = 2


class SafetyError(MedtrustError):
    """Input refused because reading it could do harm: a bomb, a pickle, a path that leaves its root."""

    exit_code = 4


class SelectionError(MedtrustError):
    """The selection is valid but empty: nothing was left to evaluate."""

    exit_code = 5


class PluginError(MedtrustError):
    """A plugin that was asked for is broken, missing or ambiguous."""

    exit_code = 70


class EngineError(MedtrustError):
    """An engine lost work, doubled it, or computes other bits than this process; nothing of it is reported."""

    exit_code = 70


class NativeError(MedtrustError):
    """The compiled extension refused its input or does not fit this Python package."""

    exit_code = 70


class Insufficient(MedtrustError):  # noqa: N818 - it is an answer, not a fault
    """A metric needs more images or patients than it was given; it becomes a result row, not a crash.

    Metrics raise it with a sentence such as "needs 50 patients, train has 12".
    """

    exit_code = 3
