"""The page: self-contained, without scripts, safe against hostile names, readable without colour."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from medtrust.report import build_report
from medtrust.report.html import render
from medtrust.types import Estimate, Evidence, Picture, Result

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Collect what the tests ask about, and check that tags close."""

    def __init__(self, content: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.style = ""
        self.feed(content.decode("utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def page_of(report, folder: Path) -> Page:
    return Page(render(report.to_dict(), folder))


def test_page_is_self_contained_and_runs_nothing(case):
    """No script, no handler, no inline style, and nothing is fetched from anywhere."""
    _, report, folder = case
    page = page_of(report, folder)
    assert not {tag for tag, _ in page.tags} & {"script", "iframe", "object", "embed", "form", "link", "base"}
    for _, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on") or name == "style"]
        for name in ("src", "href", "action", "srcset"):
            assert (attrs.get(name) or "#").startswith(("#", "data:image/png;base64,"))
    assert "url(" not in page.style
    assert "@import" not in page.style


def test_content_security_policy_names_the_hash_of_the_style(case):
    """The only style that the policy lets through is the one in the page."""
    _, report, folder = case
    page = page_of(report, folder)
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    expected = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert f"style-src 'sha256-{expected}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "script-src" not in policy


def test_page_is_a_pure_function_of_report_and_pictures(failed):
    """The same report and folder give the same bytes, also after a trip through JSON."""
    report, folder = failed
    first = render(report.to_dict(), folder)
    assert render(json.loads(json.dumps(report.to_dict())), folder) == first
    assert len(first) < 3 * 1024**2


def test_first_screen_says_what_matters(case):
    """Verdict, subject, sets, every pillar and what stayed undecided come before the gates."""
    name, report, folder = case
    text = page_of(report, folder).text
    first = text[: text.index(" Gates ", text.index("What was found"))]
    assert report.verdict in first
    assert report.subject["name"] in first
    assert "880" in first
    assert "0 to 255 level" in first
    for pillar in {r.pillar for r in report.results}:
        assert pillar.capitalize() in first
    assert ("What could not be decided" in first) == (name == "undecided")
    assert ("needs a holdout set" in first) == (name == "undecided")
    assert ("Look first at sample-000041" in first) == (name == "fail")
    assert "Not examined" in first


def test_every_gate_shows_its_proof(case):
    """Each gate's sentences stand in the page word for word."""
    _, report, folder = case
    text = page_of(report, folder).text
    for gate in report.gates:
        for sentence in gate.why:
            assert " ".join(sentence.split()) in text


def test_verdict_is_told_by_word_and_shape(case):
    """A reader without colour sees the word; each verdict has its own outline."""
    _, report, folder = case
    content = render(report.to_dict(), folder).decode()
    marks = dict(re.findall(r'<svg class="mark (\w+)"[^>]*>(<[^>]+>)', content))
    assert len(set(marks.values())) == len(marks) >= 2
    assert f'<h1 id="verdict-word">{report.verdict}</h1>' in content


def test_page_can_be_heard_and_walked_by_keyboard(case):
    """Headings descend by one, tables have captions and scopes, pictures have words, and anchors lead somewhere."""
    _, report, folder = case
    page = page_of(report, folder)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(th.get("scope") in ("row", "col") for th in page.all("th"))
    assert all(img.get("alt") for img in page.all("img"))
    assert all(svg.get("aria-hidden") == "true" or svg.get("aria-label") for svg in page.all("svg"))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in page.all("a")} <= set(ids)
    assert page.all("html")[0]["lang"] == "en"


def test_results_that_decided_are_unfolded(failed):
    """What failed or warned is open, what passed is one click away."""
    report, folder = failed
    details = [d for d in page_of(report, folder).all("details") if "result" in (d.get("class") or "")]
    assert len(details) == len(report.results)
    assert all(("open" in d) == (d["class"].split()[1] in ("fail", "warn")) for d in details)


def test_evidence_is_embedded_and_real_pixels_are_declared(failed):
    """All pictures are in the page, real ones are marked, and the page says so at the top."""
    report, folder = failed
    page = page_of(report, folder)
    uris = [img["src"] for img in page.all("img")]
    files = {p.read_bytes() for p in (folder / "evidence").iterdir()}
    assert {base64.b64decode(uri.partition(",")[2]) for uri in uris} == files
    assert page.text.count("real pixels") == 8 * 3 + 3  # the most telling item stands beside the verdict too
    assert page.text.index("shows pixels of real patients") < page.text.index("What was audited")


def picture_report(path: str, sha256: str = "0" * 64):
    picture = Picture("synthetic", "alt", (("synthetic", 0),), None, False, "s", path, sha256)
    row = Result(
        estimate=Estimate(1.0), id="privacy.x", pillar="privacy", evidence=(Evidence("pair", "t", 1, {}, (picture,)),)
    )
    return build_report(run={}, subject={}, data={}, results=[row], failures=())


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("evidence/gone.png", "evidence/gone.png is missing"),
        ("", "withheld by the evidence setting"),
        ("../secret.png", "leaves the report's folder"),
        ("/etc/passwd", "leaves the report's folder"),
        ("evidence/link.png", "leaves the report's folder"),
        ("evidence/changed.png", "is not the one the report was written with"),
        ("evidence/text.png", "is not a PNG"),
        ("evidence", "is missing"),
    ],
)
def test_a_picture_that_cannot_be_shown_is_explained(tmp_path, path, said):
    """A missing, changed or foreign file is named in the page and never embedded."""
    folder = tmp_path / "out"
    (folder / "evidence").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\nsecret")
    (folder / "evidence" / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "evidence" / "changed.png").write_bytes(b"\x89PNG\r\n\x1a\nother")
    (folder / "evidence" / "text.png").write_bytes(b"words")
    page = page_of(picture_report(path, hashlib.sha256(b"words").hexdigest()), folder)
    assert said in page.text
    assert page.all("img") == []


def test_hostile_names_stay_text(tmp_path, hostile, report_of_names):
    """Markup, formulas, templates, control characters and endless strings are shown and never obeyed."""
    content = render(report_of_names(hostile).to_dict(), tmp_path)
    page = Page(content)
    calm = Page(render(report_of_names("calm").to_dict(), tmp_path))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in calm.tags]
    assert [sorted(attrs) for _, attrs in page.tags] == [sorted(attrs) for _, attrs in calm.tags]
    assert page.style == calm.style
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2028]", content.decode())
    assert len(content) < 400_000
    if len(hostile) < 100 and hostile.isprintable():
        assert " ".join(hostile.split()) in page.text


def test_report_without_gates_results_or_sets(tmp_path):
    """An empty report is rendered and says that nothing was judged."""
    page = page_of(build_report(run={}, subject={}, data={}, results=(), failures=()), tmp_path)
    assert "NOT JUDGED" in page.text
    assert "No policy was applied." in page.text
    assert page.text.count("not given") == 3


@pytest.mark.parametrize("value", [0.0, 1e-12, -3.5, 7, 1e9])
def test_a_result_with_one_number_gets_a_chart(tmp_path, value):
    """An estimate without interval, null or threshold is drawn inside its chart."""
    row = Result(estimate=Estimate(value), id="fidelity.x", pillar="fidelity")
    page = page_of(build_report(run={}, subject={}, data={}, results=[row], failures=()), tmp_path)
    dots = [float(c["cx"]) for c in page.all("circle") if c.get("class") == "value"]
    assert len(dots) == 3  # in the pillar, in the summary line, and in full
    assert all(4 <= x <= 408 for x in dots)


def test_many_evidence_items_are_capped(tmp_path):
    """The page embeds the most telling items and counts the rest."""
    items = tuple(Evidence("pair", f"item {i}", i) for i in range(1, 61))
    row = Result(estimate=Estimate(1.0), id="privacy.x", pillar="privacy", evidence=items)
    page = page_of(build_report(run={}, subject={}, data={}, results=[row], failures=()), tmp_path)
    assert len(page.all("figure")) == 24
    assert "36 further items are in report.json" in page.text
