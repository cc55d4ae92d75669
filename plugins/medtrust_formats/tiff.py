"""TIFF: each full-resolution page is one image, with all its levels.

Lossless compression only. The codecs fill a buffer of the size that the page declares and stop there, so a strip that
would inflate beyond its pixels is an error and not an allocation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tifffile import COMPRESSION, PHOTOMETRIC, TiffFile, TiffPage

from medtrust.errors import DataError, SafetyError
from medtrust.types import ImageHeader, Intensity, Limits
from medtrust_formats.files import check_file, check_pixels, drop_opaque_alpha, parsing

__all__ = ["TiffReader"]

_LEVELS = Intensity(0.0, 255.0, "level")
_LOSSLESS = frozenset(
    {COMPRESSION.NONE, COMPRESSION.LZW, COMPRESSION.PACKBITS, COMPRESSION.ADOBE_DEFLATE, COMPRESSION.DEFLATE}
)
_GREY = frozenset({PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK})
_DEPTHS = frozenset({"uint8", "uint16", "int16", "int32", "uint32", "float16", "float32", "float64"})
_REDUCED_RESOLUTION = 1


class TiffReader:
    """Reads TIFF and BigTIFF. A file of several pages is a stack: unknown, its patient is one."""

    def scan(self, path: Path, limits: Limits) -> Sequence[ImageHeader]:
        """List the full-resolution pages of a file."""
        check_file(path, limits)
        with parsing(path, "TIFF"), TiffFile(path) as file:
            found = [(index, _shape(path, page, limits), _dtype(page)) for index, page in _pages(path, file, limits)]
            attributes: Mapping[str, str] = {"series": path.name} if len(found) > 1 else {}
            return [
                ImageHeader(shape, dtype, index, intensity=_LEVELS if dtype == "uint8" else None, attributes=attributes)
                for index, shape, dtype in found
            ]

    def read(self, path: Path, header: ImageHeader, limits: Limits) -> npt.NDArray[Any]:
        """Decode one page to [C, H, W]."""
        check_file(path, limits)
        with parsing(path, "TIFF"), TiffFile(path) as file:
            page = _page(file, header.index)
            _shape(path, page, limits)
            pixels = _channels_first(path, page, page.asarray(maxworkers=1))
            if pixels.shape != tuple(header.shape) or pixels.dtype.name != header.dtype:
                raise DataError(f"{path} decodes to {pixels.dtype} {list(pixels.shape)}, not to what its header says.")
            return pixels


def _pages(path: Path, file: TiffFile, limits: Limits) -> Iterator[tuple[int, TiffPage]]:
    index = 0
    while True:
        try:
            page = _page(file, index)
        except IndexError:
            return
        if index >= limits.max_frames:
            raise SafetyError(f"{path} holds more than {limits.max_frames} pages, which is the limit.")
        if not int(page.subfiletype) & _REDUCED_RESOLUTION:
            yield index, page
        index += 1


def _page(file: TiffFile, index: int) -> TiffPage:
    page = file.pages[index]
    assert isinstance(page, TiffPage)
    return page


def _dtype(page: TiffPage) -> str:
    """Type of the decoded image: bits become 0 and 255, palettes 8-bit colours."""
    if page.bitspersample == 1 or page.photometric == PHOTOMETRIC.PALETTE:
        return "uint8"
    return str(np.dtype(page.dtype).newbyteorder("=").name) if page.dtype is not None else ""


def _shape(path: Path, page: TiffPage, limits: Limits) -> tuple[int, int, int]:
    """Check that a page is of a kind that is read; return [C, H, W]."""
    check_pixels(path, page.imagelength, page.imagewidth, limits)
    colours = page.samplesperpixel - len(page.extrasamples)
    fits = (
        (page.photometric in _GREY and colours == 1)
        or (page.photometric == PHOTOMETRIC.RGB and colours == 3)
        or (page.photometric == PHOTOMETRIC.PALETTE and page.bitspersample == 8 and page.samplesperpixel == 1)
    )
    problem = None
    if page.imagedepth > 1:
        problem = "holds a volume in one page"
    elif page.compression not in _LOSSLESS:
        problem = f"is compressed as {_name(COMPRESSION, page.compression)}"
    elif not fits or len(page.extrasamples) > 1:
        problem = f"holds {page.samplesperpixel} samples per pixel as {_name(PHOTOMETRIC, page.photometric)}"
    elif _dtype(page) not in _DEPTHS:
        problem = f"holds {page.bitspersample}-bit samples"
    if problem:
        raise DataError(f"{path} {problem}, which is not read; store it as grey or RGB, uncompressed or deflated.")
    return 3 if page.photometric == PHOTOMETRIC.PALETTE else colours, page.imagelength, page.imagewidth


def _name(kind: Any, value: int) -> str:
    try:
        return str(kind(value).name)
    except ValueError:
        return f"number {value}"


def _channels_first(path: Path, page: TiffPage, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Turn what the page stores into levels [C, H, W]."""
    if page.photometric == PHOTOMETRIC.PALETTE:
        colours = (np.asarray(page.colormap) >> 8).astype(np.uint8)  # [3, 256], 16 bits per entry by the standard
        return np.ascontiguousarray(colours[:, pixels])
    if page.bitspersample == 1:
        pixels = pixels.astype(np.uint8) * 255
    stacked = pixels[None] if pixels.ndim == 2 else pixels
    planes = stacked if pixels.ndim == 2 or page.planarconfig == 2 else stacked.transpose(2, 0, 1)
    if page.extrasamples:
        if planes.dtype.kind != "u":
            raise DataError(f"{path} holds an extra channel of {planes.dtype}; store the image channels alone.")
        planes = drop_opaque_alpha(path, planes[:-1], planes[-1])
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        if planes.dtype.kind != "u":
            raise DataError(
                f"{path} shows small {planes.dtype} values bright, without an agreed inverse; store it min-is-black."
            )
        planes = np.iinfo(planes.dtype).max - planes
    return np.ascontiguousarray(planes, dtype=planes.dtype.newbyteorder("="))
