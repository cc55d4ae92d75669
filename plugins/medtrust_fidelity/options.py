"""Options of the fidelity metrics: of all of them, or in a table of one, `[plugins.fidelity.paired]`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from medtrust import MetricInput
from medtrust.errors import ConfigError

__all__ = ["CONVENTIONS", "chosen_convention", "number", "option", "whole"]

# Presets by metric: whose number a metric adds to its facts.
CONVENTIONS = {
    "fd": ("stylegan",),
    "kid": ("u-statistic", "torch-fidelity"),
    "prdc": ("prdc", "kynkaanniemi"),
    "mmd": ("cmmd",),
    "inception_score": ("torch-fidelity",),
    "frd": ("frd-v1",),
}


def option(data: MetricInput, metric: str, name: str, default: Any) -> Any:
    """Look an option up: in the metric's own table first, then among those of all fidelity metrics.

    Args:
        data: The metric's input.
        metric: Name of the metric.
        name: Name of the option.
        default: What it is where nobody gives it.

    Raises:
        ConfigError: What bears the metric's name is no table.
    """
    own = data.options.get(metric, {})
    if not isinstance(own, Mapping):
        raise ConfigError(f"plugins.fidelity.{metric} is {own!r}: write a table [plugins.fidelity.{metric}]")
    return own.get(name, data.options.get(name, default))


def chosen_convention(data: MetricInput, metric: str) -> str | None:
    """The preset that is asked for, where this metric has it; a preset of another metric alone asks nothing of it.

    Raises:
        ConfigError: No metric has such a preset.
    """
    value = option(data, metric, "convention", None)
    if value is None or value in CONVENTIONS[metric]:
        return None if value is None else str(value)
    known = sorted({name for names in CONVENTIONS.values() for name in names})
    if value not in known:
        raise ConfigError(f"the option convention is {value!r}: give one of {', '.join(known)}")
    return None


def whole(data: MetricInput, metric: str, name: str, default: int) -> int:
    """An option that is a whole number of at least 1.

    Raises:
        ConfigError: It is none.
    """
    value = option(data, metric, name, default)
    try:
        found = int(str(value))
    except ValueError:
        found = 0
    if found < 1:
        raise ConfigError(f"the option {name} is {value!r}: give a whole number, such as {default}")
    return found


def number(data: MetricInput, metric: str, name: str) -> float | None:
    """An option that is a finite number, None where nobody gives it.

    Raises:
        ConfigError: It is none.
    """
    value = option(data, metric, name, None)
    if value is None:
        return None
    try:
        found = float(str(value))
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise ConfigError(f"the option {name} is {value!r}: give a number")
    return found
