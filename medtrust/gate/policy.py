"""Policies: strict TOML. Whatever is not understood is an error, because a gate that is ignored protects nobody."""

from __future__ import annotations

import datetime
import difflib
import hashlib
import math
import re
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from medtrust.errors import ConfigError
from medtrust.gate.table import Table, near_miss
from medtrust.types import Demand

__all__ = ["READY_POLICIES", "Gate", "Policy", "Requirement", "Waiver", "demands", "load_policy"]

SCHEMA = "medtrust.policy/1"
READY_POLICIES = ("research", "clinical-strict", "ci-smoke", "demo", "federated")
OPS = ("<=", ">=", "<", ">", "==")
FIELDS = {"estimate": "estimate.value", "p": "test.p", "p_adj": "test.p_adj"}
_PARTS = {
    "estimate": ("value",),
    "interval": ("lo", "hi", "level", "n_units"),
    "test": ("statistic", "p", "p_adj"),
    "null": ("value",),
    "resolution": ("min_detectable", "power"),
    "selftest": ("status", "auc", "size", "power"),
}
_COMPARISON = re.compile(r"\s*(<=|>=|<|>|==)\s*(\S+)\s*")


@dataclass(frozen=True, slots=True)
class Requirement:
    """What must hold of a result before its gate can PASS: a dotted path, an operator and a value."""

    path: str
    op: str
    value: float | str

    def __str__(self) -> str:
        return f"{self.path} {self.op} {self.value}"


@dataclass(frozen=True, slots=True)
class Gate:
    """One question that a policy asks of a report.

    Args:
        id: Name in the report, unique in the policy.
        result: Result id; `fidelity.fd[*]` asks every feature space.
        field: "estimate", "p", "p_adj", or a dotted path such as "facts.pairs".
        op: How the number shall stand to the threshold.
        threshold: The bound; None for a non-regression gate.
        mode: ci, point, test or nonregression.
        severity: fail or warn.
        level: Confidence level that an interval must have at least.
        require: What must hold before the gate can PASS.
        tolerance: Allowed worsening against the baseline: (amount, whether it is a share of the baseline's value).
    """

    id: str
    result: str
    field: str
    op: str
    threshold: float | None
    mode: str
    severity: str
    level: float
    require: tuple[Requirement, ...] = ()
    tolerance: tuple[float, bool] = (0.0, False)


@dataclass(frozen=True, slots=True)
class Waiver:
    """A gate that shall not decide until a date, and why."""

    gate: str
    until: datetime.date
    reason: str


@dataclass(frozen=True, slots=True)
class Policy:
    """A checked policy.

    Args:
        name: Name of a ready policy, or the file's name.
        sha256: Digest of the file.
        level: Default confidence level.
        mode: Default mode.
        on_inconclusive: "fail": what cannot be decided blocks. "warn": it is reported and lets through.
        gates: In the file's order.
        waivers: In the file's order.
        baseline: report.json that non-regression gates compare with.
    """

    name: str
    sha256: str
    level: float
    mode: str
    on_inconclusive: str
    gates: tuple[Gate, ...]
    waivers: tuple[Waiver, ...] = ()
    baseline: Path | None = None


def demands(policy: Policy) -> dict[str, Demand]:
    """Say what the gates on p-values ask of each result, the strictest where there are several.

    Args:
        policy: A checked policy.

    Returns:
        Level and smallest effect by result id, without the feature space.
    """
    asked: dict[str, Demand] = {}
    for gate in policy.gates:
        if gate.mode != "test" or gate.threshold is None:
            continue
        name = gate.result.split("[", 1)[0]
        before = asked.get(name, Demand())
        effects = [float(r.value) for r in gate.require if r.path == "resolution.min_detectable"]
        alphas = [each for each in (before.alpha, gate.threshold) if each is not None]
        effects += [] if before.effect is None else [before.effect]
        asked[name] = Demand(min(alphas), min(effects) if effects else None)
    return asked


def load_policy(source: str | Path) -> Policy:
    """Read a policy.

    Args:
        source: Name of a ready policy, any of `READY_POLICIES`, or the path of a .toml file.

    Raises:
        ConfigError: It does not exist, is not TOML, or holds a key or value that is not understood.
    """
    if str(source) in READY_POLICIES:
        content = files("medtrust").joinpath("policies", f"{source}.toml").read_bytes()
        return _parse(content, f"policy {source}", str(source), Path())
    path = Path(source)
    try:
        content = path.read_bytes()
    except OSError as error:
        near = difflib.get_close_matches(str(source), READY_POLICIES, 1)
        hint = f"did you mean {near[0]}?" if near else f"give a .toml file or one of {', '.join(READY_POLICIES)}"
        raise ConfigError(f"policy {source} cannot be read ({error.strerror}); {hint}") from error
    return _parse(content, str(path), path.name, path.parent)


def _parse(content: bytes, where: str, name: str, folder: Path) -> Policy:
    try:
        table = tomllib.loads(content.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{where} is not TOML: {error}") from error
    top = Table(table, where)
    if top.text("schema") != SCHEMA:
        raise ConfigError(f'{where}: schema is {table["schema"]!r}; this version reads schema = "{SCHEMA}"')
    defaults = top.table("defaults")
    level = defaults.level("level", 0.95)
    mode = defaults.choice("mode", ("ci", "point"), "ci")
    on_inconclusive = defaults.choice("on_inconclusive", ("fail", "warn"), "fail")
    defaults.done()
    gates = tuple(_gate(each, level, mode) for each in top.tables("gate"))
    waivers = tuple(_waiver(each) for each in top.tables("waiver"))
    baseline = top.table("baseline")
    reference = baseline.text("report", "")
    baseline.done()
    top.done()
    _check_names(gates, waivers, where)
    return Policy(
        name=name,
        sha256=hashlib.sha256(content).hexdigest(),
        level=level,
        mode=mode,
        on_inconclusive=on_inconclusive,
        gates=gates,
        waivers=waivers,
        baseline=folder / reference if reference else None,
    )


def _check_names(gates: tuple[Gate, ...], waivers: tuple[Waiver, ...], where: str) -> None:
    if not gates:
        raise ConfigError(f"{where} has no [[gate]]; a policy without gates would pass everything")
    names = [gate.id for gate in gates]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{where}: two gates are called {name!r}; give each its own id")
    waived = [waiver.gate for waiver in waivers]
    for name in waived:
        if name not in names:
            raise ConfigError(f"{where}: a waiver names a gate {name!r} that does not exist{near_miss(name, names)}")
        if waived.count(name) > 1:
            raise ConfigError(f"{where}: gate {name!r} is waived twice; keep one waiver")


def _gate(table: Table, level: float, default_mode: str) -> Gate:
    name = table.text("id")
    table.where = f"{table.where} {name!r}"
    result, field = table.text("result"), _field(table, table.text("field", "estimate"))
    tests = FIELDS.get(field, field) in ("test.p", "test.p_adj")
    modes = ("test",) if tests else ("ci", "point", "nonregression")
    mode = table.choice("mode", modes, "test" if tests else default_mode)
    if field != "estimate" and mode in ("ci", "nonregression"):
        table.fail(f'{field} has no interval to judge by; write mode = "point"')
    if mode == "nonregression":
        op, threshold, tolerance = "<=", None, _tolerance(table)
    else:
        op, threshold, tolerance = table.choice("op", OPS), table.number("threshold"), (0.0, False)
    gate = Gate(
        id=name,
        result=result,
        field=field,
        op=op,
        threshold=threshold,
        mode=mode,
        severity=table.choice("severity", ("fail", "warn"), "fail"),
        level=table.level("level", level),
        require=tuple(_requirement(table, *each) for each in table.take("require", {}, dict, "a table").items()),
        tolerance=tolerance,
    )
    if mode == "ci" and op == "==":
        table.fail('an interval cannot prove equality; use "<=" or ">=", or mode = "point"')
    if tests and op not in (">=", ">"):
        table.fail(f'a gate on {field} asks that no alarm was raised: use op = ">="')
    if tests and not any(r.path == "resolution.min_detectable" for r in gate.require):
        table.fail(
            f"a high {field} alone proves nothing, a blind test has one too; add "
            'require = { "resolution.min_detectable" = "<=0.02" } with the effect that must have been visible'
        )
    table.done()
    return gate


def _waiver(table: Table) -> Waiver:
    waiver = Waiver(table.text("gate"), table.date("until"), table.text("reason"))
    table.done()
    return waiver


def _field(table: Table, value: str) -> str:
    """Check that a path leads to something a result can hold."""
    head, _, rest = value.partition(".")
    known = [*FIELDS, *(f"{part}.{name}" for part, names in _PARTS.items() for name in names)]
    if value not in known and not (head == "facts" and rest):
        table.fail(f"{value!r} is not a field of a result{near_miss(value, [*known, 'facts.<name>'])}")
    return value


def _tolerance(table: Table) -> tuple[float, bool]:
    value = table.take("tolerance", 0, (int, float, str), 'a number, or a share such as "5%"')
    relative = isinstance(value, str) and value.strip().endswith("%")
    try:
        amount = float(value.strip()[:-1]) / 100 if relative else float(value)
    except ValueError:
        amount = math.nan
    if not (math.isfinite(amount) and amount >= 0):
        table.fail(f'tolerance must be a number that is not negative, or a share such as "5%"; it is {value!r}')
    return amount, relative


def _requirement(table: Table, path: str, value: Any) -> Requirement:
    _field(table, path)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Requirement(path, "==", float(value))
    match = _COMPARISON.fullmatch(value) if isinstance(value, str) else None
    if match:
        try:
            return Requirement(path, match[1], float(match[2]))
        except ValueError:
            table.fail(f"require {path}: {match[2]!r} is not a number")
    if not isinstance(value, str) or not re.fullmatch(r"\w+", value):
        table.fail(f'require {path} must be a word such as "ok" or a comparison such as "<=0.02", it is {value!r}')
    return Requirement(path, "==", value)
