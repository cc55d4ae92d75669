"""From pixels in a physical unit to what a network reads, by a declared mapping and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from medtrust.errors import DataError
from medtrust.types import Intensity
from medtrust_features.planes import BLUE, GREEN, RED

__all__ = ["Preparation", "Resize"]

Resize = Literal["bilinear", "bicubic", "nearest", "area"]


@dataclass(frozen=True, slots=True)
class Preparation:
    """How images are brought to a network.

    The source range is mapped linearly to `lo` … `hi` in float32, never through 8 bits and never by an image's own
    extremes; then channels are matched, the image is resized, and (value - mean) / std is taken per channel.

    Args:
        size: (height, width) that the network reads.
        channels: 3 repeats a grey image, 1 takes the BT.601 luma of a colour image.
        lo: What the lower end of the source range becomes.
        hi: What its upper end becomes.
        mean: Per channel, in units of lo … hi.
        std: Per channel, in units of lo … hi.
        resize: Method of interpolation, with half-pixel centres.
        antialias: Low-pass before shrinking (bilinear and bicubic only).
        source: Range of pixel values to map, in `unit`, clipped at its ends; None takes the set's declared range,
            unclipped.
        unit: Unit that `source` is in.

    Raises:
        ValueError: The fields do not fit together.
    """

    size: tuple[int, int]
    channels: int = 3
    lo: float = 0.0
    hi: float = 1.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    resize: Resize = "bilinear"
    antialias: bool = False
    source: tuple[float, float] | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        if self.channels not in (1, 3) or len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError("channels must be 1 or 3, with one mean and one std for each")
        if min(self.size) < 1 or not self.lo < self.hi or min(self.std) <= 0:
            raise ValueError("size must be positive, lo below hi, and every std above 0")
        if self.resize not in get_args(Resize):
            raise ValueError(f"resize must be one of {', '.join(get_args(Resize))}, it is {self.resize!r}")
        if self.antialias and self.resize not in ("bilinear", "bicubic"):
            raise ValueError(f"antialias goes with bilinear and bicubic, not with {self.resize}")
        if self.source is not None and not (self.source[0] < self.source[1] and self.unit):
            raise ValueError("source needs its lower end below its upper end, and a unit")

    def apply(self, images: torch.Tensor, intensity: Intensity, space: str) -> torch.Tensor:
        """Prepare a batch.

        Args:
            images: [N, C, H, W], any real dtype, in the unit of `intensity`; C is 1 or 3.
            intensity: Declared range.
            space: Feature space, for errors.

        Returns:
            [N, channels, height, width] float32.

        Raises:
            DataError: Another shape, an empty declared range, or another unit than `source` is in.
        """
        if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
            raise DataError(
                f"{space} reads images [N, C, H, W] with 1 or 3 channels and at least one pixel, got "
                f"{list(images.shape)}; choose one channel, or another feature space"
            )
        lo, hi = self._source(intensity, space)
        unit = (images.double() - lo) / (hi - lo)
        if self.source is not None:
            unit = unit.clamp(0, 1)
        unit = unit.float()
        if self.channels == 1 and unit.shape[1] == 3:
            unit = (RED * unit[:, :1]) + (GREEN * unit[:, 1:2]) + (BLUE * unit[:, 2:])
        unit = unit.expand(-1, self.channels, -1, -1)
        if tuple(unit.shape[2:]) != self.size:
            unit = self._resized(unit)
        mapped = unit * (self.hi - self.lo) + self.lo
        if any(self.mean) or any(value != 1 for value in self.std):
            mean = torch.tensor(self.mean, dtype=torch.float32, device=mapped.device)[:, None, None]
            mapped = (mapped - mean) / torch.tensor(self.std, dtype=torch.float32, device=mapped.device)[:, None, None]
        return mapped

    def _source(self, intensity: Intensity, space: str) -> tuple[float, float]:
        if not intensity.hi > intensity.lo:
            raise DataError(f"the declared range {intensity.lo} to {intensity.hi} is empty: declare the true one")
        if self.source is None:
            return intensity.lo, intensity.hi
        if intensity.unit != self.unit:
            raise DataError(
                f"{space} maps {self.source[0]:g} to {self.source[1]:g} {self.unit}, and the images are in "
                f"{intensity.unit}; give it a card in {intensity.unit}, or one without `source`"
            )
        return self.source

    def _resized(self, unit: torch.Tensor) -> torch.Tensor:
        if self.resize in ("nearest", "area"):
            mode = "nearest-exact" if self.resize == "nearest" else "area"
            return torch.nn.functional.interpolate(unit, size=self.size, mode=mode)
        return torch.nn.functional.interpolate(
            unit, size=self.size, mode=self.resize, align_corners=False, antialias=self.antialias
        )

    def describe(self) -> str:
        """Say in one line what happens to a pixel, for the report."""
        source = "declared range" if self.source is None else f"{self.source[0]:g} to {self.source[1]:g} {self.unit}"
        clipped = "unclipped" if self.source is None else "clipped"
        smooth = " with antialias" if self.antialias else ""
        parts = [f"{source} to {self.lo:g} … {self.hi:g}, {clipped}, float32"]
        parts.append("grey repeated to 3 channels" if self.channels == 3 else "colour to luma")
        parts.append(f"{self.resize}{smooth} to {self.size[0]} x {self.size[1]}")
        if any(self.mean) or any(value != 1 for value in self.std):
            parts.append(f"minus {_list(self.mean)}, divided by {_list(self.std)}")
        return "; ".join(parts)


def _list(values: tuple[float, ...]) -> str:
    short = values[:1] if len(set(values)) == 1 else values
    return ", ".join(f"{value:.6g}" for value in short)
