"""What pixel values mean: parse a declared range, and settle the one range that a set, or several sets, share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from medtrust.errors import ConfigError, DataError
from medtrust.types import ImageHeader, Intensity

if TYPE_CHECKING:
    from medtrust.images.imageset import ImageSet

__all__ = ["CT_RANGE", "UNSTATED_UNIT", "common_intensity", "parse_intensity", "settle_intensity"]

CT_RANGE = Intensity(-1024.0, 3071.0, "HU")
"""The range every Hounsfield set shares: what 12 stored bits hold at slope 1 and intercept -1024.

CT series differ in how many bits they store, not in what a Hounsfield unit is, so the range comes from the scale and
not from the storage. Pixels outside it (metal, padding) are kept and counted.
"""

UNSTATED_UNIT = "a.u."
_REMEDY = "Say which range all images share with --intensity LO:HI[:UNIT]."


def parse_intensity(text: str) -> Intensity:
    """Read a declared range such as "0:4095", "-1024:3071:HU" or "0:1:a.u.".

    Args:
        text: "LO:HI" or "LO:HI:UNIT". Without a unit it is "a.u.", which gives way to the unit that the files declare.

    Returns:
        The range, without a display window.

    Raises:
        ConfigError: The text is not of that form, or LO is not below HI.
    """
    parts = text.split(":", 2)
    try:
        lo, hi = float(parts[0]), float(parts[1])
    except (IndexError, ValueError) as error:
        raise ConfigError(
            f"intensity {text!r} is not of the form LO:HI[:UNIT], such as 0:4095 or -1024:3071:HU."
        ) from error
    if not (math.isfinite(lo) and math.isfinite(hi) and lo < hi):
        raise ConfigError(f"intensity {text!r} needs finite numbers with LO below HI.")
    unit = parts[2].strip() if len(parts) == 3 else UNSTATED_UNIT
    if not unit or len(unit) > 16 or not unit.isprintable():
        raise ConfigError(f"the unit in intensity {text!r} must be 1 to 16 printable characters.")
    return Intensity(lo, hi, unit)


def settle_intensity(named_headers: Sequence[tuple[str, ImageHeader]], declared: Intensity | None) -> Intensity:
    """Find the one range of a set from its headers and the user's declaration.

    Args:
        named_headers: File name and header of each image; at least one.
        declared: What the user said; it replaces the stored ranges, and its unit too unless that is "a.u.".

    Returns:
        The set's range in its unit, with the display window that all files share, if they do.

    Raises:
        DataError: The range is ambiguous or the files disagree; the sentence names the files and the remedy.
    """
    _refuse_mixed_depth(named_headers)
    window = _shared_window(header for _, header in named_headers)
    if declared is not None:
        return replace(declared, unit=_declared_unit(named_headers, declared), window=declared.window or window)
    first_name, first = named_headers[0]
    for name, header in named_headers:
        if header.intensity is None:
            raise DataError(
                f"{name}: {header.dtype} pixels do not say which range they use (12 bits in a 16-bit file look the "
                f"same as 16). {_REMEDY}"
            )
        if not _agree(first.intensity, header.intensity):
            raise DataError(
                f"{first_name} ({_show(first.intensity)}) and {name} ({_show(header.intensity)}) use different "
                f"ranges. {_REMEDY}"
            )
    assert first.intensity is not None
    settled = CT_RANGE if first.intensity.unit == CT_RANGE.unit else first.intensity
    return replace(settled, window=window)


def common_intensity(sets: Iterable[ImageSet]) -> Intensity:
    """Find the range that all sets of an audit share.

    Args:
        sets: Image sets; at least one.

    Returns:
        Their range, with the first display window that any of them knows.

    Raises:
        DataError: Two sets use different ranges or units; the sentence names a file of each and the remedy.
    """
    listed = list(sets)
    first = listed[0]
    for other in listed[1:]:
        if (first.intensity.lo, first.intensity.hi, first.intensity.unit) != (
            other.intensity.lo,
            other.intensity.hi,
            other.intensity.unit,
        ):
            raise DataError(
                f"{first.name} ({first.names[0]}: {_show(first.intensity)}) and {other.name} ({other.names[0]}: "
                f"{_show(other.intensity)}) use different ranges. {_REMEDY}"
            )
    window = next((each.intensity.window for each in listed if each.intensity.window), None)
    return replace(first.intensity, window=window)


def _refuse_mixed_depth(named_headers: Sequence[tuple[str, ImageHeader]]) -> None:
    """Eight-bit levels beside deeper pixels share no range that any declaration could state."""
    narrow = wide = None
    for name, header in named_headers:
        if header.intensity is not None and header.intensity.unit == CT_RANGE.unit:
            continue
        if header.dtype == "uint8":
            narrow = narrow or name
        else:
            wide = wide or f"{name} ({header.dtype})"
        if narrow and wide:
            raise DataError(
                f"{narrow} (uint8) and {wide} mix 8-bit and deeper images in one set. Store them all at one depth, or "
                "open them as separate sets."
            )


def _declared_unit(named_headers: Sequence[tuple[str, ImageHeader]], declared: Intensity) -> str:
    stated: dict[str, str] = {}
    for name, header in named_headers:
        if header.intensity is not None:
            stated.setdefault(header.intensity.unit, name)
    if len(stated) > 1:
        (unit_a, name_a), (unit_b, name_b) = list(stated.items())[:2]
        raise DataError(f"{name_a} is in {unit_a} and {name_b} in {unit_b}: open them as separate sets.")
    unit = next(iter(stated), declared.unit)
    if declared.unit in (UNSTATED_UNIT, unit):
        return unit
    if unit not in (UNSTATED_UNIT, "level"):
        raise DataError(
            f"{stated[unit]} is in {unit}, but the declared intensity says {declared.unit}: leave the unit out."
        )
    return declared.unit


def _shared_window(headers: Iterable[ImageHeader]) -> tuple[float, float] | None:
    windows = {header.intensity.window for header in headers if header.intensity is not None}
    return windows.pop() if len(windows) == 1 else None


def _agree(a: Intensity | None, b: Intensity) -> bool:
    assert a is not None
    if a.unit == b.unit == CT_RANGE.unit:
        return True
    return (a.lo, a.hi, a.unit) == (b.lo, b.hi, b.unit)


def _show(intensity: Intensity | None) -> str:
    assert intensity is not None
    return f"{intensity.lo:g}..{intensity.hi:g} {intensity.unit}"
