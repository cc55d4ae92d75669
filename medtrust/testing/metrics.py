"""Checks of a metric, each run through the engine that runs it in an audit."""

from __future__ import annotations

import contextlib
import copy
import math
from typing import Any

import numpy as np
import torch

from medtrust.errors import Insufficient
from medtrust.testing.kit import Check, Conformance, NotApplicable, Subject, hold, require
from medtrust.testing.metric_runs import (
    LEVEL,
    TOLERANCE,
    answered,
    base,
    base_case,
    build,
    direct_input,
    direction_of,
    hold_same,
    metric_subject,
    pairs_of,
    run,
)
from medtrust.testing.watching import left_alone
from medtrust.types import MetricSpec

__all__ = ["METRIC_CHECKS", "check_metric"]


def check_metric(metric: str | MetricSpec, **options: Any) -> Conformance:
    """Run every check of a metric.

    Args:
        metric: Name of an installed metric, or a `MetricSpec` that is not installed.
        options: `expected_failures`: checks that are known to fail, each with the reason. `floor`: how many checks must
            run. `images`, `options`, `features`, `generator`, `n`: see `MetricGiven`.

    Returns:
        The account of every check.

    Raises:
        AssertionError: A check failed, one that was expected to fail passed, or too few ran.
    """
    return hold(METRIC_CHECKS, metric_subject(metric, **options))


def spec_is_sound(subject: Subject) -> None:
    """The factory is called without arguments, and the ids of its results begin with a pillar."""
    from medtrust.types import PILLARS

    spec: MetricSpec = subject.spec
    metric = subject.load()()
    require(callable(getattr(metric, "compute", None)), f"{spec.factory} has no method compute(data)")
    for name in spec.result_ids:
        pillar, _, rest = name.partition(".")
        require(pillar in PILLARS and rest, f"result {name!r} is not <pillar>.<name>; pillars: {', '.join(PILLARS)}")
    require(spec.summary, "the spec has no summary, so `medtrust plugins list` says nothing of it")
    require(spec.min_samples >= 1, f"min_samples is {spec.min_samples}")
    unknown = set(spec.needs) - {"train", "holdout", "synthetic", "images", "features", "generator", "subgroups"}
    require(not unknown, f"needs names {', '.join(sorted(unknown))}, which no audit has")


def answers(subject: Subject) -> None:
    """On ordinary images it gives finite numbers inside the declared range."""
    rows = base(subject)
    require(any(row.status == "ok" for row in rows), f"it gives no number on ordinary images: {rows[0].reason}")


def identity(subject: Subject) -> None:
    """Train as synthetic: the declared value, or none worse than that of fresh images; for privacy none better."""
    spec: MetricSpec = subject.spec
    told = False
    for fresh, copied in pairs_of(subject, base_case(subject).copied()):
        assert fresh.estimate is not None
        assert copied.estimate is not None
        value, there = copied.estimate.value, fresh.estimate.value
        if spec.identity is not None:
            told = True
            require(
                math.isclose(value, spec.identity, rel_tol=TOLERANCE, abs_tol=TOLERANCE),
                f"{copied.id} of a set with itself is {value!r}, declared is {spec.identity!r}",
            )
            continue
        direction = direction_of(fresh, spec)
        if direction == "none":
            continue
        told = True
        interval = fresh.interval
        lo, hi = (interval.lo, interval.hi) if interval is not None else (there, there)
        slack = TOLERANCE * max(1.0, abs(there))
        if fresh.pillar == "privacy":  # a copy is the worst that can be
            worse = value >= lo - slack if direction == "lower" else value <= hi + slack
            require(
                worse, f"{copied.id} is {value!r} for copies of train and {there!r} for fresh images: copies look safer"
            )
        else:
            better = value <= hi + slack if direction == "lower" else value >= lo - slack
            require(better, f"{copied.id} of a set with itself is {value!r}, worse than {there!r} of fresh real images")
    if not told:
        raise NotApplicable("its spec declares neither `identity` nor a direction")


def symmetry(subject: Subject) -> None:
    """Where the spec declares `symmetric`, train and synthetic may change places."""
    if not subject.spec.symmetric:
        raise NotApplicable("its spec does not declare `symmetric`")
    hold_same(subject, base_case(subject).swapped(), "with train and synthetic swapped")


def order_invariance(subject: Subject) -> None:
    """The order of the images in their sets does not matter."""
    hold_same(subject, base_case(subject).shuffled(), "with the images in another order")


def batch_invariance(subject: Subject) -> None:
    """Images that are decoded anew at each access, whatever was read before, give the same answer."""
    hold_same(subject, base_case(subject).lazy(), "with images decoded anew at each access")


def noise_is_worse(subject: Subject) -> None:
    """Strong white noise on the synthetic images makes it worse; a privacy metric never worse than a copy is."""
    spec: MetricSpec = subject.spec
    case = base_case(subject)
    told = False
    if spec.pillar == "privacy":
        copies = answered(subject, run(subject, case.copied()))
        noisy = answered(subject, run(subject, case.copied().noisy(4)))
        pairs = [(row, noisy[key]) for key, row in copies.items() if key in noisy]
    else:
        pairs = pairs_of(subject, case.noisy(4))
    for before, after in pairs:
        assert before.estimate is not None
        assert after.estimate is not None
        direction = direction_of(before, spec)
        if direction == "none":
            continue
        told = True
        a, b = before.estimate.value, after.estimate.value
        if before.pillar == "privacy":
            safer = b <= a + TOLERANCE if direction == "lower" else b >= a - TOLERANCE
            require(
                safer, f"{before.id} is {a!r} for copies and {b!r} for the same under noise: noise looks like copying"
            )
        else:
            worse = b > a if direction == "lower" else b < a
            require(worse, f"{before.id} is {a!r}, and {b!r} under noise; declared is that {direction} is better")
    if not told:
        raise NotApplicable("it declares no direction")


def seed_repeats(subject: Subject) -> None:
    """The same input and seed give the same bytes, whatever the global random states are."""
    if not subject.spec.deterministic:
        raise NotApplicable("its spec declares deterministic=False")
    first = build(base(subject))
    states = torch.random.get_rng_state(), np.random.get_state()
    try:
        torch.manual_seed(987)
        np.random.seed(654)
        second = build(run(subject, base_case(subject)))
    finally:
        torch.random.set_rng_state(states[0])
        np.random.set_state(states[1])
    require(
        first.to_dict() == second.to_dict(), "the same input and seed gave another result: draw from data.seed alone"
    )


def refuses_below_minimum(subject: Subject) -> None:
    """One image fewer than declared is an answer with a reason; the declared number is enough not to crash."""
    spec: MetricSpec = subject.spec
    whole = base_case(subject)
    for row in run(subject, whole.shortened(spec.min_samples)):
        require(row.status in ("ok", "insufficient", "skipped"), f"with {spec.min_samples} images: {row.reason}")
    if spec.min_samples < 2:
        raise NotApplicable("one image is enough for it")
    rows = run(subject, whole.shortened(spec.min_samples - 1))
    for row in rows:
        require(
            row.status in ("insufficient", "skipped") and row.reason,
            f"with {spec.min_samples - 1} images it is {row.status}, declared are {spec.min_samples} at least",
        )


def survives_odd_sets(subject: Subject) -> None:
    """Constant images, and one image repeated, give a finite number or `Insufficient`, never a crash."""
    case = base_case(subject)
    pixels = case.array("synthetic")
    middle = np.full_like(pixels, pixels.flat[0])
    for what, odd in (("constant", middle), ("all alike", np.repeat(pixels[:1], len(pixels), axis=0))):
        try:
            run(subject, case.with_synthetic(odd))
        except AssertionError as error:
            raise AssertionError(f"where the synthetic images are {what}: {error}") from error


def input_untouched(subject: Subject) -> None:
    """Pixels and features are after the call what they were before it."""
    case = base_case(subject).own()
    data = direct_input(subject, case)
    pixels = {name: case.array(name).copy() for name in case.sets}
    matrices = {
        (space, name): one.features.values.clone()
        for space, each in [("", data), *data.by_space.items()]
        for name, one in (("train", each.train), ("synthetic", each.synthetic), ("holdout", each.holdout))
        if one is not None and one.features is not None
    }
    options = copy.deepcopy(dict(data.options))
    try:
        subject.load()().compute(data)
    except Insufficient as reason:
        raise NotApplicable(f"it has no answer here: {reason}") from reason
    for name, was in pixels.items():
        require(np.array_equal(case.array(name), was), f"it wrote into the images of {name}; work on a copy")
    for (space, part), values in matrices.items():
        each = data.by_space[space] if space else data
        one = getattr(each, part)
        require(torch.equal(one.features.values, values), f"it wrote into the features of {part}; work on a copy")
    require(dict(data.options) == options, "it wrote into its options")


def leaves_the_process_alone(subject: Subject) -> None:
    """Random states, threads, environment, functions of torch and numpy, and standard output are left alone."""
    data = direct_input(subject, base_case(subject).own())
    metric = subject.load()()
    try:
        with contextlib.suppress(AssertionError), left_alone():
            metric.compute(data)  # a library's own initialisation is not the metric's doing
        with left_alone():
            metric.compute(data)
    except Insufficient as reason:
        raise NotApplicable(f"it has no answer here: {reason}") from reason


def interval_holds_estimate(subject: Subject) -> None:
    """Each interval contains its estimate, has the level that was asked for, and says what it counts."""
    found = [row for row in answered(subject).values() if row.interval is not None]
    if not found:
        raise NotApplicable("it gives no interval, so no gate that judges by intervals can pass it")
    for row in found:
        assert row.interval is not None
        assert row.estimate is not None
        value, interval = row.estimate.value, row.interval
        slack = TOLERANCE * max(1.0, abs(value))
        require(
            interval.lo - slack <= value <= interval.hi + slack,
            f"{row.id}: the interval [{interval.lo!r}, {interval.hi!r}] does not contain the estimate {value!r}",
        )
        require(interval.level == LEVEL, f"{row.id}: the interval has level {interval.level}, asked for is {LEVEL}")
        require(interval.n_units > 0 and interval.method, f"{row.id}: the interval does not say what it was made of")


def serialisable(subject: Subject) -> None:
    """Results go into report.json and come back the same."""
    rows = base(subject)
    report = build(rows)
    states = {(row.id, row.subgroup): row.status for row in rows}
    for row in report.results:
        require(row.status == states[row.id, row.subgroup], row.reason)
    plain = report.to_dict()
    again = [result["id"] for result in plain["results"]]
    require(sorted(again) == sorted(row.id for row in rows), f"report.json holds {again}")


def runs_without_holdout(subject: Subject) -> None:
    """Where the spec does not need a holdout set, an audit without one gets an answer or a reason."""
    if "holdout" in subject.spec.needs:
        raise NotApplicable("it needs a holdout set")
    run(subject, base_case(subject).without_holdout())


METRIC_CHECKS = tuple(
    Check(check.__name__, (check.__doc__ or "").strip(), check)
    for check in (
        spec_is_sound,
        answers,
        serialisable,
        interval_holds_estimate,
        seed_repeats,
        identity,
        symmetry,
        order_invariance,
        batch_invariance,
        noise_is_worse,
        refuses_below_minimum,
        survives_odd_sets,
        runs_without_holdout,
        input_untouched,
        leaves_the_process_alone,
    )
)
