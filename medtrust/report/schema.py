"""The JSON Schema of `medtrust.report/1`, and what is wrong with data that does not follow it."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["complaint", "schema"]


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a report."""
    loaded: dict[str, Any] = json.loads(files("medtrust.report").joinpath("schema.json").read_text("utf-8"))
    return loaded


@cache
def _validator(definition: str) -> Any:
    import jsonschema

    whole = schema()
    if not definition:
        return jsonschema.Draft202012Validator(whole)
    part = {"$schema": whole["$schema"], "$ref": f"#/$defs/{definition}", "$defs": whole["$defs"]}
    return jsonschema.Draft202012Validator(part)


def complaint(data: Any, definition: str = "") -> str:
    """Say where and how plain data breaks the schema.

    Args:
        data: Plain data.
        definition: Name of a part, such as "result"; empty for a whole report.

    Returns:
        One sentence, empty if nothing is wrong.
    """
    import jsonschema

    problem = jsonschema.exceptions.best_match(_validator(definition).iter_errors(data))
    if problem is None:
        return ""
    where = ".".join(str(part) for part in problem.absolute_path) or "the top level"
    return f"{where}: {problem.message[:300]}"
