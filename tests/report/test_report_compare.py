"""Two reports side by side: what is said, what is not, and a page that can be trusted."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from medtrust.cli import main
from medtrust.errors import ConfigError
from medtrust.report import to_json
from medtrust.report.compare import compare, compare_page
from medtrust.report.difference import change


@pytest.fixture
def two(request, tmp_path):
    """The report without copies, and the blurry one with copies."""
    from conftest import failing, passing

    return passing(None).to_dict(), failing(None).to_dict()


def find(rows, name):
    return next(row for row in rows if row.id == name)


def test_a_blurry_generator_is_worse_and_the_words_turn_round(two):
    """Against the first report; swapped, worse becomes better with the same figures."""
    one, other = two
    forth, back = compare([one, other]), compare([other, one])
    assert find(forth, "fidelity.fd[radiomics]").words == ("", "worse")
    assert find(back, "fidelity.fd[radiomics]").words == ("", "better")
    assert find(compare([one, one]), "fidelity.fd[radiomics]").words == ("", "not told apart")
    said = find(forth, "diversity.ssim").words[1]
    assert "direction" in said


def test_what_cannot_be_compared_says_why(two):
    """Another version of a metric, a missing interval, a missing result."""
    one, other = two
    changed = json.loads(json.dumps(other))
    rows = {row["id"]: row for row in changed["results"]}
    rows["fidelity.fd[radiomics]"]["metric_version"] = "2"
    rows["fidelity.kid[radiomics]"]["interval"] = None
    changed["results"] = [row for row in changed["results"] if row["id"] != "diversity.coverage[radiomics]"]
    found = compare([one, changed])
    assert "metric_version 1" in find(found, "fidelity.fd[radiomics]").words[1]
    assert "no interval" in find(found, "fidelity.kid[radiomics]").words[1]
    assert find(found, "diversity.coverage[radiomics]").words[1] == "no such result"


def test_the_interval_of_a_difference_covers(two):
    """Of two independent normal means the interval of the difference covers the truth at its level."""
    rng, hits, repetitions = np.random.default_rng(7), 0, 2000
    row = next(r for r in two[0]["results"] if r["id"] == "fidelity.fd[radiomics]")

    def drawn(mean: float, sd: float):
        value = rng.normal(mean, sd)
        interval = {**row["interval"], "lo": value - 1.96 * sd, "hi": value + 1.96 * sd}
        return {**row, "estimate": {**row["estimate"], "value": value}, "interval": interval}

    for _ in range(repetitions):
        found = change(drawn(5, 0.4), drawn(3, 1.1))
        hits += found.lo <= 2 <= found.hi
    assert abs(hits / repetitions - 0.95) < 4 * (0.95 * 0.05 / repetitions) ** 0.5


def test_the_page_is_safe_and_names_other_sets(two, report_of_names, hostile):
    """No script, no markup from names, and a warning where the real sets differ."""
    one, other = two
    page = compare_page([one, other], ["a.json", "b.json"]).decode()
    assert page == compare_page([one, other], ["a.json", "b.json"]).decode()
    assert "not the same in all reports" not in page
    moved = json.loads(json.dumps(other))
    moved["data"]["train"]["manifest_sha256"] = "0" * 64
    assert "The train set is not the same" in compare_page([one, moved], ["a", "b"]).decode()
    bad = compare_page([report_of_names(hostile).to_dict(), other], [hostile, "b"]).decode()
    calm = compare_page([report_of_names("calm").to_dict(), other], ["calm", "b"]).decode()
    assert "<script" not in bad
    assert sorted(set(re.findall(r"<([a-z0-9]+)", bad))) == sorted(set(re.findall(r"<([a-z0-9]+)", calm)))


def test_too_few_or_too_many_are_refused(two):
    """One report is no comparison, nine are no page."""
    with pytest.raises(ConfigError, match="2 to 8"):
        compare(two[:1])
    with pytest.raises(ConfigError, match="9 were given"):
        compare([two[0]] * 9)


def test_the_command_writes_the_page(tmp_path, capsys):
    """Exit 0, the page, and a line per result that both have."""
    from conftest import failing, passing

    for name, report in (("a", passing(None)), ("b", failing(None))):
        (tmp_path / f"{name}.json").write_bytes(to_json(report))
    out = tmp_path / "pages/compare.html"
    assert main(["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--out", str(out)]) == 0
    assert "fidelity.fd[radiomics]: worse" in capsys.readouterr().out
    assert out.read_text().startswith("<!DOCTYPE html>")
    assert main(["compare", str(tmp_path / "a.json")]) == 2
