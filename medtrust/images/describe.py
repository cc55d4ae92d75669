"""The report's data block: what a set holds, without a path or a patient."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from medtrust.images.digests import grouping_digest
from medtrust.types import ImageHeader, Intensity

if TYPE_CHECKING:
    from medtrust.images.imageset import ImageSet

__all__ = ["describe_set"]

_SHAPES_SHOWN = 16


def describe_set(images: ImageSet) -> dict[str, Any]:
    """Sum a set up in plain data for JSON.

    Args:
        images: The set; whatever was not decoded before is decoded for its digest.

    Returns:
        Counts, modality, bit depth, dtype, shapes, declared and stored intensity, spacing, pixels outside the range,
        and `manifest_sha256`, the digest of the pixels and their grouping by patient.
    """
    by_patient: dict[str, list[str]] = defaultdict(list)
    for patient, found in zip(images.patients, images.digests, strict=True):
        by_patient[patient].append(found)
    headers = images.headers
    shapes = sorted({tuple(header.shape) for header in headers})
    outside = images.outside
    return {
        "n_images": len(images),
        "n_patients": len(by_patient),
        "patients_known": images.patients_known,
        "modality": images.modality,
        "bit_depth": _one_or_all([_bit_depth(header) for header in headers]),
        "dtype": _one_or_all([header.dtype for header in headers]),
        "shapes": [list(shape) for shape in shapes[:_SHAPES_SHOWN]],
        "n_shapes": len(shapes),
        "intensity": _plain(images.intensity),
        "stored_intensity": _stored(headers),
        "spacing_mm": _spacing(headers),
        "outside_range": {
            "pixels": sum(outside),
            "images": sum(count > 0 for count in outside),
            "of_pixels": sum(int(np.prod(header.shape)) for header in headers),
        },
        "skipped_files": images.skipped,
        "manifest_sha256": grouping_digest(by_patient),
        "notes": list(images.notes),
    }


def _plain(intensity: Intensity) -> dict[str, Any]:
    window = list(intensity.window) if intensity.window else None
    return {"lo": intensity.lo, "hi": intensity.hi, "unit": intensity.unit, "window": window}


def _stored(headers: tuple[ImageHeader, ...]) -> list[dict[str, Any]]:
    """The ranges that the files themselves declare, each once."""
    ranges = {(h.intensity.lo, h.intensity.hi, h.intensity.unit) for h in headers if h.intensity is not None}
    return [{"lo": lo, "hi": hi, "unit": unit} for lo, hi, unit in sorted(ranges)]


def _bit_depth(header: ImageHeader) -> int:
    return int(header.attributes.get("bits_stored", np.dtype(header.dtype).itemsize * 8))


def _one_or_all(values: list[Any]) -> Any:
    distinct = sorted(set(values))
    return distinct[0] if len(distinct) == 1 else distinct or None


def _spacing(headers: tuple[ImageHeader, ...]) -> dict[str, list[float]] | list[float] | None:
    """One spacing if all files agree, the smallest and largest per axis if not, None where any file names none."""
    spacings = sorted({header.spacing_mm for header in headers if header.spacing_mm is not None})
    if any(header.spacing_mm is None for header in headers) or len({len(spacing) for spacing in spacings}) != 1:
        return None
    if len(spacings) == 1:
        return list(spacings[0])
    table = np.array(spacings)
    return {"lo": table.min(0).tolist(), "hi": table.max(0).tolist()}
