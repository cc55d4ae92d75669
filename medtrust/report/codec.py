"""Results to plain data and back. Keys are the field names of `medtrust.types`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medtrust.report.canonical import plain_data
from medtrust.types import Estimate, Evidence, Interval, Null, Picture, Resolution, Result, SelfTest, TestOutcome

__all__ = ["decode_result", "encode_result"]

_TEXTS = (
    "id", "pillar", "title", "status", "reason", "metric", "metric_version", "features", "subgroup", "citation",
)  # fmt: skip
_NUMBERS = ("estimate", "interval", "test", "null", "resolution", "selftest")


def encode_result(result: Result) -> dict[str, Any]:
    """Turn a result into plain data; pictures keep their path and digest, not their pixels.

    Raises:
        ValueError: A number in it is not finite, or a fact is no number, truth value or text.
    """
    evidence = [
        {
            "kind": item.kind,
            "title": item.title,
            "rank": item.rank,
            "facts": _facts(item.facts, "evidence.facts"),
            "pictures": [_encode_picture(picture) for picture in item.pictures],
        }
        for item in result.evidence
    ]
    row = {name: getattr(result, name) for name in (*_TEXTS, *_NUMBERS)}
    row |= {"facts": _facts(result.facts, "facts"), "evidence": evidence, "notes": result.notes}
    if result.diagnostic:
        row["diagnostic"] = result.diagnostic
    plain: dict[str, Any] = plain_data(row)
    return plain


def _encode_picture(picture: Picture) -> dict[str, Any]:
    names = ("role", "alt", "name", "path", "sha256", "contains_real", "sources")
    return {name: getattr(picture, name) for name in names}


def _facts(facts: Mapping[str, Any], where: str) -> dict[str, Any]:
    plain: dict[str, Any] = plain_data(facts, where)
    for key, value in plain.items():
        if value is None or isinstance(value, (list, dict)):
            raise ValueError(f"{where}.{key} is neither a number, a truth value nor a text")
    return plain


def decode_result(row: Mapping[str, Any]) -> Result:
    """Rebuild a result from the plain data of a report that has passed the schema."""
    null = row["null"]
    return Result(
        estimate=Estimate(**row["estimate"]) if row["estimate"] else None,
        interval=Interval(**row["interval"]) if row["interval"] else None,
        test=TestOutcome(**row["test"]) if row["test"] else None,
        null=Null(null["reference"], null["value"], Interval(**null["interval"]) if null["interval"] else None)
        if null
        else None,
        resolution=Resolution(**row["resolution"]) if row["resolution"] else None,
        selftest=SelfTest(**row["selftest"]) if row["selftest"] else None,
        evidence=tuple(_decode_evidence(item) for item in row["evidence"]),
        facts=dict(row["facts"]),
        notes=tuple(row["notes"]),
        diagnostic=row.get("diagnostic", ""),
        **{name: row[name] for name in _TEXTS},
    )


def _decode_evidence(item: Mapping[str, Any]) -> Evidence:
    pictures = tuple(
        Picture(**{**picture, "sources": tuple((name, index) for name, index in picture["sources"])})
        for picture in item["pictures"]
    )
    return Evidence(item["kind"], item["title"], item["rank"], dict(item["facts"]), pictures)
