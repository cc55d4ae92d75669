"""Exit codes, and which one wins."""

from __future__ import annotations

from medtrust.report import Verdict

__all__ = ["exit_code", "of_verdict"]

INTERRUPTED = 130
PRECEDENCE = (70, 2, 4, 1, 3, 5, 0)
_OF_VERDICT = {"PASS": 0, "WARN": 0, "FAIL": 1, "INCONCLUSIVE": 3, "NONE": 0}


def of_verdict(verdict: Verdict, *, strict: bool = False) -> int:
    """Exit code of a verdict.

    Args:
        verdict: PASS and WARN exit 0, FAIL 1, INCONCLUSIVE 3.
        strict: WARN exits 1.
    """
    return 1 if strict and verdict == "WARN" else _OF_VERDICT[verdict]


def exit_code(*codes: int) -> int:
    """Choose the code to exit with when several apply.

    Args:
        codes: Any of 0 PASS or WARN, 1 FAIL, 2 usage, policy or schema, 3 INCONCLUSIVE, 4 safety, 5 nothing selected,
            70 internal error, 130 interrupted.

    Returns:
        130 if the run was interrupted, else the first of 70, 2, 4, 1, 3, 5, 0; 70 for a code that is none of them.
    """
    if INTERRUPTED in codes:
        return INTERRUPTED
    if set(codes) - set(PRECEDENCE):
        return 70
    return next((code for code in PRECEDENCE if code in codes), 0)
