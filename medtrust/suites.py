"""Self-test suites: does a part of medtrust work on this user's own data? Found through the plugins that offer them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from medtrust.errors import ConfigError, Insufficient, SelectionError
from medtrust.types import SuiteInput, SuiteRow

if TYPE_CHECKING:
    from medtrust.host import Host

__all__ = ["as_plain", "exit_code_of", "run_suites"]

FAILED, INCONCLUSIVE = 1, 3


def run_suites(host: Host, names: Sequence[str], data: SuiteInput) -> dict[str, tuple[SuiteRow, ...]]:
    """Run suites one after the other; one that cannot answer is a row that says why.

    Args:
        host: Finds the suites.
        names: Names of suites; empty means every one that is installed.
        data: What they may look at.

    Returns:
        Rows by suite.

    Raises:
        ConfigError: There is no such suite, or what it requires is missing.
        SelectionError: No suite is installed.
    """
    chosen = [host.find("suite", name) for name in dict.fromkeys(names)] or host.contributions("suite")
    if not chosen:
        raise SelectionError("no self-test suite is installed; see `medtrust plugins list`")
    out: dict[str, tuple[SuiteRow, ...]] = {}
    for contribution in chosen:
        name = contribution.spec.name
        if contribution.status != "ok":
            raise ConfigError(f"the suite {name} cannot be used: {contribution.status}")
        try:
            rows = tuple(host.load(contribution)().run(data))
        except Insufficient as shortage:
            rows = (SuiteRow(name, "not_run", str(shortage)),)
        out[name] = rows or (SuiteRow(name, "not_run", "the suite tested nothing"),)
    return out


def exit_code_of(outcome: dict[str, tuple[SuiteRow, ...]]) -> int:
    """0 if everything was tested and held, 1 if something failed, 3 if something could not be tested."""
    states = {row.status for rows in outcome.values() for row in rows}
    return FAILED if "failed" in states else INCONCLUSIVE if "not_run" in states else 0


def as_plain(outcome: dict[str, tuple[SuiteRow, ...]]) -> dict[str, Any]:
    """JSON-ready outcome."""
    return {
        suite: [
            {"name": row.name, "status": row.status, "detail": row.detail, "facts": dict(row.facts)} for row in rows
        ]
        for suite, rows in outcome.items()
    }
