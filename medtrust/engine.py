"""Plan an audit, then run it: one job per metric and feature space, and a failure is one row of the report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from medtrust.errors import ConfigError, Insufficient, SelectionError
from medtrust.guarding import Usage, can_limit, guarded
from medtrust.host import BrokenPluginError, naming_exits
from medtrust.seeding import derive_seed
from medtrust.types import (
    Demand,
    FeatureMatrix,
    FeatureSpec,
    Intensity,
    MetricInput,
    MetricSpec,
    PluginFailure,
    Result,
    SelfTest,
    SetData,
    SetName,
)

if TYPE_CHECKING:
    import torch

    from medtrust.host import Contribution, Host
    from medtrust.inputs import Inputs
    from medtrust.progress import Progress

__all__ = ["GROUPS", "Job", "Plan", "RunOutcome", "make_plan", "plugin_failure", "run_plan"]

GROUPS = {"all": False, "optional": True}  # names of groups of metrics, by whether they run only when asked for


NO_GENERATOR = (
    "needs the generator itself, to look inside it; the synthetic set is a folder of images. "
    "Give --synthetic kind:path, see `medtrust plugins list`"
)


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


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """Results, failures, and seconds and memory per job."""

    results: tuple[Result, ...]
    failures: tuple[PluginFailure, ...]
    seconds: Mapping[str, float]
    usage: Mapping[str, Usage] = field(default_factory=dict)


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
                skipped += _rows(job, "skipped", contribution.status)
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


def run_plan(
    plan: Plan,
    host: Host,
    sets: Mapping[SetName, SetData],
    features: Mapping[str, Mapping[SetName, FeatureMatrix]],
    intensity: Intensity,
    progress: Progress,
    *,
    embed: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] | None = None,
    generator: Any = None,
    validity: Mapping[str, SelfTest] = MappingProxyType({}),
    volumes: Inputs | None = None,
) -> RunOutcome:
    """Run every job on its own copy of the features; whatever one does, the others get the same input.

    Args:
        plan: What to run.
        host: Loads the metrics and is told of events.
        sets: train, synthetic and, where there is one, holdout.
        features: Per space and set, the features of `sets`.
        intensity: Declared range of all sets.
        progress: Where to report.
        embed: Per space, the map from further images to features like those in `features`.
        generator: What made the synthetic set, where that is known.
        validity: Per feature space, whether it notices what a person would in these images; it becomes the self-test
            of fidelity and diversity results in that space which have none of their own.
        volumes: The same sets by volume, for metrics that take volumes; None where the audit is by image.
    """
    results: list[Result] = list(plan.skipped)
    failures: list[PluginFailure] = []
    seconds: dict[str, float] = {}
    usage: dict[str, Usage] = {}
    with progress.stage("metrics", len(plan.jobs)) as stage:
        for job in plan.jobs:
            began = time.perf_counter()
            host.fire("medtrust_before_metric", plan=plan, metric=job.spec)
            if volumes is not None and job.spec.volumes:
                rows, failure = _run_job(
                    job, plan, host, volumes.sets, volumes.features, intensity, volumes.embed, generator, usage
                )
                rows = [volumes.in_images(row) for row in rows]
            else:
                rows, failure = _run_job(job, plan, host, sets, features, intensity, embed or {}, generator, usage)
            seconds[job.ids[0]] = time.perf_counter() - began
            used = usage.get(job.ids[0], Usage())
            outcome = f"{rows[0].status}, memory rose by {used.peak_mib:g} MiB and kept {used.kept_mib:g} MiB"
            host.note(job.contribution, f"compute {job.ids[0]}", seconds[job.ids[0]], outcome)
            if failure is not None:
                failures.append(failure)
                host.fire("medtrust_on_metric_error", plan=plan, metric=job.spec, failure=failure)
            rows = [_vouched(row, validity) for row in rows]
            for row in rows:
                host.fire("medtrust_after_metric", plan=plan, metric=job.spec, result=row)
            results += rows
            stage.advance()
    return RunOutcome(tuple(results), tuple(failures), seconds, usage)


def _run_job(
    job: Job,
    plan: Plan,
    host: Host,
    sets: Mapping[SetName, SetData],
    features: Mapping[str, Mapping[SetName, FeatureMatrix]],
    intensity: Intensity,
    embed: Mapping[str, Callable[[torch.Tensor], torch.Tensor]],
    generator: Any,
    usage: dict[str, Usage],
) -> tuple[list[Result], PluginFailure | None]:
    if "generator" in job.spec.needs and generator is None:
        return _rows(job, "skipped", NO_GENERATOR), None
    too_few = _shortage(job.spec, sets) or _nothing_varies(job, features)
    if too_few:
        return _rows(job, "insufficient", too_few), None

    def given(space: str) -> MetricInput:
        rows = features.get(space, {})
        return MetricInput(
            train=_private(sets["train"], rows),
            synthetic=_private(sets["synthetic"], rows),
            holdout=_private(sets["holdout"], rows) if "holdout" in sets else None,
            intensity=intensity,
            level=plan.level,
            seed=derive_seed(plan.seed, "metric", job.contribution.full_name, space),
            space=space,
            options=plan.options.get(job.contribution.plugin, {}),
            demand=next((plan.demands[name] for name in job.spec.result_ids if name in plan.demands), Demand()),
            embed=embed.get(space),
            generator=generator if "generator" in job.spec.needs else None,
            subgroups=plan.subgroups if "subgroups" in job.spec.needs else (),
        )

    data = given(job.space)
    if job.together:
        data = replace(data, by_space={space: given(space) for space in job.together})
    try:
        source = job.contribution.source
        who = f"{job.contribution.full_name} of {source.label}"
        with naming_exits(source), guarded(plan.timeout, who) as used:
            usage[job.ids[0]] = used
            answer = host.load(job.contribution)().compute(data)
        return _check_answer(job, answer), None
    except Insufficient as shortage:
        return _rows(job, "insufficient", str(shortage)), None
    except BrokenPluginError as broken:
        return _rows(job, "error", str(broken)), broken.failure
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # whatever a plugin raises, SystemExit included, costs its own result alone
        c = job.contribution
        failure = plugin_failure(c, error)
        return _rows(job, "error", f"{c.full_name} failed: {failure.error}"), failure


def plugin_failure(c: Contribution, error: BaseException) -> PluginFailure:
    """What the report says of a plugin that raised while it ran."""
    return PluginFailure(
        plugin=c.plugin,
        distribution=f"{c.distribution} {c.distribution_version}",
        stage="run",
        error=" ".join(f"{type(error).__name__}: {error}".split())[:500],
        remedy=f"report it to the authors of {c.distribution}, or leave {c.spec.name} out with --metrics",
    )


def _shortage(spec: MetricSpec, sets: Mapping[SetName, SetData]) -> str:
    if "holdout" in spec.needs and "holdout" not in sets:
        return "needs a holdout set: real images of other patients that the generator never saw (--holdout)"
    for name, data in sets.items():
        if name not in spec.needs:
            continue
        if len(data) < spec.min_samples:
            return f"needs {spec.min_samples} images in each set; {name} has {len(data)}"
        patients = len(set(data.patients))
        if name != "synthetic" and patients < spec.min_patients:
            return f"needs {spec.min_patients} patients in each real set; {name} has {patients}"
    return ""


def _nothing_varies(job: Job, features: Mapping[str, Mapping[SetName, FeatureMatrix]]) -> str:
    """Say so where a space, after constant columns were left out, has none."""
    for space in job.together or (job.space,):
        if any(len(matrix) and matrix.values.shape[1] == 0 for matrix in features.get(space, {}).values()):
            return (
                f"no feature of the space {space} varies: all images of all sets look the same there, so nothing can "
                "be compared; check that they are not blank or copies of one image"
            )
    return ""


def _private(data: SetData, features: Mapping[SetName, FeatureMatrix]) -> SetData:
    """Give a metric features of its own, so that one that writes into them harms nobody else."""
    matrix = features.get(data.name)
    return data if matrix is None else replace(data, features=replace(matrix, values=matrix.values.clone()))


def _rows(job: Job, status: Any, reason: str) -> list[Result]:
    return [_identified(Result(status=status, reason=reason), job, row) for row in job.ids]


def _identified(result: Result, job: Job, row: str) -> Result:
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


def _vouched(row: Result, validity: Mapping[str, SelfTest]) -> Result:
    """A distance counts only in a space that notices what it should."""
    judged = row.status == "ok" and row.selftest is None and row.pillar in ("fidelity", "diversity")
    return replace(row, selftest=validity[row.features]) if judged and row.features in validity else row


def _check_answer(job: Job, answer: Any) -> list[Result]:
    """Hold a metric to what its spec declares."""
    if isinstance(answer, Result) or (isinstance(answer, list | tuple) and answer):
        answer = {job.spec.result_ids[0]: answer}
    declared = set(job.spec.result_ids)
    if not isinstance(answer, Mapping) or set(answer) != declared:
        got = sorted(map(str, answer)) if isinstance(answer, Mapping) else type(answer).__name__
        raise TypeError(f"compute() must return the results {sorted(declared)}, it returned {got}")
    rows = []
    for base, row in zip(job.spec.result_ids, job.ids, strict=True):
        results = [answer[base]] if isinstance(answer[base], Result) else list(answer[base])
        groups = [getattr(result, "subgroup", None) for result in results]
        if not results or len(set(groups)) < len(groups):
            raise TypeError(f"{base} must be a Result, or several that differ in subgroup, these are {groups}")
        for result in results:
            if not isinstance(result, Result):
                raise TypeError(f"{base} must be a Result, it is a {type(result).__name__}")
            _check_numbers(base, result, job.spec)
            rows.append(_identified(result, job, row))
    return rows


def _check_numbers(base: str, result: Result, spec: MetricSpec) -> None:
    if result.status != "ok":
        if not result.reason:
            raise ValueError(f"{base} has status {result.status} without a reason")
        return
    if result.estimate is None:
        raise ValueError(f"{base} has status ok without an estimate")
    value = result.estimate.value
    lo, hi = spec.range
    if not math.isfinite(value):
        raise ValueError(f"{base} is {value}; a metric that cannot answer must raise Insufficient")
    if (lo is not None and value < lo - 1e-9) or (hi is not None and value > hi + 1e-9):
        raise ValueError(f"{base} is {value}, outside its declared range {spec.range}")
    interval = result.interval
    if interval is not None and not interval.lo <= interval.hi:
        raise ValueError(f"{base} has the interval [{interval.lo}, {interval.hi}]")
