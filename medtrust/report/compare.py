"""`compare.html`: two or more reports side by side, generator against generator or baseline against new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medtrust.errors import ConfigError
from medtrust.report import charts, view
from medtrust.report.difference import change, incomparable
from medtrust.report.html import environment, stylesheet
from medtrust.report.text import number, plain
from medtrust.types import PILLARS

__all__ = ["Comparison", "compare", "compare_page"]

Row = Mapping[str, Any]
LETTERS = "ABCDEFGH"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One result across the reports.

    Args:
        id: Result id, with the subgroup where it has one.
        title: Heading.
        rows: The result in each report, None where it has none.
        words: better, worse, not told apart, or the reason why it cannot be compared, against the first report;
            empty for the first itself.
        details: The worsening with its interval, in words.
    """

    id: str
    title: str
    rows: tuple[Row | None, ...]
    words: tuple[str, ...]
    details: tuple[str, ...]


def compare(reports: Sequence[Row]) -> list[Comparison]:
    """Line up the results of several reports and say what changed since the first.

    A change counts as better or worse where the interval of the difference leaves out zero; two intervals that
    overlap can still differ. The audits are taken as independent, which errs on the cautious side where they share
    real images.

    Args:
        reports: Plain data of two to eight reports; the first is what the others are compared with.

    Raises:
        ConfigError: Fewer than two reports, or more than eight.

    Reference: Zou and Donner 2008, doi:10.1002/sim.3095.
    """
    if not 2 <= len(reports) <= len(LETTERS):
        raise ConfigError(f"a comparison takes 2 to {len(LETTERS)} reports, {len(reports)} were given")
    tables = [{(row["id"], row["subgroup"]): row for row in report["results"]} for report in reports]
    keys = list(dict.fromkeys(key for table in tables for key in table))
    order: tuple[str, ...] = PILLARS
    keys.sort(key=lambda key: (_pillar_rank(order, key[0]), key))
    return [_line_up(key, [table.get(key) for table in tables]) for key in keys]


def _pillar_rank(order: tuple[str, ...], result: str) -> int:
    pillar = result.partition(".")[0]
    return order.index(pillar) if pillar in order else len(order)


def _line_up(key: tuple[str, str], rows: Sequence[Row | None]) -> Comparison:
    first = rows[0]
    words, details = [""], [""]
    for letter, row in zip(LETTERS[1:], rows[1:], strict=False):
        word, detail = _against(row, first, letter)
        words.append(word)
        details.append(detail)
    some = next(row for row in rows if row is not None)
    name = f"{key[0]} in {key[1]}" if key[1] else key[0]
    return Comparison(name, some["title"] or key[0], tuple(rows), tuple(words), tuple(details))


def _against(row: Row | None, first: Row | None, letter: str) -> tuple[str, str]:
    if row is None:
        return "no such result", ""
    problem = incomparable(row, first, (letter, "A"))
    if problem or first is None:
        return problem, ""
    found = change(row, first)
    if found.lo > 0:
        return "worse", f"by {number(found.value)} ({number(found.lo)} to {number(found.hi)})"
    if found.hi < 0:
        return "better", f"by {number(-found.value)} ({number(-found.hi)} to {number(-found.lo)})"
    span = f"{number(found.lo)} to {number(found.hi)}"
    return "not told apart", f"the worsening {number(found.value)} has the interval {span}"


def compare_page(reports: Sequence[Row], names: Sequence[str]) -> bytes:
    """Render a comparison as one HTML page without scripts.

    Args:
        reports: Plain data of two to eight reports.
        names: What to call each, such as its path.

    Returns:
        UTF-8; the same reports and names give the same bytes.

    Raises:
        ConfigError: Fewer than two reports, or more than eight.
    """
    rows = compare(reports)
    css, style = stylesheet()
    sides = [
        {
            "letter": letter,
            "name": name,
            "report": report,
            "subject": report["subject"].get("name") or "unnamed generator",
            "headline": view.headline(report),
        }
        for letter, name, report in zip(LETTERS, names, reports, strict=False)
    ]
    text = (
        environment()
        .get_template("compare.html")
        .render(
            css=css,
            style_hash=style,
            sides=sides,
            differ=_differing_sets(reports),
            sections=[
                (p, found) for p in dict.fromkeys(r.id.partition(".")[0] for r in rows) if (found := _of(rows, p))
            ],
            chart=lambda row: charts.comparison_chart(list(zip(LETTERS, row.rows, strict=False)), _spoken(row)),
        )
    )
    return text.encode("utf-8", "backslashreplace")


def _of(rows: Sequence[Comparison], pillar: str) -> list[Comparison]:
    return [row for row in rows if row.id.partition(".")[0] == pillar]


def _spoken(row: Comparison) -> str:
    parts = [f"{letter}: {view.value_line(r)}" for letter, r in zip(LETTERS, row.rows, strict=False) if r]
    return plain("; ".join(parts), 1000)


def _differing_sets(reports: Sequence[Row]) -> list[str]:
    """Real sets that are not the same in all reports: then a difference need not be the generator's."""
    found = []
    for name in ("train", "holdout"):
        digests = {(report["data"].get(name) or {}).get("manifest_sha256") for report in reports}
        if len(digests) > 1:
            found.append(name)
    return found
