"""The engine: what a plan holds, and that no metric can harm another."""

from __future__ import annotations

import sys
import types as python_types
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from medtrust.engine import run_plan
from medtrust.errors import ConfigError, Insufficient, SelectionError
from medtrust.hookspecs import hookimpl
from medtrust.host import Host, build_host
from medtrust.planning import make_plan
from medtrust.progress import QuietProgress
from medtrust.types import (
    Estimate,
    FeatureMatrix,
    FeatureSpec,
    Intensity,
    Interval,
    MetricSpec,
    Result,
    SetData,
)

INTENSITY = Intensity(0, 255, "level")
MODULE = "medtrust_test_metrics"


class Gap:
    """A metric that answers."""

    def compute(self, data):
        value = float((data.synthetic.matrix.mean() - data.train.matrix.mean()).abs())
        return Result(Estimate(value), Interval(value, value, data.level, "none", len(data.train)))


class Vandal:
    """A metric that answers, and spoils everything it can reach."""

    def compute(self, data):
        print("noise on standard output")
        data.train.features.values.zero_()
        torch.manual_seed(1)
        np.random.seed(1)
        torch.set_num_threads(1)
        return Result(Estimate(1.0))


class Crash:
    def compute(self, data):
        raise RuntimeError("boom\nwith a second line")


class Quit:
    def compute(self, data):
        sys.exit(0)


class Shy:
    def compute(self, data):
        raise Insufficient("needs 50 patients, train has 12")


class NotANumber:
    def compute(self, data):
        return Result(Estimate(float("nan")))


class Wrong:
    def compute(self, data):
        return 1.0


class Two:
    def compute(self, data):
        return {"fidelity.up": Result(Estimate(1.0)), "diversity.down": Result(Estimate(data.seed % 7))}


class Together:
    """Answers with the spaces it was given, and embeds an image of its own."""

    def compute(self, data):
        seen = {space: float(each.train.matrix.mean()) for space, each in data.by_space.items()}
        own = data.embed(torch.zeros(1, 1, 2, 2)) if data.embed else torch.zeros(1, 3)
        return Result(Estimate(float(len(seen))), facts={**seen, "columns": own.shape[1], "space": data.space})


class Inside:
    """Asks the generator."""

    def compute(self, data):
        return Result(Estimate(float(data.generator.answer)))


class Grouped:
    def compute(self, data):
        assert data.subgroups == ("sex",)
        return [Result(Estimate(1.0), subgroup=f"sex={x}") for x in "FM"]


class Doubled:
    def compute(self, data):
        return {"fidelity.doubled": [Result(Estimate(1.0), subgroup="sex=F")] * 2}


METRICS = {c.__name__.lower(): c for c in (Gap, Vandal, Crash, Quit, Shy, NotANumber, Wrong, Two, Doubled)}


class Plugin:
    @hookimpl
    def medtrust_metrics(self):
        for name in METRICS:
            yield MetricSpec(
                name=name,
                version="1",
                factory=f"{MODULE}:{METRICS[name].__name__}",
                pillar="fidelity",
                needs=("train", "synthetic", "features"),
                results=("fidelity.up", "diversity.down") if name == "two" else (),
                min_samples=3,
            )
        yield MetricSpec(
            name="needy",
            version="1",
            factory=f"{MODULE}:Gap",
            pillar="privacy",
            needs=("train", "holdout", "synthetic"),
        )
        yield MetricSpec(
            name="together",
            version="1",
            factory=f"{MODULE}:Together",
            pillar="privacy",
            needs=("train", "synthetic", "features"),
            spaces=("plain",),
            spaces_option="where",
            together=True,
        )
        yield MetricSpec(
            name="apart",
            version="1",
            factory=f"{MODULE}:Together",
            pillar="privacy",
            needs=("train", "synthetic", "features"),
            spaces=("plain",),
            spaces_option="where",
        )
        yield MetricSpec(
            name="inside",
            version="1",
            factory=f"{MODULE}:Inside",
            pillar="privacy",
            needs=("train", "synthetic", "generator"),
        )
        yield MetricSpec(
            name="grouped",
            version="1",
            factory=f"{MODULE}:Grouped",
            pillar="equity",
            needs=("train", "synthetic", "subgroups"),
        )
        yield MetricSpec(name="rare", version="1", factory=f"{MODULE}:Gap", pillar="fidelity", optional=True)

    @hookimpl
    def medtrust_features(self):
        yield FeatureSpec(name="plain", version="1", factory=f"{MODULE}:Plain")
        yield FeatureSpec(name="other", version="1", factory=f"{MODULE}:Plain")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    module = python_types.ModuleType(MODULE)
    for metric in (*METRICS.values(), Together, Inside, Grouped):
        setattr(module, metric.__name__, metric)
    monkeypatch.setitem(sys.modules, MODULE, module)
    host = build_host(allow=[])
    host.register(Plugin(), "spoilers", distribution="spoilers", version="1.2")
    return host


def _sets(n: int = 8) -> tuple[dict, dict]:
    values = torch.rand(2 * n, 3, generator=torch.Generator().manual_seed(0))
    names = tuple(f"p{i}" for i in range(n))
    sets = {name: SetData(name, (), names, names) for name in ("train", "synthetic")}
    features = {
        name: FeatureMatrix(values[i * n : (i + 1) * n], names, names, "plain", "d")
        for i, name in enumerate(("train", "synthetic"))
    }
    return sets, {"plain": features}


def _run(host: Host, *metrics: str, n: int = 8, subgroups: tuple[str, ...] = ()):
    plan = make_plan(host, metrics=list(metrics), features=["plain"], seed=0, level=0.95, subgroups=subgroups)
    sets, features = _sets(n)
    return run_plan(plan, host, sets, features, INTENSITY, QuietProgress())


def test_one_failure_is_one_row(host):
    """A metric that raises, exits or returns nonsense costs its own rows and names its distribution."""
    outcome = _run(host, "crash", "quit", "wrong", "notanumber", "shy", "gap")
    status = {r.metric.split("/")[1]: r.status for r in outcome.results}
    assert status == {
        "crash": "error", "quit": "error", "wrong": "error", "notanumber": "error", "shy": "insufficient", "gap": "ok",
    }  # fmt: skip
    assert {f.distribution for f in outcome.failures} == {"spoilers 1.2"}
    assert "boom with a second line" in outcome.failures[0].error
    assert next(r for r in outcome.results if r.status == "insufficient").reason.startswith("needs 50 patients")


def test_a_vandal_changes_nobody_elses_answer(host, capsys):
    """Written features, seeded generators, changed threads and prints stay with the metric that did it."""
    alone = _run(host, "gap").results[0]
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy(), torch.get_num_threads()
    beside = _run(host, "vandal", "gap").results[1]
    assert beside == alone
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert torch.get_num_threads() == before[2]
    assert capsys.readouterr().out == ""


def test_ids_carry_the_chosen_space(host):
    """A metric that returns several results keeps its declared ids, each with the space in brackets."""
    assert [r.id for r in _run(host, "two").results] == ["fidelity.up[plain]", "diversity.down[plain]"]
    assert [r.pillar for r in _run(host, "two").results] == ["fidelity", "diversity"]


def test_too_few_images_is_a_reason(host):
    """Below min_samples the metric is not even called."""
    result = _run(host, "crash", n=2).results[0]
    assert (result.status, result.reason) == ("insufficient", "needs 3 images in each set; train has 2")


def test_a_missing_holdout_is_a_reason(host):
    """A metric that needs a holdout says so when there is none."""
    result = _run(host, "needy").results[0]
    assert result.status == "insufficient"
    assert "--holdout" in result.reason


def test_the_seed_of_a_metric_does_not_depend_on_the_others(host):
    """Leaving a metric out changes no other metric's seed."""
    assert _run(host, "two").results[1] == _run(host, "gap", "two").results[2]


def test_unknown_names_are_found_before_anything_is_read(host):
    """A typing error is a ConfigError with the close match."""
    with pytest.raises(ConfigError, match="gap"):
        make_plan(host, metrics=["gapp"], features=["plain"], seed=0, level=0.95)
    with pytest.raises(ConfigError, match="plain"):
        make_plan(host, metrics=["gap"], features=["plane"], seed=0, level=0.95)
    with pytest.raises(ConfigError, match="level"):
        make_plan(host, metrics=["gap"], features=["plain"], seed=0, level=95)
    with pytest.raises(SelectionError):
        make_plan(host, metrics=[], features=["plain"], seed=0, level=0.95)


def _run_with(host: Host, metric: str, options: dict | None = None, **more):
    plan = make_plan(
        host, metrics=[metric], features=["plain"], seed=0, level=0.95, options={"spoilers": options or {}}
    )
    sets, features = _sets()
    features["other"] = features["plain"]
    return plan, run_plan(plan, host, sets, features, INTENSITY, QuietProgress(), **more).results


def test_an_option_names_the_spaces_of_a_metric(host):
    """Each space is a job; those that the spec does not name carry brackets in their id."""
    plan, rows = _run_with(host, "apart", {"where": ["plain", "other", "plain"]})
    assert [row.id for row in rows] == ["privacy.apart", "privacy.apart[other]"]
    assert set(plan.spaces) == {"plain", "other"}
    assert [row.id for row in _run_with(host, "apart")[1]] == ["privacy.apart"]
    for wrong in ("plain", [], [3]):
        with pytest.raises(ConfigError, match="where"):
            _run_with(host, "apart", {"where": wrong})


def test_a_metric_may_see_its_spaces_together(host):
    """One call, one answer, an input for each space, and the map for images of its own."""
    embed = {"plain": lambda images: torch.zeros(len(images), 5)}
    _, rows = _run_with(host, "together", {"where": ["plain", "other"]}, embed=embed)
    assert [row.id for row in rows] == ["privacy.together"]
    assert rows[0].estimate.value == 2
    assert rows[0].features == "plain, other"
    assert rows[0].facts["columns"] == 5


def test_a_metric_that_needs_the_generator_is_skipped_without_one(host):
    """A folder of images has no inside to look at; a generator is handed on."""
    _, rows = _run_with(host, "inside")
    assert rows[0].status == "skipped"
    assert "folder of images" in rows[0].reason
    _, rows = _run_with(host, "inside", generator=python_types.SimpleNamespace(answer=7))
    assert rows[0].estimate.value == 7


def test_groups_of_metrics_and_what_needs_subgroups(host):
    """`all` runs what runs unasked, `optional` the rest, subgroups only with a column; each once, whoever names it."""

    def names(*metrics: str, subgroups: tuple[str, ...] = ()) -> list[str]:
        plan = make_plan(
            host, metrics=list(metrics), features=["plain"], seed=0, level=0.95, subgroups=subgroups
        )  # fmt: skip
        return [job.spec.name for job in plan.jobs]

    assert "rare" not in names("all")
    assert "grouped" not in names("all")
    assert names("optional") == ["rare"]
    assert sorted(names("all", "optional")) == sorted([*names("all"), "rare"])
    assert names("gap", "all").count("gap") == 1
    assert set(names("all", subgroups=("sex",))) == {*names("all"), "grouped"}
    with pytest.raises(ConfigError, match="--subgroups COLUMN"):
        names("grouped")


def test_one_id_may_have_a_row_per_subgroup(host):
    """Rows of one id that differ in subgroup are kept; two of the same are a fault of the metric."""
    rows = _run(host, "grouped", subgroups=("sex",)).results
    assert [(row.id, row.subgroup) for row in rows] == [("equity.grouped", "sex=F"), ("equity.grouped", "sex=M")]
    (row,) = _run(host, "doubled").results
    assert row.status == "error"
    assert "several that differ in subgroup" in row.reason
