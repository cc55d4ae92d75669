"""How a metric is run for its checks: through the engine that runs it in an audit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from medtrust.engine import run_plan
from medtrust.extraction import Embedder, Scaling, standardise
from medtrust.planning import Plan, make_plan
from medtrust.progress import QuietProgress
from medtrust.report import TrustReport, build_report
from medtrust.testing.cases import Case, Images, make_case
from medtrust.testing.kit import NotApplicable, Subject, offer, require, resolve
from medtrust.types import FeatureMatrix, FeatureSpec, Intensity, MetricInput, MetricSpec, Result, SetData, SetName

__all__ = [
    "LEVEL",
    "METRIC_FLOOR",
    "TOLERANCE",
    "KitFeatures",
    "MetricGiven",
    "answered",
    "base",
    "base_case",
    "build",
    "direct_input",
    "direction_of",
    "hold_same",
    "metric_subject",
    "pairs_of",
    "run",
]

METRIC_FLOOR = 10
TOLERANCE = 1e-6  # of the estimate: another order of summation moves a float64 sum far less
LEVEL = 0.95


class KitFeatures:
    """Six plain numbers per image, for metrics that compute in whatever space the user chose."""

    names = ("mean", "sd", "dx", "dy", "low", "high")
    digest = "kit-1"

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    def extract(self, images: torch.Tensor, intensity: Intensity) -> torch.Tensor:
        """Describe images [N, C, H, W] as [N, 6]."""
        x = (images.double() - intensity.lo) / (intensity.hi - intensity.lo)
        flat = x.flatten(1)
        dx, dy = (x.diff(dim=dim).abs().flatten(1).mean(1) for dim in (3, 2))
        parts = (flat.mean(1), flat.std(1), dx, dy, flat.quantile(0.1, 1), flat.quantile(0.9, 1))
        return torch.stack(parts, 1).float()


@dataclass(frozen=True, slots=True)
class MetricGiven:
    """What the author of a metric gives its checks.

    Args:
        images: What images to check it on.
        options: Options of its plugin.
        features: Feature space to check it in, where it computes in the one that the user chose.
        generator: Makes a generator from the train images [N, C, H, W], for a metric that looks inside one.
        n: Images in each set; enough for what the metric declares when not given.
    """

    images: Images = field(default_factory=Images)
    options: Mapping[str, Any] = field(default_factory=dict)
    features: str | FeatureSpec | None = None
    generator: Any = None
    n: int = 0


def metric_subject(
    metric: str | MetricSpec,
    *,
    expected_failures: Mapping[str, str] | None = None,
    floor: int = METRIC_FLOOR,
    **given: Any,
) -> Subject:
    """Find a metric, with what its checks need (see `check_metric`)."""
    told = MetricGiven(**given)
    subject = resolve("metric", metric, expected=expected_failures or {}, floor=floor, given=told)
    if told.features is None or isinstance(told.features, FeatureSpec):
        space = told.features or FeatureSpec(
            name="of_the_kit", version="1", factory="medtrust.testing.metric_runs:KitFeatures"
        )
        subject.kept["space"] = offer(subject.host, "features", space, "space", "kit").full_name
    else:
        subject.kept["space"] = told.features
    return subject


def plan_of(subject: Subject, seed: int = 5) -> Plan:
    given: MetricGiven = subject.given
    contribution = subject.contribution
    return make_plan(
        subject.host,
        metrics=[contribution.full_name],
        features=[subject.kept["space"]],
        seed=seed,
        level=LEVEL,
        options={contribution.plugin: given.options},
        subgroups=("group",) if "subgroups" in contribution.spec.needs else (),
    )


def features_of(
    subject: Subject, plan: Plan, case: Case
) -> tuple[dict[str, dict[SetName, FeatureMatrix]], dict[str, Any]]:
    matrices: dict[str, dict[SetName, FeatureMatrix]] = {}
    embed: dict[str, Any] = {}
    intensity = case.images.intensity
    for space, contribution in plan.spaces.items():
        if space not in subject.kept:
            subject.kept[space] = subject.host.load(contribution)(device="cpu")
        extractor = subject.kept[space]
        raw = {name: matrix_of(one, extractor, space, intensity) for name, one in case.sets.items()}
        scaled = getattr(extractor, "standardise", False)
        matrices[space] = standardise(raw) if scaled else raw
        embed[space] = Embedder(extractor, intensity, Scaling.of(raw) if scaled else None)
    return matrices, embed


def matrix_of(one: SetData, extractor: Any, space: str, intensity: Intensity) -> FeatureMatrix:
    pixels = torch.from_numpy(np.stack([record.pixels for record in one.images]))
    values = extractor.extract(pixels, intensity)
    return FeatureMatrix(values, one.patients, one.digests, space, extractor.digest, tuple(extractor.names))


def base_case(subject: Subject) -> Case:
    """The case that every check starts from: three independent draws of one kind of image."""
    if "case" not in subject.kept:
        spec: MetricSpec = subject.spec
        n = subject.given.n or max(24, spec.min_samples, spec.min_patients)
        subject.kept["case"] = make_case(subject.given.images, n, spec.min_patients, seed=11)
    case: Case = subject.kept["case"]
    return case


def run(subject: Subject, case: Case, seed: int = 5) -> tuple[Result, ...]:
    """Run the metric as an audit does; what it raises becomes an AssertionError."""
    case, generator = case.own(), None
    if "generator" in subject.spec.needs and subject.given.generator is not None:
        generator = subject.given.generator(case.array("train"))
    plan = plan_of(subject, seed)
    features, embed = features_of(subject, plan, case)
    with np.errstate(all="warn"):
        outcome = run_plan(
            plan, subject.host, case.sets, features, case.images.intensity, QuietProgress(), embed=embed,
            generator=generator,
        )  # fmt: skip
    require(not outcome.failures, "; ".join(failure.error for failure in outcome.failures))
    return outcome.results


def base(subject: Subject) -> tuple[Result, ...]:
    """Results of the base case, once."""
    if "base" not in subject.kept:
        subject.kept["base"] = run(subject, base_case(subject))
    results: tuple[Result, ...] = subject.kept["base"]
    return results


def answered(subject: Subject, results: tuple[Result, ...] | None = None) -> dict[tuple[str, str], Result]:
    """Results with an estimate, by id and subgroup; there must be one."""
    rows = base(subject) if results is None else results
    found = {(row.id, row.subgroup): row for row in rows if row.status == "ok"}
    if not found:
        raise NotApplicable(f"it has no answer here: {rows[0].reason}")
    return found


def direction_of(row: Result, spec: MetricSpec) -> str:
    """Which way is better: as the result says, else as the spec does."""
    assert row.estimate is not None
    return row.estimate.direction if row.estimate.direction != "none" else spec.direction


def pairs_of(subject: Subject, case: Case) -> list[tuple[Result, Result]]:
    """Each answer to the base case, beside the answer to another one."""
    before, after = answered(subject), answered(subject, run(subject, case))
    return [(row, after[key]) for key, row in before.items() if key in after]


def hold_same(subject: Subject, case: Case, what: str) -> None:
    """Raise AssertionError unless another case has the same answers as the base case; `what` says what was changed."""
    before, after = answered(subject), answered(subject, run(subject, case))
    require(before.keys() == after.keys(), f"{what}, it answers {sorted(after)} instead of {sorted(before)}")
    for key, row in before.items():
        assert row.estimate is not None
        other = after[key].estimate
        assert other is not None
        close = math.isclose(row.estimate.value, other.value, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        require(close, f"{what}, {row.id} is {other.value!r} instead of {row.estimate.value!r}")


def direct_input(subject: Subject, case: Case) -> MetricInput:
    """What `compute` is given, without the host's protection around it."""
    plan = plan_of(subject)
    matrices, embed = features_of(subject, plan, case)
    job = plan.jobs[0]

    def given(space: str) -> MetricInput:
        sets = {name: replace(one, features=matrices[space][name]) if space else one for name, one in case.sets.items()}
        generator = subject.given.generator
        return MetricInput(
            sets["train"], sets["synthetic"], sets.get("holdout"), case.images.intensity, LEVEL, 7, space,
            subject.given.options, embed=embed.get(space), subgroups=plan.subgroups,
            generator=generator(case.array("train")) if generator is not None else None,
        )  # fmt: skip

    data = given(job.space)
    return replace(data, by_space={name: given(name) for name in job.together}) if job.together else data


def build(results: tuple[Result, ...]) -> TrustReport:
    """The report that holds these results alone."""
    return build_report(run={}, subject={}, data={}, results=results, failures=())
