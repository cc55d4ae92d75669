"""Contributions: a spec that a plugin offered, with where it came from and whether it can be used here."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from medtrust.host.isolation import Source
from medtrust.host.locate import missing
from medtrust.types import (
    PILLARS,
    ExplainerSpec,
    FeatureSpec,
    FormatSpec,
    GeneratorSpec,
    MetricSpec,
    ReportFormat,
    Spec,
    SuiteSpec,
)

__all__ = ["KINDS", "Contribution", "contribute", "flaw"]

KINDS = MappingProxyType(
    {
        "format": ("medtrust_formats", FormatSpec),
        "generator": ("medtrust_generators", GeneratorSpec),
        "features": ("medtrust_features", FeatureSpec),
        "metric": ("medtrust_metrics", MetricSpec),
        "explainer": ("medtrust_explainers", ExplainerSpec),
        "suite": ("medtrust_suites", SuiteSpec),
        "report_format": ("medtrust_report_formats", ReportFormat),
    }
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_TUPLES = ("requires", "needs", "results", "spaces", "suffixes")
_RESERVED = {"all", "optional"}  # `--metrics all,optional`


@dataclass(frozen=True, slots=True)
class Contribution:
    """One spec that a plugin offered.

    Args:
        kind: One of `KINDS`.
        spec: What the plugin declared.
        plugin: Entry-point name.
        distribution: Distribution that installed the plugin.
        distribution_version: Its version.
        full_name: `<distribution>/<name>`.
        status: "ok", or "missing extra: …" with the `pip install` line that brings what is missing.
    """

    kind: str
    spec: Any
    plugin: str
    distribution: str
    distribution_version: str
    full_name: str
    status: str

    @property
    def source(self) -> Source:
        """The plugin that offered it."""
        return Source(self.plugin, self.distribution, self.distribution_version)

    def as_dict(self) -> dict[str, Any]:
        """Return everything declared, JSON-ready."""
        declared = {field.name: _json(getattr(self.spec, field.name)) for field in dataclasses.fields(self.spec)}
        return {"kind": self.kind, "full_name": self.full_name, "status": self.status, **declared}


def contribute(kind: str, spec: Spec, source: Source) -> Contribution:
    """Make a contribution of a spec, looking up without importing whether what it requires is there."""
    absent = missing(spec.requires)
    status = "ok"
    if absent:
        wanted = f"'{source.distribution}[{spec.extra}]'" if spec.extra else " ".join(absent)
        status = f"missing extra: {', '.join(absent)} not installed; pip install {wanted}"
    full_name = f"{source.distribution}/{spec.name}"
    return Contribution(kind, spec, source.plugin, source.distribution, source.version, full_name, status)


def flaw(kind: str, spec: object) -> str:
    """Say what is wrong with an object that a plugin offered as `kind`, or nothing when it will do."""
    _, wanted = KINDS[kind]
    if not isinstance(spec, wanted):
        return f"offered a {type(spec).__name__} where a {wanted.__name__} belongs"
    assert isinstance(spec, Spec)  # each class of KINDS is one; mypy cannot know
    if not isinstance(spec.name, str) or not _NAME.fullmatch(spec.name) or spec.name in _RESERVED:
        return f"the name {spec.name!r} is reserved or not made of letters, digits, '.', '_' and '-'"
    for field in ("version", "summary", "extra"):
        if not isinstance(getattr(spec, field), str):
            return f"{spec.name}: {field} must be a text, it is {getattr(spec, field)!r}"
    if not isinstance(spec.factory, str) or not _FACTORY.fullmatch(spec.factory):
        return f'{spec.name}: factory must read "package.module:attribute", it is {spec.factory!r}'
    for field in _TUPLES:
        value = getattr(spec, field, ())
        if not isinstance(value, tuple) or not all(isinstance(item, str) and item for item in value):
            return f"{spec.name}: {field} must be a tuple of texts such as ('a',), it is {value!r}"
    if isinstance(spec, MetricSpec) and spec.pillar not in PILLARS:
        return f"{spec.name}: pillar must be one of {', '.join(PILLARS)}, it is {spec.pillar!r}"
    return ""


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple | list):
        return [_json(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
