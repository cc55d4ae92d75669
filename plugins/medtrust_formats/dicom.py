"""DICOM: every frame in its physical unit, decoded one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, RLELossless

from medtrust.errors import DataError
from medtrust.types import ImageHeader, Limits
from medtrust_formats.dicom_facts import HEADER_TAGS, FrameFacts, attributes_of, frame_facts, patient_of
from medtrust_formats.dicom_safety import NATIVE, allowed_syntax, check_codestream
from medtrust_formats.files import check_file, check_pixels, parsing

__all__ = ["DicomReader"]

# Objects that travel in a study beside its images: contours, doses, reports, and masks drawn on the images.
NOT_IMAGES = frozenset(
    {"AU", "DOC", "ECG", "FID", "KO", "PLAN", "PR", "REG", "RTDOSE", "RTPLAN", "RTRECORD", "RTSTRUCT", "SEG", "SR"}
)
_FLOAT_PIXELS = {0x7FE00008: 32, 0x7FE00009: 64}
_PIXELS = 0x7FE00010


class DicomReader:
    """Reads DICOM files; segmentations, doses, structure sets and reports hold no image and give an empty list.

    Grey values are stored values through the modality table or rescale slope and intercept: HU for CT. MONOCHROME1 is
    mirrored in its range, unless the values are in a physical unit. Palettes and YBR become RGB.
    """

    def scan(self, path: Path, limits: Limits) -> Sequence[ImageHeader]:
        """List the frames of a file from its header."""
        size = check_file(path, limits)
        with parsing(path, "DICOM"):
            syntax = allowed_syntax(path, size, limits)
            with path.open("rb") as file:
                header, tag = _read_header(file, syntax)
                body = file.tell()
            if str(header.get("Modality", "")) in NOT_IMAGES:
                return ()
            if "Rows" not in header or "Columns" not in header or tag not in (*_FLOAT_PIXELS, _PIXELS):
                raise DataError(f"{path} holds no pixels; it may be cut short, or no image at all.")
            rows, columns, frames = int(header.Rows), int(header.Columns), _frames(header)
            check_pixels(path, rows, columns, limits, frames)
            if syntax in NATIVE and body + _native_length(header, frames) > size:
                raise DataError(f"{path} is cut short: it declares more pixels than it holds.")
            attributes, patient = attributes_of(header), patient_of(path, header)
            modality = str(header.get("Modality", "")) or None
            return [
                _image_header(facts, rows, columns, index, patient, modality, attributes, _FLOAT_PIXELS.get(tag, 0))
                for index in range(frames)
                for facts in (frame_facts(path, header, index, _FLOAT_PIXELS.get(tag, 0)),)
            ]

    def read(self, path: Path, header: ImageHeader, limits: Limits) -> npt.NDArray[Any]:
        """Decode one frame to [C, H, W] in physical units."""
        size = check_file(path, limits)
        with parsing(path, "DICOM"):
            syntax = allowed_syntax(path, size, limits)
            with path.open("rb") as file:
                dataset, tag = _read_header(file, syntax)
                rows, columns, frames = int(dataset.Rows), int(dataset.Columns), _frames(dataset)
                check_pixels(path, rows, columns, limits, frames)
                if syntax.is_encapsulated and syntax != RLELossless:
                    check_codestream(path, _frame_bytes(file, dataset, header.index, frames), rows, columns)
                source = dcmread(path) if syntax == DeflatedExplicitVRLittleEndian else file
                stored = pixel_array(source, index=header.index)
            facts = frame_facts(path, dataset, header.index, _FLOAT_PIXELS.get(tag, 0))
            return _to_physical(stored, facts, dataset)


def _read_header(file: BinaryIO, syntax: UID) -> tuple[Dataset, int]:
    """Read the dataset up to its pixels; returns the tag that follows, and leaves the file at that element's value."""
    dataset = dcmread(file, stop_before_pixels=syntax != DeflatedExplicitVRLittleEndian, specific_tags=_tags(syntax))
    if syntax == DeflatedExplicitVRLittleEndian:
        # What was inflated is in memory already: the file's own position says nothing.
        return dataset, next((tag for tag in (*_FLOAT_PIXELS, _PIXELS) if tag in dataset), 0)
    start = file.read(4)
    if len(start) < 4:
        return dataset, 0
    order: Literal["little", "big"] = "little" if syntax.is_little_endian else "big"
    file.read(4 if syntax.is_implicit_VR else 8)
    return dataset, int.from_bytes(start[:2], order) << 16 | int.from_bytes(start[2:], order)


def _tags(syntax: UID) -> list[Any]:
    return [*HEADER_TAGS, *_FLOAT_PIXELS, _PIXELS] if syntax == DeflatedExplicitVRLittleEndian else HEADER_TAGS


def _frames(header: Dataset) -> int:
    return int(header.get("NumberOfFrames", 1) or 1)


def _native_length(header: Dataset, frames: int) -> int:
    """Bytes of uncompressed pixels; 4:2:2 colour stores two samples of three."""
    samples = 2 if header.get("PhotometricInterpretation") == "YBR_FULL_422" else int(header.get("SamplesPerPixel", 1))
    bits = int(header.get("BitsAllocated", 8)) * samples
    return (int(header.Rows) * int(header.Columns) * frames * bits + 7) // 8


def _frame_bytes(file: BinaryIO, dataset: Dataset, index: int, frames: int) -> bytes:
    """The compressed bytes of one frame; the file stands at the value of its pixel data."""
    extended = None
    if "ExtendedOffsetTable" in dataset:
        extended = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
    return get_frame(file, index, number_of_frames=frames, extended_offsets=extended)


def _image_header(
    facts: FrameFacts,
    rows: int,
    columns: int,
    index: int,
    patient: str | None,
    modality: str | None,
    attributes: Any,
    float_bits: int,
) -> ImageHeader:
    return ImageHeader(
        (facts.channels, rows, columns),
        f"float{float_bits}" if float_bits else facts.scale.dtype,
        index=index,
        intensity=facts.intensity,
        patient=patient,
        modality=modality,
        spacing_mm=facts.spacing_mm,
        attributes=attributes,
        order=facts.order,
    )


def _to_physical(stored: npt.NDArray[Any], facts: FrameFacts, dataset: Dataset) -> npt.NDArray[Any]:
    """Apply the table or scale, mirror if asked, and put channels first."""
    if facts.kind == "float":
        return np.ascontiguousarray(stored[None])
    if facts.kind == "palette":
        values = apply_color_lut(stored, dataset)[..., :3].astype(facts.scale.dtype)
    elif facts.kind == "lut":
        values = apply_modality_lut(stored, dataset).astype(facts.scale.dtype)
    else:
        values = facts.scale.apply(stored)
    if facts.inverted:
        values = (facts.scale.lo + facts.scale.hi - values.astype(np.float64)).astype(values.dtype)
    return np.ascontiguousarray(values.transpose(2, 0, 1) if facts.channels == 3 else values[None])
