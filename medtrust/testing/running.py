"""The checks of every kind in one place: as one call, and as pytest cases with readable ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from medtrust.config import did_you_mean
from medtrust.errors import ConfigError
from medtrust.host import KINDS, build_host
from medtrust.testing.explainers import EXPLAINER_CHECKS, explainer_subject
from medtrust.testing.features import FEATURES_CHECKS, features_subject
from medtrust.testing.formats import FORMAT_CHECKS, format_subject
from medtrust.testing.generators import GENERATOR_CHECKS, generator_subject
from medtrust.testing.kit import Bound, Check, Conformance, Outcome, Subject, bind, conform, require
from medtrust.testing.metric_runs import metric_subject
from medtrust.testing.metrics import METRIC_CHECKS
from medtrust.testing.report_formats import REPORT_FORMAT_CHECKS, report_format_subject
from medtrust.types import Spec

__all__ = ["CHECKS", "check", "kind_of", "parametrize_with_checks"]

CHECKS: Mapping[str, tuple[Sequence[Check], Callable[..., Subject]]] = MappingProxyType(
    {
        "metric": (METRIC_CHECKS, metric_subject),
        "generator": (GENERATOR_CHECKS, generator_subject),
        "features": (FEATURES_CHECKS, features_subject),
        "explainer": (EXPLAINER_CHECKS, explainer_subject),
        "format": (FORMAT_CHECKS, format_subject),
        "report_format": (REPORT_FORMAT_CHECKS, report_format_subject),
    }
)


def kind_of(what: str | Spec, kind: str = "") -> str:
    """Kind of a contribution.

    Raises:
        ConfigError: Nothing bears the name, or things of several kinds do.
        PluginError: What bears it is broken or ambiguous.
    """
    if kind:
        return kind
    if isinstance(what, Spec):
        return next(name for name, (_, wanted) in KINDS.items() if type(what) is wanted)
    host = build_host()
    found = [name for name in CHECKS if any(what in (c.spec.name, c.full_name) for c in host.contributions(name))]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{what} is the name of a {' and of a '.join(found)}; say which with --kind")
    known = sorted(c.full_name for name in CHECKS for c in host.contributions(name))
    close = did_you_mean(what, [*known, *(name.partition("/")[2] for name in known)])
    raise ConfigError(f"nothing that can be checked is called {what!r}{close}; see `medtrust plugins list`")


def check(what: str | Spec, *, kind: str = "", **options: Any) -> Conformance:
    """Run every check of one contribution and give the account, without raising for what failed.

    Args:
        what: Name of an installed contribution, or a spec that is not installed.
        kind: One of `CHECKS`; found by the name when not given.
        options: What the checks of this kind need, such as `examples` of a format.

    Raises:
        ConfigError: Nothing bears the name.
        PluginError: What bears it is broken or ambiguous.
    """
    checks, find = CHECKS[kind_of(what, kind)]
    return conform(checks, find(what, **options))


def parametrize_with_checks(what: str | Spec, *, kind: str = "", **options: Any) -> Any:
    """Make a test into one case per check, each with a readable id: `metric-brightness-input_untouched`.

    Checks that do not apply are skipped with their reason, expected failures are xfailed with theirs, and a last case
    holds the number of checks that ran against the floor.

    Args:
        what: Name of an installed contribution, or a spec that is not installed.
        kind: One of `CHECKS`; found by the name when not given.
        options: As for the `check_…` function of that kind.

    Returns:
        A decorator for a test with the argument `check`, which it calls: `def test_conforms(check): check()`.
    """
    import pytest

    found = kind_of(what, kind)
    checks, find = CHECKS[found]
    subject = find(what, **options)
    account: dict[str, Outcome] = {}
    cases = [
        pytest.param(_case(bound, account), id=f"{found}-{subject.spec.name}-{bound.check.name}")
        for bound in bind(checks, subject)
    ]

    def enough() -> None:
        if len(account) < len(cases):
            pytest.skip(f"only {len(account)} of the {len(cases)} checks were chosen")
        name = subject.contribution.full_name
        counted = Conformance(name, found, tuple(account.values()), subject.floor)
        require(counted.ran >= subject.floor, "\n".join(counted.complaints))

    last = pytest.param(enough, id=f"{found}-{subject.spec.name}-enough_checks_ran")
    return pytest.mark.parametrize("check", [*cases, last])


def _case(bound: Bound, account: dict[str, Outcome]) -> Callable[[], None]:
    def run() -> None:
        import pytest

        outcome = account[bound.check.name] = bound.outcome()
        if outcome.state == "not applicable":
            pytest.skip(outcome.detail)
        if outcome.state == "expected failure":
            pytest.xfail(outcome.detail)
        if outcome.state == "failed":
            pytest.fail(f"{bound.subject.contribution.full_name}, {bound.check.name}: {outcome.detail}", pytrace=False)

    return run
