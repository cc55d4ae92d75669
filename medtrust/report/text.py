"""Texts and numbers as people read them: control characters made visible, numbers with honest digits."""

from __future__ import annotations

import unicodedata

__all__ = ["apart", "number", "p_value", "plain", "quantity", "sentence"]

LONGEST = 400
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_PARTS = {"share", "fraction", "ratio", "probability"}
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # controls, bidi overrides, surrogates, line separators
_ALLOWED = {"\u00ad", "\u200d"}  # soft hyphen and joiner are part of ordinary words


def plain(text: object, longest: int = LONGEST) -> str:
    """Make a foreign text safe to look at: one line, no control character, not endless.

    Args:
        text: Anything; file names, patient labels and plugin messages come from strangers.
        longest: Characters to keep; what is cut is counted in the text itself.

    Returns:
        The text with each control or invisible character written as an escape such as \\x1b.
    """
    whole = str(text)
    kept = whole if len(whole) <= longest else whole[:longest]
    shown = "".join(_visible(c) for c in kept)
    return shown if kept is whole else f"{shown}… ({len(whole) - longest} more characters)"


def _visible(character: str) -> str:
    if character in "\t\n\r":
        return " "
    if unicodedata.category(character) in _INVISIBLE and character not in _ALLOWED:
        code = ord(character)
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    return character


def number(value: float | int, digits: int = 4) -> str:
    """Write a number with up to `digits` significant digits; whole numbers keep all of theirs.

    Args:
        value: A finite number.
        digits: Significant digits.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", "\u202f").replace("-", "−")
    text = f"{value:.{digits}g}"
    mantissa, _, exponent = text.partition("e")
    if exponent:
        return f"{mantissa} × 10{str(int(exponent)).translate(_RAISED)}".replace("-", "−")
    return text.replace("-", "−")


def p_value(value: float) -> str:
    """Write a p-value with two significant digits, and never as zero."""
    return "< 0.0001" if value < 1e-4 else number(value, 2)


def quantity(value: float | int, unit: str = "", digits: int = 4) -> str:
    """Write a number with its unit; what counts parts of a whole goes before the number ("share 0.02")."""
    text = number(value, digits)
    if unit in _PARTS:
        return f"{unit}\u00a0{text}"
    return f"{text}\u00a0{plain(unit, 40)}" if unit else text


def sentence(text: str) -> str:
    """End a text with a full stop unless it ends like a sentence already."""
    text = text.strip()
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."


def apart(a: float, b: float) -> tuple[str, str]:
    """Write two numbers with as many digits as it takes to tell them apart.

    Args:
        a: First number.
        b: Second number; equal numbers give equal texts.
    """
    for digits in range(4, 18):
        first, second = number(a, digits), number(b, digits)
        if a == b or first != second:
            return first, second
    return repr(a), repr(b)
