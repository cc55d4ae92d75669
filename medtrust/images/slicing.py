"""Choose slices of volumes: by axis and step, declared and the same for every set."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from medtrust.errors import ConfigError, DataError, SafetyError
from medtrust.images.imageset import Entry
from medtrust.types import ImageHeader, Limits

__all__ = ["Slices", "choose_slices", "parse_slices"]

_AXES = {"z": "along the stack", "y": "fixed rows", "x": "fixed columns"}
_VOLUMES_HELD = 2


@dataclass(frozen=True, slots=True)
class Slices:
    """Which slices of a volume are looked at.

    Args:
        axis: z keeps slices as they are stacked; y and x cut the stack along a fixed row or column. For axial stacks
            (every NIfTI file is read as one) these are axial, coronal and sagittal slices.
        step: Every step-th slice, beginning with slice step // 2, since the outermost ones show little.
    """

    axis: str
    step: int = 1


def parse_slices(text: str) -> Slices:
    """Read "z:4", "y:8" or "x".

    Raises:
        ConfigError: The text is not of that form.
    """
    axis, _, step = text.partition(":")
    if axis not in _AXES or not (step.isdecimal() or not step) or (step and not 1 <= int(step) <= 100_000):
        raise ConfigError(f"slices {text!r} is not AXIS:STEP with an axis of x, y, z and a step of 1 or more, as z:4.")
    return Slices(axis, int(step or 1))


def choose_slices(entries: Sequence[Entry], slices: Slices, limits: Limits) -> tuple[list[Entry], str]:
    """Replace the slices of each volume by the chosen ones.

    Args:
        entries: Slices in order, volume after volume.
        slices: Which to take.
        limits: Caps; a volume that is cut across is held in memory whole.

    Returns:
        The entries, and a sentence for the report.

    Raises:
        DataError: An image belongs to no volume, or a volume's slices differ in shape or type.
        SafetyError: A volume has more pixels than the limits allow.
    """
    volumes: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        series = entry.header.attributes.get("series")
        if series is None:
            raise DataError(f"{entry.path}: {entry.name} belongs to no volume; leave --slices out, or choose volumes.")
        volumes.setdefault((entry.name.rpartition("/")[0], series), []).append(entry)
    out: list[Entry] = []
    for stack in volumes.values():
        out += (
            _across(stack, slices, limits) if slices.axis != "z" else stack[_first(len(stack), slices) :: slices.step]
        )
    cut = f"{len(out)} slices of {len(volumes)} volumes were taken: axis {slices.axis} ({_AXES[slices.axis]}), "
    scale = "" if slices.axis == "z" else "; their pixels are as wide as a pixel and as high as the distance of slices"
    return out, f"{cut}step {slices.step}{scale}."


def _first(count: int, slices: Slices) -> int:
    return min(slices.step // 2, count - 1)


def _across(stack: list[Entry], slices: Slices, limits: Limits) -> list[Entry]:
    first = stack[0]
    kind = (tuple(first.header.shape), first.header.dtype)
    odd = next((e for e in stack if (tuple(e.header.shape), e.header.dtype) != kind), None)
    if odd is not None:
        raise DataError(
            f"{odd.path}: {odd.name} is {odd.header.dtype} {list(odd.header.shape)} and {first.name}, of the same "
            f"volume, is {first.header.dtype} {list(first.header.shape)}; such a volume can only be sliced along z."
        )
    channels, height, width = first.header.shape
    if len(stack) * height * width > limits.max_pixels:
        raise SafetyError(
            f"{first.path}: a volume of {len(stack)} x {height} x {width} is larger than {limits.max_pixels} pixels; "
            "slice it along z."
        )
    reader = _Across(stack, slices.axis)
    count, across = (height, width) if slices.axis == "y" else (width, height)
    name = first.name.partition("#")[0] if len({e.path for e in stack}) == 1 else first.name
    return [
        replace(
            first,
            name=f"{name}#{slices.axis}{at}",
            header=replace(first.header, shape=(channels, len(stack), across), index=at, spacing_mm=None),
            reader=reader,
        )
        for at in range(_first(count, slices), count, slices.step)
    ]


class _Across:
    """Cuts a stack of slices along a fixed row or column; the head is up where the stack runs from feet to head."""

    _held: ClassVar[OrderedDict[int, npt.NDArray[Any]]] = (
        OrderedDict()
    )  # shared: a set of many volumes holds few at a time
    _lock = threading.Lock()

    def __init__(self, stack: Sequence[Entry], axis: str) -> None:
        self.stack, self.axis = tuple(stack), axis

    def scan(self, path: Path, limits: Limits) -> Sequence[ImageHeader]:
        """List the slices as they are stacked."""
        return [entry.header for entry in self.stack]

    def read(self, path: Path, header: ImageHeader, limits: Limits) -> npt.NDArray[Any]:
        """Cut one slice out of the volume."""
        volume = self._volume(limits)
        plane = volume[:, ::-1, header.index, :] if self.axis == "y" else volume[:, ::-1, :, header.index]
        return np.ascontiguousarray(plane)

    def _volume(self, limits: Limits) -> npt.NDArray[Any]:
        with self._lock:
            volume = self._held.get(id(self))
            if volume is None:
                slices = [entry.reader.read(entry.path, entry.header, limits) for entry in self.stack]
                volume = self._held[id(self)] = np.stack(slices, axis=1)
            self._held.move_to_end(id(self))
            while len(self._held) > _VOLUMES_HELD:
                self._held.popitem(last=False)
            return volume

    def __del__(self) -> None:
        self._held.pop(id(self), None)
