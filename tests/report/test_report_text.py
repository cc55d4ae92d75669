"""Markdown, terminal, numbers, charts and registration."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from medtrust.gate import judge, load_policy
from medtrust.report import build_report, plugin, view
from medtrust.report.charts import interval_chart, small_chart
from medtrust.report.markdown import render
from medtrust.report.terminal import summary
from medtrust.report.text import apart, number, p_value, plain
from medtrust.types import ReportFormat, Result


def test_markdown_says_what_the_page_says(case):
    """Verdict, gates with their proof, pillars and limitations are all there."""
    name, report, folder = case
    plain_report = report.to_dict()
    text = render(plain_report, folder).decode()
    shown = MarkdownIt("gfm-like", {"linkify": False}).render(text)
    assert text.splitlines()[0].endswith(plain_report["subject"]["name"])
    assert report.verdict in text.splitlines()[0]
    assert shown.count("<table>") == 4
    for gate in report.gates:
        assert gate.id in shown
    assert ("Look first at" in shown) == (name == "fail")
    assert ("What could not be decided" in shown) == (name == "undecided")
    assert render(plain_report, Path("/elsewhere")) == render(plain_report, folder)


def test_hostile_names_stay_text_in_markdown(hostile, report_of_names, tmp_path):
    """No markup, link, mention or table cell can be made by a name."""
    parser = MarkdownIt("gfm-like", {"linkify": False})

    def skeleton(content: bytes) -> list[str]:
        kinds = []
        for token in parser.parse(content.decode()):
            kinds.append(token.type)
            kinds += [child.type for child in token.children or () if child.type not in ("text", "text_special")]
        return kinds

    content = render(report_of_names(hostile).to_dict(), tmp_path)
    assert skeleton(content) == skeleton(render(report_of_names("calm").to_dict(), tmp_path))
    assert len(content) < 20_000


@pytest.mark.parametrize(
    "text", ["[x](http://evil.test)", "www.evil.test", "@everyone", "`code`", "a | b", "![i](x)", "# h"]
)
def test_markdown_of_a_name_is_its_text(text, report_of_names, tmp_path):
    """What GitHub would turn into a link, a mention or a picture is shown as it is written."""
    content = render(report_of_names(text).to_dict(), tmp_path).decode()
    shown = MarkdownIt("gfm-like", {"linkify": False}).render(content)
    assert "<a " not in shown
    assert "<img" not in shown
    assert "http://evil" not in content
    assert "www.evil" not in content
    assert "@everyone" not in content


def test_markdown_stays_below_what_github_takes(tmp_path):
    """A report of thousands of results is cut with a note, and verdict, gates and digest stay."""
    rows = [
        Result(status="error", reason="x" * 400, id=f"fidelity.{i}", pillar="fidelity", title="é" * 150)
        for i in range(6000)
    ]
    report = judge(build_report(run={}, subject={}, data={}, results=rows, failures=()), load_policy("research"))
    content = render(report.to_dict(), tmp_path)
    assert len(content) < 2**20
    text = content.decode()
    assert "Cut at the size" in text
    assert report.integrity["sha256"] in text
    assert all(f"**{gate.id}**" in text for gate in report.gates)


def test_terminal_summary_is_short_and_complete(case):
    """Verdict, gates with reasons, the suspected copies and the place of the report."""
    name, report, _ = case
    text = summary(report, "out/report.html").plain
    assert text.splitlines()[0].startswith(("● PASS", "✖ FAIL", "◆ INCONCLUSIVE"))
    assert all(gate.why[0] in text for gate in report.gates)
    assert "out/report.html" in text
    assert ("sample-000041" in text) == (name == "fail")
    assert len(text.splitlines()) < 30
    assert summary(report.to_dict(), "out/report.html").plain == text


def test_hostile_names_cannot_steer_the_terminal(hostile, report_of_names):
    """No escape sequence of a name reaches the terminal, and rich markup in it is not obeyed."""
    stream = io.StringIO()
    Console(file=stream, force_terminal=True, color_system=None, width=100).print(summary(report_of_names(hostile)))
    assert "\x1b" not in stream.getvalue()
    assert "\u202e" not in stream.getvalue()


@given(st.text(max_size=600))
def test_plain_text_is_one_printable_line(text):
    """Whatever comes in, one line without control characters comes out."""
    shown = plain(text)
    assert len(shown.splitlines()) <= 1
    assert all(c.isprintable() or c in " \u00ad\u200d\u00a0" or c.isspace() for c in shown)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1234567, "1 234 567"),
        (0.00012345, "0.0001234"),
        (1.5e-9, "1.5 × 10⁻⁹"),
        (-2.5, "−2.5"),
        (0.1, "0.1"),
    ],
)
def test_numbers_read_well(value, text):
    """Whole numbers keep their digits in groups, others get four."""
    assert number(value).replace("\u202f", " ") == text


def test_a_p_value_is_never_zero():
    """A tiny p-value is bounded, not rounded away."""
    assert p_value(0.0) == p_value(9.9e-5) == "< 0.0001"
    assert p_value(0.0432) == "0.043"


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_two_different_numbers_are_written_differently(a, b):
    """A proof text never reads 0.01 < 0.01."""
    first, second = apart(a, b)
    assert (first == second) == (a == b)


def test_pillars_show_the_worst_gated_result(failed):
    """The line of a pillar is the result that decides it, and the headline counts the gates."""
    report, _ = failed
    views = {v.name: v for v in view.pillars(report.to_dict())}
    assert list(views) == ["fidelity", "diversity", "privacy"]
    assert views["privacy"].verdict == "FAIL"
    assert views["privacy"].row["id"] == "privacy.cpm"
    assert views["fidelity"].row["id"] == "fidelity.fd[radiomics]"
    assert view.headline(report.to_dict()).startswith("Of 6 gates in policy demo, 2 failed (copying, exact copies)")


def test_undecided_lists_each_result_once(case):
    """A result that is both gated and missing is told once, by its gate."""
    name, report, _ = case
    found = view.undecided(report.to_dict())
    assert len(found) == (3 if name == "undecided" else 0)
    assert len({what for what, _ in found}) == len(found)


def test_charts_shade_the_failing_side(failed):
    """For a threshold from below, what lies left of it is shaded, and the marks stand in order."""
    report, _ = failed
    plain_report = report.to_dict()
    row = next(r for r in plain_report["results"] if r["id"] == "fidelity.precision[radiomics]")
    gates = view.gates_of(plain_report, row)
    svg = str(interval_chart(row, gates, "spoken <words>"))
    assert 'class="fails" x="92"' in svg
    assert "must be ≥ 0.3" in svg
    assert "spoken &lt;words&gt;" in svg
    upward = [{**gates[0], "op": "<="}]
    assert 'class="fails" x="92"' not in str(interval_chart(row, upward, ""))
    assert str(small_chart(row, gates)).count("<text") == 0


def test_rows_without_an_answer_get_no_chart(report_of_names):
    """An error row is told in words."""
    report = report_of_names("x").to_dict()
    row = next(r for r in report["results"] if r["status"] == "error")
    assert str(interval_chart(row, [], "")) == str(small_chart(row, [])) == ""


def test_a_report_of_nothing_is_told(tmp_path):
    """Markdown and terminal say that nothing was judged."""
    empty = build_report(run={}, subject={}, data={}, results=(), failures=())
    assert "NOT JUDGED" in render(empty.to_dict(), tmp_path).decode()
    assert "NOT JUDGED" in summary(empty).plain
    assert "NOT JUDGED" in summary(replace(empty, subject={"name": "x"})).plain


def test_formats_are_registered_with_lazy_factories():
    """Each format is a function of (report, folder), and listing them imports neither jinja2 nor torch."""
    import importlib

    specs = list(plugin.medtrust_report_formats())
    assert [spec.name for spec in specs][:3] == ["json", "html", "markdown"]
    about = {"synthetic": {"manifest_sha256": "0" * 64}}
    unjudged = build_report(run={}, subject={}, data=about, results=(), failures=())
    report = judge(unjudged, load_policy("research")).to_dict()
    for spec in specs:
        assert isinstance(spec, ReportFormat)
        module, _, name = spec.factory.partition(":")
        assert isinstance(getattr(importlib.import_module(module), name)(report, Path()), bytes)
    code = (
        "import sys, medtrust.report.plugin as p; list(p.medtrust_report_formats());"
        "sys.exit(bool({'torch', 'numpy', 'jinja2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
