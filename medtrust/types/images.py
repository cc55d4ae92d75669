"""Images: what pixel values mean, what a file says of an image, and who reads files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np

__all__ = ["ImageHeader", "ImageReader", "ImageRecord", "Intensity", "Limits", "SetName"]

SetName = Literal["train", "holdout", "synthetic"]


@dataclass(frozen=True, slots=True)
class Intensity:
    """What pixel values mean: the declared physical range, its unit, and the display window if one is known.

    Args:
        lo: Smallest value that the acquisition can produce, in `unit`.
        hi: Largest value that the acquisition can produce, in `unit`.
        unit: "HU" for CT, "level" for grey or colour levels of a stored image, "a.u." otherwise.
        window: Display window (lo, hi) in `unit`; None where the file names none.
    """

    lo: float
    hi: float
    unit: str
    window: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps that a reader enforces before it allocates anything."""

    max_file_bytes: int = 2 * 1024**3
    max_pixels: int = 256 * 1024**2
    max_frames: int = 20_000
    max_inflate_ratio: float = 200.0
    max_inflated_bytes: int = 4 * 1024**3


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What a file says of one of its images before any pixel is decoded.

    Args:
        shape: [C, H, W], or [C, D, H, W] for a volume kept whole.
        dtype: numpy name of the pixel type that `ImageReader.read` returns: uint8, uint16, int16, float32 …
        index: Which image of the file (frame, slice, row).
        intensity: Declared range; None when the file leaves it open, so that the user must say.
        patient: Patient identifier as stored in the file; None where the file names none.
        modality: DICOM modality code (CT, MR, DX …) or None.
        spacing_mm: Pixel spacing, slowest axis first; None where unknown.
        attributes: Any further facts by name (label, site, sex, age, series …).
        order: Sort key inside one series, such as the position along the slice normal.
    """

    shape: tuple[int, ...]
    dtype: str
    index: int = 0
    intensity: Intensity | None = None
    patient: str | None = None
    modality: str | None = None
    spacing_mm: tuple[float, ...] | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    order: tuple[str | float, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One decoded image with everything that is known of it.

    Args:
        pixels: [C, H, W] in the declared unit; never rescaled, clipped or cast to fewer bits.
        name: Stable name inside its set: the path below the set's root, and `#index` where a file holds several.
        patient: Statistical unit this image belongs to.
        header: What the file declared.
        digest: SHA-256 of the canonical pixels, hexadecimal.
    """

    pixels: np.ndarray[Any, Any]
    name: str
    patient: str
    header: ImageHeader
    digest: str


@runtime_checkable
class ImageReader(Protocol):
    """What a file-format plugin provides; `FormatSpec.factory` returns one."""

    def scan(self, path: Path, limits: Limits) -> Sequence[ImageHeader]:
        """List the images of a file from its headers, without decoding pixels.

        Raises:
            DataError: The file is not readable as this format.
            SafetyError: The file exceeds `limits`.
        """
        ...

    def read(self, path: Path, header: ImageHeader, limits: Limits) -> np.ndarray[Any, Any]:
        """Decode one image to `header.shape`, in the unit of `header.intensity`, without losing a level."""
        ...
