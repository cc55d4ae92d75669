"""Run a plan: one job per metric and feature space, and a failure is one row of the report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from medtrust.errors import Insufficient
from medtrust.guarding import Usage, guarded
from medtrust.host import BrokenPluginError, naming_exits
from medtrust.planning import Job, Plan, blank_rows, identified
from medtrust.seeding import derive_seed
from medtrust.types import (
    Demand,
    FeatureMatrix,
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

__all__ = ["RunOutcome", "plugin_failure", "run_plan"]

NO_GENERATOR = (
    "needs the generator itself, to look inside it; the synthetic set is a folder of images. "
    "Give --synthetic kind:path, see `medtrust plugins list`"
)


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """Results, failures, and seconds and memory per job."""

    results: tuple[Result, ...]
    failures: tuple[PluginFailure, ...]
    seconds: Mapping[str, float]
    usage: Mapping[str, Usage] = field(default_factory=dict)


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
        return blank_rows(job, "skipped", NO_GENERATOR), None
    too_few = _shortage(job.spec, sets) or _nothing_varies(job, features)
    if too_few:
        return blank_rows(job, "insufficient", too_few), None

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
        return blank_rows(job, "insufficient", str(shortage)), None
    except BrokenPluginError as broken:
        return blank_rows(job, "error", str(broken)), broken.failure
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # whatever a plugin raises, SystemExit included, costs its own result alone
        c = job.contribution
        failure = plugin_failure(c, error)
        return blank_rows(job, "error", f"{c.full_name} failed: {failure.error}"), failure


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
            rows.append(identified(result, job, row))
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
