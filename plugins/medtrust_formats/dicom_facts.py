"""What a DICOM header says of one frame: the scale to physical units, the window, the place, the person."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from medtrust.errors import DataError
from medtrust.types import Intensity
from medtrust_formats.levels import LinearScale, integer_scale

__all__ = ["HEADER_TAGS", "FrameFacts", "attributes_of", "frame_facts", "patient_of"]

_PRIVATE_KEYWORDS = (
    "PatientName",
    "PatientID",
    "OtherPatientIDs",
    "PatientBirthDate",
    "AccessionNumber",
    "StudyDate",
    "SeriesDate",
    "AcquisitionDate",
    "ContentDate",
    "ReferringPhysicianName",
    "PerformingPhysicianName",
    "OperatorsName",
    "InstitutionName",
)
_KEYWORDS = (
    *_PRIVATE_KEYWORDS,
    "SOPClassUID",
    "Modality",
    "Units",
    "PatientSex",
    "PatientAge",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "ImagerPixelSpacing",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PlanarConfiguration",
    "PixelPaddingValue",
    "LossyImageCompression",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "ModalityLUTSequence",
    "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor",
    "AlphaPaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData",
    "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)
HEADER_TAGS = [Tag(keyword) for keyword in _KEYWORDS]

_UID = re.compile(r"[0-9.]{1,64}")
_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420", "YBR_PARTIAL_422")
_UNSTATED = ("", "US")
# A scanner that stores all 16 bits says what its integers hold, not what it measures: the range stays open.
_ALL_16_BITS = 2**16 - 1


@dataclass(frozen=True, slots=True)
class FrameFacts:
    """How to turn one stored frame into an image, and where that image lies.

    Args:
        kind: scale (grey), lut (grey through a modality table), palette, colour, or float.
        scale: Stored to physical values; for lut and palette, the range of the table's output.
        inverted: Values are mirrored in their range, because the file shows small values bright.
        intensity: Declared range; None for float pixels, and for 16 stored bits in no physical unit.
        spacing_mm: (rows, columns), None where unknown.
        order: Sort key inside the study.
    """

    kind: str
    scale: LinearScale
    inverted: bool
    intensity: Intensity | None
    spacing_mm: tuple[float, ...] | None
    order: tuple[str | float, ...]

    @property
    def channels(self) -> int:
        """Channels of the decoded image."""
        return 3 if self.kind in ("palette", "colour") else 1


def frame_facts(path: Path, header: Dataset, index: int, float_bits: int = 0) -> FrameFacts:
    """Gather the facts of one frame from the dataset and its functional groups.

    Args:
        path: Named in errors.
        header: Dataset without pixels.
        index: Frame.
        float_bits: 32 or 64 where the file holds float pixels.

    Raises:
        DataError: The header contradicts itself or describes pixels that are not read.
    """
    photometric = str(header.get("PhotometricInterpretation", ""))
    spacing = _numbers(
        _macro(header, index, "PixelMeasuresSequence", "PixelSpacing") or header.get("ImagerPixelSpacing")
    )
    order = _order(header, index)
    place = (tuple(spacing) if len(spacing) == 2 and min(spacing) > 0 else None, order)
    bits, signed = int(header.get("BitsStored", 0)), bool(header.get("PixelRepresentation", 0))
    if float_bits:
        return FrameFacts("float", LinearScale(0, 0), False, None, *place)
    if not 1 <= bits <= int(header.get("BitsAllocated", 0)) <= 32:
        raise DataError(f"{path} declares {bits} stored bits in {header.get('BitsAllocated')} allocated ones.")
    if photometric == "PALETTE COLOR":
        table_bits = int(header["RedPaletteColorLookupTableDescriptor"].value[2])
        return _levels("palette", integer_scale(table_bits, False), place)
    if photometric in _COLOUR:
        if signed:
            raise DataError(f"{path} declares signed colour pixels, which have no agreed meaning.")
        return _levels("colour", integer_scale(bits, False), place)
    if photometric not in _MONOCHROME:
        raise DataError(f"{path} uses the photometric interpretation {photometric[:40]!r}, which is not read.")
    return _grey(path, header, index, integer_scale(bits, signed), photometric == "MONOCHROME1", place)


_Place = tuple[tuple[float, ...] | None, tuple[str | float, ...]]


def _levels(kind: str, scale: LinearScale, place: _Place) -> FrameFacts:
    return FrameFacts(kind, scale, False, Intensity(scale.lo, scale.hi, "level"), *place)


def _grey(
    path: Path, header: Dataset, index: int, stored: LinearScale, shows_small_bright: bool, place: _Place
) -> FrameFacts:
    kind, scale, unit = "scale", stored, "level"
    if header.get("ModalityLUTSequence"):
        table = header.ModalityLUTSequence[0]
        kind, scale = "lut", integer_scale(int(table["LUTDescriptor"].value[2]), False)
        unit = str(table.get("ModalityLUTType", "") or "")
        unit = "a.u." if unit in _UNSTATED else unit
    else:
        slope, intercept, rescale_type = _rescale(header, index)
        if slope is not None:
            if slope == 0 or not np.isfinite([slope, intercept]).all():
                raise DataError(
                    f"{path} declares the rescale slope {slope} and intercept {intercept}, which map nothing."
                )
            scale = LinearScale(stored.stored_lo, stored.stored_hi, slope, intercept)
            unit = _unit(header, rescale_type, (slope, intercept) == (1.0, 0.0))
    window = _window(header, index)
    # In a physical unit MONOCHROME1 only asks for an inverted display; the values mean what they say.
    inverted = shows_small_bright and unit in ("level", "a.u.")
    if inverted and window:
        window = (scale.lo + scale.hi - window[1], scale.lo + scale.hi - window[0])
    intensity: Intensity | None = Intensity(scale.lo, scale.hi, unit, window)
    if kind == "scale" and unit in ("level", "a.u.") and stored.stored_hi - stored.stored_lo >= _ALL_16_BITS:
        intensity = None
    return FrameFacts(kind, scale, inverted, intensity, *place)


def _unit(header: Dataset, rescale_type: str, identity: bool) -> str:
    if rescale_type not in _UNSTATED:
        return rescale_type[:16]
    if header.get("Modality") == "CT":
        return "HU"
    if header.get("Units"):
        return str(header.Units)[:16]
    return "level" if identity else "a.u."


def patient_of(path: Path, header: Dataset) -> str | None:
    """The patient's identifier; the study's where the file was stripped of it.

    Raises:
        DataError: The study identifier is not a DICOM UID.
    """
    patient = str(header.get("PatientID", "") or "").strip()
    study = str(header.get("StudyInstanceUID", "") or "").strip()
    if study and not _UID.fullmatch(study):
        raise DataError(f"{path} has a study identifier that is no DICOM UID; repair the header.")
    return sys.intern(patient or study) or None


def attributes_of(header: Dataset) -> Mapping[str, str]:
    """Further facts, among them, under `phi.`, the values that must never leave."""
    found: dict[str, str] = {}
    for key, keyword in (("series", "SeriesInstanceUID"), ("sex", "PatientSex"), ("age", "PatientAge")):
        if header.get(keyword):
            found[key] = sys.intern(str(header.get(keyword)))
    found["photometric"] = sys.intern(str(header.get("PhotometricInterpretation", "")))
    found["bits_stored"] = str(header.get("BitsStored", "") or header.get("BitsAllocated", ""))
    if str(header.get("LossyImageCompression", "")) == "01":
        found["lossy"] = "yes"
    if isinstance(header.get("PixelPaddingValue"), int):
        found["stored_padding"] = str(header.PixelPaddingValue)
    for keyword in _PRIVATE_KEYWORDS:
        value = str(header.get(keyword, "") or "").strip()
        if value:
            found[f"phi.{keyword}"] = sys.intern(value)
    return {key: value for key, value in found.items() if value}


def _macro(header: Dataset, index: int, sequence: str, keyword: str) -> Any:
    """Look a value up in the frame's functional group, the shared one, and the dataset, in this order."""
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = header.get("SharedFunctionalGroupsSequence") or []
    for group in (*per_frame[index : index + 1], *shared[:1]):
        items = group.get(sequence)
        if items and keyword in items[0]:
            return items[0].get(keyword)
    return header.get(keyword)


def _rescale(header: Dataset, index: int) -> tuple[float | None, float, str]:
    name = "PixelValueTransformationSequence"
    slope, intercept = (_macro(header, index, name, keyword) for keyword in ("RescaleSlope", "RescaleIntercept"))
    if slope is None and intercept is None:
        return None, 0.0, ""
    rescale_type = str(_macro(header, index, name, "RescaleType") or "").strip()
    return float(1.0 if slope is None else slope), float(intercept or 0.0), rescale_type


def _window(header: Dataset, index: int) -> tuple[float, float] | None:
    """The first VOI window as (lo, hi) in physical units, by PS3.3 C.11.2.1.2 for linear functions."""
    centres = _numbers(_macro(header, index, "FrameVOILUTSequence", "WindowCenter"))
    widths = _numbers(_macro(header, index, "FrameVOILUTSequence", "WindowWidth"))
    if not centres or not widths or widths[0] < 1:
        return None
    function = str(_macro(header, index, "FrameVOILUTSequence", "VOILUTFunction") or "LINEAR")
    centre, width = (centres[0] - 0.5, widths[0] - 1) if function == "LINEAR" else (centres[0], widths[0])
    return centre - width / 2, centre + width / 2


def _order(header: Dataset, index: int) -> tuple[str | float, ...]:
    """Series, then position along the slice normal, then instance number and frame."""
    series = sys.intern(str(header.get("SeriesInstanceUID", "")))
    place = _numbers(_macro(header, index, "PlanePositionSequence", "ImagePositionPatient"))
    turn = _numbers(_macro(header, index, "PlaneOrientationSequence", "ImageOrientationPatient"))
    along = 0.0
    if len(place) == 3 and len(turn) == 6:
        along = float(np.dot(np.cross(turn[:3], turn[3:]), place))
    number = _numbers(header.get("InstanceNumber"))
    return series, along, number[0] if number else 0.0, float(index)


def _numbers(value: Any) -> list[float]:
    """Finite numbers of a DICOM value of any multiplicity."""
    if value is None or value == "":
        return []
    values = value if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
    numbers = [float(each) for each in values if each not in (None, "")]
    return numbers if np.isfinite(numbers).all() else []
