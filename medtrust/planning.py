"""Plan an audit: which metric in which feature space, settled before anything is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from medtrust.errors import ConfigError, SelectionError
from medtrust.guarding import can_limit
from medtrust.types import Demand, FeatureSpec, MetricSpec, Result

if TYPE_CHECKING:
    from medtrust.host import Contribution, Host

__all__ = ["GROUPS", "Job", "Plan", "blank_rows", "identified", "make_plan"]

GROUPS = {"all": False, "optional": True}  # names of groups of metrics, by whether they run only when asked for


@dataclass(frozen=True, slots=True)
class Job:
    """One metric in one feature space (empty where it needs none), or in several at once."""

    contribution: Contribution
    spec: MetricSpec
    space: str
    together: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """Result ids: with the space in brackets where the user chose it, without where the metric did."""
        bracket = f"[{self.space}]" if self.space and self.space not in self.spec.spaces and not self.together else ""
        return tuple(f"{base}{bracket}" for base in self.spec.result_ids)


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be run, settled before anything is read.

    Args:
        jobs: Metrics to run, in order.
        spaces: Every feature space that some job needs, by name.
        skipped: Rows for what cannot run here, with the reason.
        explainers: What explains the results that offer something to explain.
        timeout: Seconds that one metric or explainer may take; None for no limit.
    """

    jobs: tuple[Job, ...]
    spaces: Mapping[str, Contribution]
    skipped: tuple[Result, ...]
    seed: int
    level: float
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    demands: Mapping[str, Demand] = field(default_factory=dict)
    subgroups: tuple[str, ...] = ()
    explainers: tuple[Contribution, ...] = ()
    timeout: float | None = None

    @property
    def judged_spaces(self) -> tuple[str, ...]:
        """Spaces in which fidelity or diversity is measured, so that their validity matters."""
        judged = (job.space for job in self.jobs if job.space and job.spec.pillar in ("fidelity", "diversity"))
        return tuple(dict.fromkeys(judged))


def make_plan(
    host: Host,
    *,
    metrics: str | Sequence[str],
    features: Sequence[str],
    seed: int,
    level: float,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    demands: Mapping[str, Demand] | None = None,
    subgroups: Sequence[str] = (),
    timeout: float | None = None,
) -> Plan:
    """Resolve names to plugins and find every error that can be found before reading an image.

    Args:
        host: The plugin host.
        metrics: Names of metrics and explainers; "all" stands for those that run unasked, "optional" for those that do
            not.
        features: Names of the feature spaces to compare in.
        seed: Root seed.
        level: Confidence level of the intervals.
        options: Options by plugin name, handed to its metrics.
        demands: What the policy asks, by result id without the feature space.
        subgroups: Columns that hold the subgroup of each image; none leaves out what needs them.
        timeout: Seconds that one metric or explainer may take; None for no limit.

    Raises:
        ConfigError: An unknown name, a metric that needs subgroups where no column is named, a level outside (0, 1), or
            a time limit where none can be kept.
        PluginError: A named plugin is broken or ambiguous.
        SelectionError: Nothing is left to run.
    """
    if not 0.5 <= level < 1:
        raise ConfigError(f"level {level} is not a confidence level; give one from 0.5 up to, not including, 1")
    if timeout is not None and not can_limit():
        raise ConfigError("a time limit can be kept in the main thread of a Unix process only; leave it out here")
    chosen = tuple(_canonical(host, name) for name in dict.fromkeys(features))
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    explainers = {c.full_name: c for name in names for c in _explainers(host, name)}
    asked = [name for name in names if name in GROUPS or not _explainers(host, name)]
    contributions = list({c.full_name: c for name in asked for c in _named(host, name)}.values())
    if not subgroups:
        for c in contributions:
            if "subgroups" in c.spec.needs and c.spec.name in names:
                raise ConfigError(f"{c.spec.name} compares subgroups: name a manifest column with --subgroups COLUMN")
        contributions = [c for c in contributions if "subgroups" not in c.spec.needs]
    jobs: list[Job] = []
    skipped: list[Result] = []
    spaces: dict[str, Contribution] = {}
    for contribution in contributions:
        spec: MetricSpec = contribution.spec
        wanted = _spaces_of(spec, chosen, (options or {}).get(contribution.plugin, {}), host)
        groups = [(wanted[0], wanted)] if spec.together else [(space, ()) for space in wanted]
        for space, together in groups:
            job = Job(contribution, spec, space, together)
            if contribution.status != "ok":
                skipped += blank_rows(job, "skipped", contribution.status)
                continue
            for name in together or (space,):
                if name:
                    spaces.setdefault(name, _usable_space(host, name))
            jobs.append(job)
    if not jobs:
        raise SelectionError("no metric is left to run; see `medtrust plugins list` for what is installed")
    return Plan(
        tuple(jobs),
        spaces,
        tuple(skipped),
        seed,
        level,
        options or {},
        demands or {},
        tuple(dict.fromkeys(subgroups)),
        tuple(explainers.values()),
        timeout,
    )


def _explainers(host: Host, name: str) -> list[Contribution]:
    """Explainers of a group, or the one of that name."""
    known = host.contributions("explainer")
    if name in GROUPS:
        return [c for c in known if c.spec.optional == GROUPS[name]]
    return [c for c in known if name in (c.spec.name, c.full_name)]


def _spaces_of(spec: MetricSpec, chosen: tuple[str, ...], options: Mapping[str, Any], host: Host) -> tuple[str, ...]:
    """Name the spaces a metric computes in, empty for one that needs no features."""
    if "features" not in spec.needs:
        return ("",)
    asked = options.get(spec.spaces_option) if spec.spaces_option else None
    if asked is None:
        return spec.spaces or chosen
    if not isinstance(asked, (list, tuple)) or not asked or not all(isinstance(name, str) for name in asked):
        raise ConfigError(
            f"option {spec.spaces_option} of metric {spec.name} is {asked!r}; give a list of feature spaces, "
            'such as ["pixels"]'
        )
    return tuple(_canonical(host, name) for name in dict.fromkeys(asked))


def _named(host: Host, name: str) -> list[Contribution]:
    """The metrics that a name stands for."""
    if name in GROUPS:
        return [c for c in host.contributions("metric") if c.spec.optional == GROUPS[name]]
    return [host.find("metric", name)]


def _canonical(host: Host, name: str) -> str:
    spec: FeatureSpec = host.find("features", name).spec
    return spec.name


def _usable_space(host: Host, name: str) -> Contribution:
    contribution = host.find("features", name)
    if contribution.status != "ok":
        raise ConfigError(f"feature space {name} cannot be used: {contribution.status}")
    return contribution


def blank_rows(job: Job, status: Any, reason: str) -> list[Result]:
    """One row per result of a job that has no answer, with the reason."""
    return [identified(Result(status=status, reason=reason), job, row) for row in job.ids]


def identified(result: Result, job: Job, row: str) -> Result:
    """Fill in what the plan knows of a result: its id, its metric, its space."""
    base = row.split("[", 1)[0]
    return replace(
        result,
        id=row,
        pillar=base.split(".", 1)[0],
        title=result.title or job.spec.title or base.split(".", 1)[1].replace("_", " "),
        metric=job.contribution.full_name,
        metric_version=job.spec.version,
        features=", ".join(job.together) or job.space,
        citation=result.citation or job.spec.citation,
    )
