"""Subgroups: excess where it was planted and nowhere else, disparity, small groups, labels, command line, gates."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from audit_sets import random_patches, write_sets
from PIL import Image
from scipy.ndimage import gaussian_filter
from test_fidelity import features

from medtrust import Insufficient, MetricInput, Result, audit
from medtrust.cli import main
from medtrust.errors import ConfigError
from medtrust_fidelity.subgroups import SubgroupExcess

SEXES = ("F", "M", "X")


def given(seed: int, shifts: Mapping[str, float], sizes: tuple[int, int, int] = (240, 180, 180)) -> MetricInput:
    """Three subgroups in turn, each with a mean of its own; synthetic is off by a shift per subgroup."""
    data = features(seed, sizes, d=4)
    sets = {}
    for name in ("train", "synthetic", "holdout"):
        one = getattr(data, name)
        labels = [SEXES[i % 3] for i in range(len(one))]
        values = one.features.values + 2.0 * torch.tensor([SEXES.index(x) for x in labels])[:, None]
        if name == "synthetic":
            values = values + torch.tensor([shifts.get(x, 0.0) for x in labels])[:, None]
        rows = tuple({"sex": label, "site": "A" if i % 2 else "B"} for i, label in enumerate(labels))
        sets[name] = replace(one, attributes=rows, features=replace(one.features, values=values.float()))
    return replace(data, **sets, subgroups=("sex",))


def rows(data: MetricInput) -> dict[str, Result]:
    """Results by id and subgroup."""
    answer = SubgroupExcess().compute(data)
    found = {}
    for name, results in answer.items():
        for result in [results] if isinstance(results, Result) else results:
            found[f"{name.removeprefix('equity.')} {result.subgroup}"] = result
    return found


@pytest.mark.parametrize("measure", ["fd", "mmd"])
def test_the_excess_is_where_it_was_planted(measure: str) -> None:
    """A shift in one subgroup is its excess after adjustment; the others have none, and the disparity is the gap."""
    found = rows(given(1, {"M": 1.5}))
    bad, good = found[f"{measure}_excess sex=M"], found[f"{measure}_excess sex=F"]
    assert bad.interval
    assert bad.interval.lo > 0
    assert bad.test
    assert bad.test.p <= bad.test.p_adj < 0.05
    assert good.interval
    assert good.interval.lo <= 0 <= good.interval.hi
    assert good.test
    assert good.test.p_adj > 0.05
    assert good.estimate
    assert good.resolution
    assert abs(good.estimate.value) <= 1.5 * good.resolution.min_detectable
    disparity = found[f"{measure}_disparity sex"]
    assert disparity.interval
    assert disparity.interval.lo > 0
    assert disparity.facts["furthest"] == "sex=M"
    facts = bad.facts
    assert bad.estimate
    assert bad.estimate.value == pytest.approx(float(facts["synthetic_to_train"]) - float(facts["holdout_to_train"]))
    assert facts["n_synthetic"] == facts["n_holdout"]


@pytest.mark.parametrize("audits", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_a_fair_generator_seldom_shows_excess_or_disparity(audits: int) -> None:
    """One-sided tests at 5 % with Benjamini-Hochberg alarm in about 5 % of fair audits, disparities in fewer."""
    alarms, disparities = [], []
    for seed in range(audits):
        found = rows(given(seed, {}))
        alarms.append(min(found[f"mmd_excess sex={x}"].test.p_adj for x in SEXES) <= 0.05)  # type: ignore[union-attr]
        disparities.append(found["mmd_disparity sex"].interval.lo > 0)  # type: ignore[union-attr]
    # five standard deviations above 5 %
    assert np.mean(alarms) <= 0.05 + 5 * np.sqrt(0.05 * 0.95 / audits)
    assert np.mean(disparities) <= 0.05 + 5 * np.sqrt(0.05 * 0.95 / audits)


def test_a_uniform_defect_is_an_excess_without_disparity() -> None:
    """Every subgroup off by the same: all alarm, the disparity's interval holds 0."""
    found = rows(given(2, dict.fromkeys(SEXES, 1.5)))
    assert all(found[f"mmd_excess sex={x}"].interval.lo > 0 for x in SEXES)  # type: ignore[union-attr]
    disparity = found["mmd_disparity sex"].interval
    assert disparity
    assert disparity.lo == 0


def test_small_subgroups_are_insufficient_and_two_columns_stay_apart() -> None:
    """Below 50 patients there is a reason instead of a number; another column has rows of its own."""
    data = replace(given(3, {}, (240, 140, 180)), subgroups=("sex", "site"))
    found = rows(data)
    few = found["fd_excess sex=F"]
    assert few.status == "insufficient"
    assert few.reason == "a subgroup needs 50 patients in each set; of sex=F, holdout has 47" or "has 47" in few.reason
    assert found["fd_disparity sex"].status == "insufficient"
    assert "two subgroups with 50 patients" in found["fd_disparity sex"].reason
    assert found["fd_excess site=A"].status == "ok"
    assert found["mmd_disparity site"].status == "ok"


def test_missing_labels_are_counted_and_a_set_without_any_is_refused() -> None:
    """Images without a value are in no subgroup and a note says how many."""
    data = given(4, {}, (300, 240, 240))
    blank = tuple({} if i < 6 else row for i, row in enumerate(data.synthetic.attributes))
    found = rows(replace(data, synthetic=replace(data.synthetic, attributes=blank)))
    assert "6 images of synthetic have no sex and are in no subgroup" in found["mmd_excess sex=F"].notes
    nothing = replace(data, synthetic=replace(data.synthetic, attributes=tuple({} for _ in blank)))
    with pytest.raises(Insufficient, match="no image of synthetic has a value in the column 'sex'"):
        rows(nothing)


def label(folder: Path, column: str, values: list[str]) -> None:
    """Give a folder's manifest a further column."""
    path = folder / "manifest.csv"
    if path.exists():
        with path.open(newline="") as file:
            table = list(csv.DictReader(file))
    else:
        table = [{"file": p.name, "patient": p.stem} for p in sorted(folder.glob("*.png"))]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*table[0], column])
        writer.writeheader()
        writer.writerows({**row, column: values[i % len(values)]} for i, row in enumerate(table))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Train, holdout and synthetic with a site per patient; synthetic images of site B are blurred."""
    root = tmp_path_factory.mktemp("labelled")
    sets = write_sets(root, seed=5, patients=120, synthetic=240)
    for name in ("train", "holdout"):
        label(sets[name], "site", ["A", "A", "B", "B"])
    blurred = gaussian_filter(random_patches(np.random.default_rng(6), 120).astype(float), (0, 1.5, 1.5, 0))
    for image, path in zip(blurred, sorted(sets["synthetic"].glob("*.png"))[1::2], strict=True):
        Image.fromarray(np.rint(image).astype(np.uint8)).save(path)
    label(sets["synthetic"], "site", ["A", "B"])
    return sets


def test_an_audit_by_site_finds_the_site_that_is_served_badly(labelled, tmp_path) -> None:
    """From `--subgroups` to the report's rows and the gates of each subgroup."""
    policy = tmp_path / "fair.toml"
    policy.write_text(
        'schema = "medtrust.policy/1"\n'
        '[[gate]]\nid = "excess"\nresult = "equity.mmd_excess[*]"\nop = "<="\nthreshold = 0.03\n'
        '[[gate]]\nid = "disparity"\nresult = "equity.mmd_disparity[*]"\nop = "<="\nthreshold = 0.001\n'
    )
    command = ["audit", *(f"--{name}={path}" for name, path in labelled.items()), "--quiet", "--metrics", "subgroups"]
    command += ["--subgroups", "site", f"--policy={policy}", f"--out={tmp_path / 'out'}", f"--cache={tmp_path}"]
    assert main(command) == 1
    from medtrust.report import read_report

    report = read_report(tmp_path / "out" / "report.json")
    verdicts = {(gate.id, gate.subgroup): gate.verdict for gate in report.gates}
    assert verdicts[("excess", "site=B")] == "FAIL"
    assert verdicts[("excess", "site=A")] == "PASS"
    assert verdicts[("disparity", "site")] == "FAIL"
    assert {row.subgroup for row in report.results} == {"site=A", "site=B", "site"}
    assert all(row.pillar == "equity" for row in report.results)


def test_columns_are_checked_before_anything_is_computed(labelled) -> None:
    """A misspelt column, one with a value per image, and the metric without a column are refused with the remedy."""
    sets = {name: str(path) for name, path in labelled.items()}
    with pytest.raises(ConfigError, match=r"did you mean 'site'.*known columns: site"):
        audit(**sets, subgroups="sight")
    for folder in labelled.values():
        label(folder, "number", [str(i) for i in range(99)])
    with pytest.raises(ConfigError, match="99 different values are no subgroups"):
        audit(**sets, subgroups=["number"])
    with pytest.raises(ConfigError, match="--subgroups COLUMN"):
        audit(**sets, metrics="subgroups")
