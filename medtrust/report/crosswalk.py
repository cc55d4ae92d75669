"""Which criterion of published frameworks a result speaks to. Orientation for a reader, never a claim of compliance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from medtrust.types import Result

__all__ = ["STATEMENT", "crosswalk"]

STATEMENT = (
    "This table says which criterion each result speaks to. It is an orientation for readers of those frameworks and "
    "no claim of compliance with, or endorsement by, either of them."
)
REFERENCES = {
    "scorecard": "Zamzmi et al., Scorecard for synthetic medical data evaluation, doi:10.1038/s44172-025-00450-1",
    "future_ai": "Lekadir et al., FUTURE-AI, doi:10.1136/bmj-2024-081554",
}

# pillar -> (criterion of the scorecard's seven Cs, principle of FUTURE-AI)
_BY_PILLAR = {
    "fidelity": ("congruence", "robustness"),
    "diversity": ("coverage", "universality"),
    "privacy": ("compliance", "traceability"),
    "explanation": ("comprehension", "explainability"),
    "equity": ("consistency", "fairness"),
    "utility": ("congruence", "usability"),
    "physics": ("constraint", "robustness"),
}


def crosswalk(results: Iterable[Result]) -> dict[str, Any]:
    """Map each result id to the criteria it speaks to.

    Reference: Zamzmi et al. 2025, doi:10.1038/s44172-025-00450-1; Lekadir et al. 2025, doi:10.1136/bmj-2024-081554.
    """
    rows = {
        result.id: {"scorecard": _BY_PILLAR[result.pillar][0], "future_ai": _BY_PILLAR[result.pillar][1]}
        for result in results
        if result.pillar in _BY_PILLAR
    }
    return {"statement": STATEMENT, "references": REFERENCES, "results": rows}
