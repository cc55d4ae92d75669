"""What every check is made of: a name, a sentence, a function; and the account of those that ran."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from medtrust.guarding import put_back, shared_functions
from medtrust.hookspecs import hookimpl
from medtrust.host import KINDS, Contribution, Host, build_host
from medtrust.host.isolation import one_line
from medtrust.types import Spec

__all__ = [
    "Bound",
    "Check",
    "Conformance",
    "NotApplicable",
    "Outcome",
    "Subject",
    "bind",
    "conform",
    "offer",
    "resolve",
]

State = Literal["passed", "failed", "expected failure", "not applicable"]


def require(condition: object, sentence: str) -> None:
    """Raise AssertionError with the sentence unless the condition holds: `assert` would vanish under `python -O`."""
    if not condition:
        raise AssertionError(sentence)


class NotApplicable(Exception):  # noqa: N818 - it is an answer, not a fault
    """Raised by a check that says nothing of this contribution, with the reason."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Args:
        name: Readable id, such as "input_untouched".
        says: What holds where it passes, one sentence.
        run: Raises AssertionError with a sentence where it does not hold.
    """

    name: str
    says: str
    run: Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one check; `detail` is the failure, the reason, or empty."""

    check: str
    state: State
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Conformance:
    """What came of all checks of one contribution.

    Args:
        subject: Full name of the contribution.
        kind: One of `medtrust.host.KINDS`.
        outcomes: One per check, in order.
        floor: How many checks must have run for the whole to mean anything.
    """

    subject: str
    kind: str
    outcomes: tuple[Outcome, ...]
    floor: int

    def count(self, *states: State) -> int:
        """How many checks ended in one of these states."""
        return sum(outcome.state in states for outcome in self.outcomes)

    @property
    def ran(self) -> int:
        """How many checks said something."""
        return self.count("passed", "failed", "expected failure")

    @property
    def complaints(self) -> tuple[str, ...]:
        """One line per failure; empty where the contribution conforms."""
        lines = [f"{o.check}: {o.detail}" for o in self.outcomes if o.state == "failed"]
        if self.ran < self.floor:
            lines.append(
                f"enough_checks_ran: {self.ran} checks ran, {self.floor} are needed; the reasons why others do not "
                "apply say what the plugin, or the call of the kit, lacks"
            )
        return tuple(lines)

    @property
    def summary(self) -> str:
        """One sentence with the counts."""
        others: tuple[State, ...] = ("failed", "expected failure", "not applicable")
        counts = [f"{self.count('passed')} passed", *(f"{n} {what}" for what in others if (n := self.count(what)))]
        return f"{self.kind} {self.subject}: {self.ran} checks ran, {', '.join(counts)}"

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "subject": self.subject,
            "kind": self.kind,
            "conforms": not self.complaints,
            "ran": self.ran,
            "floor": self.floor,
            "checks": [{"check": o.check, "state": o.state, "detail": o.detail} for o in self.outcomes],
            "complaints": list(self.complaints),
        }


@dataclass(slots=True)
class Subject:
    """What is checked: a contribution in a host, and what the author said of it.

    Args:
        host: Loads it, and whatever it needs of others.
        contribution: It.
        expected: Checks that are known to fail, each with the reason.
        floor: How many checks must run.
        given: What else the checks of this kind need.
        kept: What a check computed and the next may use.
        loaded: What the factory would name, where there is no factory.
    """

    host: Host
    contribution: Contribution
    expected: Mapping[str, str] = field(default_factory=dict)
    floor: int = 1
    given: Any = None
    kept: dict[Any, Any] = field(default_factory=dict)
    loaded: Any = None

    @property
    def spec(self) -> Any:
        """What the plugin declares."""
        return self.contribution.spec

    def load(self) -> Any:
        """What the factory names."""
        return self.host.load(self.contribution) if self.loaded is None else self.loaded


@dataclass(frozen=True, slots=True)
class Bound:
    """A check of one contribution, ready to be called."""

    check: Check
    subject: Subject

    def __call__(self) -> None:
        """Run it.

        Raises:
            AssertionError: It failed, or was expected to fail and did not.
            NotApplicable: It says nothing here.
        """
        reason = self.subject.expected.get(self.check.name)
        shared = shared_functions()
        try:
            self.check.run(self.subject)
        except NotApplicable:
            if reason:
                raise AssertionError(
                    "it was expected to fail, but it does not apply; take it out of expected_failures"
                ) from None
            raise
        except AssertionError as error:
            if not reason:
                raise AssertionError(f"{self.subject.contribution.full_name}, {self.check.name}: {error}") from error
            raise _Expected(f"{reason} ({' '.join(str(error).split())})") from error
        except Exception as error:  # whatever a plugin raises is a finding of the check
            if not reason:
                who = f"{self.subject.contribution.full_name}, {self.check.name}"
                raise AssertionError(f"{who}: it raised {one_line(error)}") from error
            raise _Expected(f"{reason} ({one_line(error)})") from error
        finally:  # what a plugin replaced must not fail the next check as well
            put_back(shared)
        if reason:
            raise AssertionError(
                f"{self.subject.contribution.full_name}, {self.check.name}: it was expected to fail ({reason}), but it "
                "passed; take it out of expected_failures"
            )

    def outcome(self) -> Outcome:
        """Run it and tell what came of it."""
        try:
            self()
        except NotApplicable as reason:
            return Outcome(self.check.name, "not applicable", str(reason))
        except _Expected as failure:
            return Outcome(self.check.name, "expected failure", str(failure))
        except AssertionError as failure:
            prefix = f"{self.subject.contribution.full_name}, {self.check.name}: "
            return Outcome(self.check.name, "failed", str(failure).removeprefix(prefix))
        return Outcome(self.check.name, "passed")


class _Expected(Exception):  # noqa: N818 - it is an answer, not a fault
    pass


def offer(host: Host, kind: str, spec: Spec, name: str = "offered", distribution: str = "local") -> Contribution:
    """Register a spec that no installed plugin offers, and return its contribution."""
    hook, _ = KINDS[kind]
    plugin = type("Offer", (), {hook: hookimpl(lambda self: [spec])})
    host.register(plugin(), f"{name}-{spec.name}", distribution=distribution)
    return host.find(kind, f"{distribution}/{spec.name}")


def resolve(kind: str, what: str | Spec, *, expected: Mapping[str, str], floor: int, given: Any = None) -> Subject:
    """Find what is to be checked.

    Args:
        kind: One of `medtrust.host.KINDS`.
        what: Name of an installed contribution, or a spec that is not installed.
        expected: Checks that are known to fail, each with the reason.
        floor: How many checks must run.
        given: What else the checks need.

    Raises:
        ConfigError: Nothing bears this name.
        PluginError: What bears it is broken or ambiguous.
    """
    host = build_host()
    contribution = host.find(kind, what) if isinstance(what, str) else offer(host, kind, what)
    return Subject(host, contribution, dict(expected), floor, given)


def bind(checks: Sequence[Check], subject: Subject) -> tuple[Bound, ...]:
    """Make the checks of one contribution callable.

    Raises:
        ValueError: An expected failure names no check, or gives no reason.
    """
    known = [check.name for check in checks]
    for name, reason in subject.expected.items():
        if name not in known:
            raise ValueError(f"expected_failures names {name!r}; the checks are {', '.join(known)}")
        if not isinstance(reason, str) or not reason.strip():
            raise ValueError(f"expected_failures gives no reason for {name}; say in a sentence why it may fail")
    return tuple(Bound(check, subject) for check in checks)


def conform(checks: Sequence[Check], subject: Subject) -> Conformance:
    """Run all checks and give the account; it is for the caller to raise."""
    outcomes = tuple(bound.outcome() for bound in bind(checks, subject))
    contribution = subject.contribution
    return Conformance(contribution.full_name, contribution.kind, outcomes, subject.floor)


def hold(checks: Sequence[Check], subject: Subject) -> Conformance:
    """Run all checks.

    Raises:
        AssertionError: A check failed, one that was expected to fail passed, or too few ran.
    """
    account = conform(checks, subject)
    require(not account.complaints, "\n".join([account.summary, *account.complaints]))
    return account
