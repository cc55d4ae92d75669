"""Why the verdict: the worst gate first, with what to look at; on the first screen and as text."""

from __future__ import annotations

import re
from pathlib import Path

from medtrust.report.html import render
from medtrust.report.reasons import explanation, reasons


def report(verdict="FAIL"):
    from medtrust import gate
    from medtrust.report import build_report
    from medtrust.types import Estimate, Evidence, Interval, Null, Picture, Result

    picture = Picture("synthetic", "a <b>synthetic</b> image", (("synthetic", 3),), name="sample-3.png")
    item = Evidence("pair", "suspected copy", 1, {"rho": 0.01}, (picture,))
    low = {"FAIL": 0.4, "PASS": 0.0}[verdict]
    rows = [
        Result(Estimate(low, "share", "lower"), Interval(low, low + 0.1, 0.95, "exact", 9), null=Null("half", 0.02),
               evidence=(item,), id="privacy.copy_rate", pillar="privacy", title="Copies"),
        Result(Estimate(0.9, "balanced accuracy"), Interval(0.8, 0.95, 0.95, "t", 9), id="explanation.rules",
               pillar="explanation", title="Rules", facts={"rule_1": "a > 1: precision 0.9"}),
        Result(status="insufficient", reason="INCONCLUSIVE, do not believe these maps", id="explanation.gradcam[c2st]",
               pillar="explanation", title="Grad-CAM"),
    ]  # fmt: skip
    made = build_report(run={}, subject={"name": "g"}, data={}, results=rows, failures=[])
    text = 'schema = "medtrust.policy/1"\n[[gate]]\nid = "copies"\nresult = "privacy.copy_rate"\nop = "<="\n'
    path = Path("policy.toml")
    path.write_text(text + "threshold = 0.2\n")
    return gate.judge(made, gate.load_policy(path)).to_dict()


def test_the_first_screen_shows_why(tmp_path, monkeypatch):
    """Verdict, then the proving sentence, the evidence's title and a place for its picture; nothing on a pass."""
    monkeypatch.chdir(tmp_path)
    page = render(report(), tmp_path).decode()
    why = re.search(r'<section class="proof".*?</section>', page, re.DOTALL).group()
    assert page.index('class="proof"') < page.index('id="audited"')
    assert "Why: copies" in why
    assert "FAIL because the lower bound 0.4" in why
    assert "Suspected copy" in why or "suspected copy" in why
    assert "withheld by the evidence setting" in why
    assert "<b>synthetic</b> image" not in why
    assert 'class="proof"' not in render(report("PASS"), tmp_path).decode()


def test_the_text_tells_what_to_look_at_and_what_gives_the_images_away(tmp_path, monkeypatch):
    """Evidence by name, rules in words, and an explanation that failed its tests with the reason."""
    monkeypatch.chdir(tmp_path)
    found = report()
    (reason,) = reasons(found)
    assert reason.gate["id"] == "copies"
    assert reason.evidence["title"] == "suspected copy"
    text = explanation(found)
    assert "copies: suspected copy. rho 0.01. sample-3.png" in text
    assert "if a > 1: precision 0.9" in text
    assert "do not believe these maps" in text
