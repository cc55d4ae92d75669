"""From what a stranger's network puts out to pixels in a declared unit, with a count of what did not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from medtrust.errors import ConfigError
from medtrust.images import parse_intensity
from medtrust.types import ConditionSpec, ImageSpec, Intensity
from medtrust_generators.options import Options

__all__ = ["VALUE_OPTIONS", "Values", "class_labels", "lengths"]

VALUE_OPTIONS: Mapping[str, str | int | float] = {"output": "", "range": "", "dtype": "", "spacing": "", "modality": ""}
_DTYPES = ("uint8", "uint16", "int16", "float32")


@dataclass(frozen=True, slots=True)
class Values:
    """A linear map from the network's output to pixels.

    Args:
        output: What the network's smallest and largest output are, such as (-1, 1).
        intensity: What they become, in its unit.
        dtype: numpy name of the pixels.
        spacing: Declared pixel spacing in mm, slowest axis first.
        modality: Declared DICOM modality code.
    """

    output: tuple[float, float]
    intensity: Intensity
    dtype: str
    spacing: tuple[float, ...] | None = None
    modality: str | None = None

    @classmethod
    def of(cls, options: Options, *, output: str = "", range: str = "") -> Values:
        """Read the options that every adapter shares.

        Args:
            options: With `output=LO:HI`, `range=LO:HI[:UNIT]`, `dtype`, `spacing=A,B` (mm) and `modality`.
            output: What the artefact itself says; the option overrules it.
            range: Likewise.

        Raises:
            ConfigError: Neither says what the output spans, or an option is wrong.
        """
        said = str(options.values["output"]) or output
        if not said:
            raise ConfigError(
                f"nothing says which numbers the output of this {options.kind} artefact spans, and guessing would "
                f"damage the images: add the option output=LO:HI, such as {options.kind}:FILE?output=-1:1"
            )
        span = parse_intensity(said)
        wanted = parse_intensity(str(options.values["range"]) or range or "0:255:level")
        levels = (wanted.lo, wanted.hi, wanted.unit) == (0.0, 255.0, "level")
        dtype = str(options.values["dtype"]) or ("uint8" if levels else "float32")
        if dtype not in _DTYPES:
            raise ConfigError(f"option dtype={dtype} of generator {options.kind} must be one of {', '.join(_DTYPES)}")
        kept = np.iinfo(dtype) if dtype != "float32" else None
        if kept is not None and not kept.min <= wanted.lo <= wanted.hi <= kept.max:
            raise ConfigError(f"dtype {dtype} cannot hold the range {wanted.lo:g}..{wanted.hi:g}; use dtype=float32")
        spacing = _numbers(str(options.values["spacing"]), options.kind)
        return cls((span.lo, span.hi), wanted, dtype, spacing, str(options.values["modality"]) or None)

    def spec(self, shape: tuple[int, ...]) -> ImageSpec:
        """Declare images of one shape [C, H, W]."""
        i = self.intensity
        return ImageSpec(tuple(shape), self.dtype, (i.lo, i.hi), i.unit, None, self.spacing, self.modality)

    def pixels(self, output: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Map outputs [N, C, H, W] to pixels of the same shape.

        Returns:
            Pixels, clipped to the range and rounded where the dtype is whole; and per image the share of pixels that
            lay outside by more than a thousandth of the range.
        """
        lo, hi = self.output
        share = (np.asarray(output, np.float64) - lo) / (hi - lo)
        outside = ((share < -1e-3) | (share > 1 + 1e-3)).mean(axis=(1, 2, 3))
        values = self.intensity.lo + share.clip(0, 1) * (self.intensity.hi - self.intensity.lo)
        return (values if self.dtype == "float32" else values.round()).astype(self.dtype), outside


def _numbers(text: str, kind: str) -> tuple[float, ...] | None:
    try:
        return tuple(float(part) for part in text.split(",")) if text else None
    except ValueError:
        raise ConfigError(f"option spacing={text} of generator {kind} must be numbers such as 0.7,0.7") from None


def lengths(text: str, kind: str, name: str) -> tuple[int, ...]:
    """Read a shape such as "128" or "4x8x8".

    Raises:
        ConfigError: It is none.
    """
    try:
        found = tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        found = ()
    if not found or min(found) < 1 or np.prod(found, dtype=object) > 2**28:
        raise ConfigError(f"option {name}={text} of generator {kind} must be a shape such as 128 or 4x8x8")
    return found


def class_labels(options: Options) -> ConditionSpec:
    """Read the option `classes`: a number of classes such as 10, or their names such as benign,malignant.

    Raises:
        ConfigError: Fewer than two, or one twice.
    """
    text = str(options.values["classes"])
    if not text:
        return ConditionSpec()
    names = tuple(map(str, range(int(text)))) if text.isdigit() else tuple(text.split(","))
    if len(set(names)) < 2 or len(set(names)) != len(names) or len(names) > 100_000:
        raise ConfigError(f"option classes={text} of generator {options.kind} must name at least two different classes")
    return ConditionSpec("label", names)
