"""What is checked of a DICOM file before its dataset is parsed or a frame is decoded."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from medtrust.errors import DataError, SafetyError
from medtrust.types import Limits
from medtrust_formats.files import check_inflation

__all__ = ["NATIVE", "allowed_syntax", "check_codestream"]

NATIVE = frozenset({ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian})
_ALLOWED = NATIVE | {
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEG2000Lossless,
    JPEG2000,
}
_DICOMDIR = "1.2.840.10008.1.3.10"
_BLOCK = 1024**2
_JP2 = b"\0\0\0\x0cjP  "


def allowed_syntax(path: Path, size: int, limits: Limits) -> UID:
    """Read the file's meta header and refuse what is not on the list of transfer syntaxes.

    Args:
        path: The file.
        size: Its size in bytes.
        limits: Caps for a deflated dataset.

    Returns:
        The transfer syntax.

    Raises:
        DataError: A DICOMDIR, no transfer syntax, or one that is not on the list.
        SafetyError: A deflated dataset that inflates beyond the limits.
    """
    meta = read_file_meta_info(path)
    if meta.get("MediaStorageSOPClassUID") == _DICOMDIR:
        raise DataError(f"{path} is a DICOMDIR, which is never followed; open the folder that holds the images.")
    syntax = meta.get("TransferSyntaxUID")
    if not syntax:
        raise DataError(f"{path} names no transfer syntax, so its pixels cannot be read; convert it to a DICOM file.")
    if syntax not in _ALLOWED:
        raise DataError(
            f"{path} uses the transfer syntax {UID(syntax).name[:80]}, which is not read; decompress it first."
        )
    if syntax == DeflatedExplicitVRLittleEndian:
        _check_deflated(path, size, limits)
    return UID(syntax)


def check_codestream(path: Path, frame: bytes, rows: int, columns: int) -> None:
    """Refuse a JPEG, JPEG-LS or JPEG 2000 frame whose own size is not the one that the header declares.

    Decoders allocate by the codestream, so this is where a small header could hide a large image.

    Raises:
        DataError: A JPEG 2000 frame is wrapped in boxes that lead nowhere.
        SafetyError: The sizes differ.
    """
    _check_boxes(path, frame)
    found = _codestream_size(frame)
    if found is not None and found != (rows, columns):
        raise SafetyError(
            f"{path} declares {rows} x {columns} pixels but holds a compressed frame of {found[0]} x {found[1]}."
        )


def _check_deflated(path: Path, size: int, limits: Limits) -> None:
    """Inflate once and throw away, block by block, before the parser inflates everything at once."""
    with path.open("rb") as file:
        file.seek(132)
        group, element, vr, length = struct.unpack("<HH2sH", file.read(8))
        if (group, element, vr, length) != (2, 0, b"UL", 4):
            raise DataError(f"{path} does not say how long its file meta information is; it may be damaged.")
        (meta_length,) = struct.unpack("<L", file.read(4))
        file.seek(meta_length, 1)
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        total, block = 0, file.read(_BLOCK)
        while block and not inflate.eof:
            total += len(inflate.decompress(block, _BLOCK))
            check_inflation(path, total, size, limits)
            block = inflate.unconsumed_tail or file.read(_BLOCK)


def _check_boxes(path: Path, frame: bytes) -> None:
    """Walk the boxes around a JPEG 2000 codestream before pydicom does, which follows a box of length 0 for ever."""
    if not frame.startswith(_JP2):
        return
    at = len(_JP2) + 4  # the first box is always 12 bytes long
    while at < len(frame):
        length, kind = int.from_bytes(frame[at : at + 4], "big"), frame[at + 4 : at + 8]
        if kind == b"jp2c":
            return
        if length < 8:
            break
        at += length
    raise DataError(f"{path} wraps its JPEG 2000 frame in boxes that hold no codestream; it may be damaged.")


def _codestream_size(frame: bytes) -> tuple[int, int] | None:
    """(rows, columns) of a JPEG 2000 or JPEG codestream, None if the frame holds neither."""
    start = frame.find(b"\xff\x4f\xff\x51") if frame[:2] != b"\xff\xd8" else -1
    if start >= 0 and len(frame) >= start + 24:
        width, height, left, top = struct.unpack(">4L", frame[start + 8 : start + 24])
        return height - top, width - left
    if frame[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        # Start-of-frame markers, JPEG-LS (F7) among them; C4, C8 and CC in their midst mean something else.
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns = struct.unpack(">HH", frame[at + 5 : at + 9])
            return rows, columns
        at += 2 + struct.unpack(">H", frame[at + 2 : at + 4])[0]
    return None
