"""TIFF: each full-resolution page is one image, with all its levels.

tifffile decodes what numpy can (uncompressed, deflate, PackBits); Pillow decodes LZW and JPEG where it keeps every
level, which is 8-bit grey and colour and 16-bit grey. Anything else is refused rather than decoded with loss.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from tifffile import COMPRESSION, PHOTOMETRIC, TiffFile, TiffPage

from medtrust.errors import DataError, SafetyError
from medtrust.types import ImageHeader, Intensity, Limits
from medtrust_formats.files import check_file, check_pixels, drop_opaque_alpha, parsing

__all__ = ["TiffReader"]

_LEVELS = Intensity(0.0, 255.0, "level")
_DEFLATE = frozenset({COMPRESSION.ADOBE_DEFLATE, COMPRESSION.DEFLATE})
_BY_TIFFFILE = _DEFLATE | {COMPRESSION.NONE, COMPRESSION.PACKBITS}
_BY_PILLOW = frozenset({COMPRESSION.LZW, COMPRESSION.JPEG})
_DEPTHS = ("uint8", "uint16", "int16", "int32", "uint32", "float16", "float32", "float64")
_REDUCED_RESOLUTION = 1


class TiffReader:
    """Reads TIFF and BigTIFF. A file of several pages is a stack: unknown, its patient is one."""

    def scan(self, path: Path, limits: Limits) -> Sequence[ImageHeader]:
        """List the full-resolution pages of a file."""
        check_file(path, limits)
        with parsing(path, "TIFF"), TiffFile(path) as file:
            found = [(index, _shape(path, page, limits), page) for index, page in _pages(path, file, limits)]
            attributes: Mapping[str, str] = {"series": path.name} if len(found) > 1 else {}
            return [
                ImageHeader(
                    shape,
                    _dtype(page),
                    index=index,
                    intensity=_LEVELS if _dtype(page) == "uint8" else None,
                    attributes=attributes,
                )
                for index, shape, page in found
            ]

    def read(self, path: Path, header: ImageHeader, limits: Limits) -> npt.NDArray[Any]:
        """Decode one page to [C, H, W]."""
        check_file(path, limits)
        with parsing(path, "TIFF"), TiffFile(path) as file:
            page = _page(file, header.index)
            _shape(path, page, limits)
            if page.compression in _BY_PILLOW or page.photometric == PHOTOMETRIC.PALETTE or page.bitspersample == 1:
                return _by_pillow(path, header.index)
            if page.compression in _DEFLATE:
                _check_segments(path, file, page)
            pixels = page.asarray()
            if page.photometric == PHOTOMETRIC.MINISWHITE:
                pixels = np.iinfo(pixels.dtype).max - pixels
            return _channels_first(path, page, pixels)


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
    return "uint8" if page.bitspersample == 1 or page.photometric == PHOTOMETRIC.PALETTE else np.dtype(page.dtype).name


def _shape(path: Path, page: TiffPage, limits: Limits) -> tuple[int, int, int]:
    """Check that a page is of a kind that can be decoded without loss; return [C, H, W]."""
    check_pixels(path, page.imagelength, page.imagewidth, limits)
    colours = page.samplesperpixel - len(page.extrasamples)
    problem = None
    if page.imagedepth > 1:
        problem = "holds a volume in one page"
    elif page.compression not in _BY_TIFFFILE | _BY_PILLOW:
        problem = f"is compressed as {COMPRESSION(page.compression).name}"
    elif page.photometric == PHOTOMETRIC.PALETTE and page.bitspersample != 8:
        problem = f"holds a palette of {page.bitspersample} bits"
    elif colours not in (1, 3) or len(page.extrasamples) > 1:
        problem = f"holds {page.samplesperpixel} samples per pixel"
    elif page.photometric not in (0, 1, 2, 3) and page.compression != COMPRESSION.JPEG:
        problem = f"uses the photometric interpretation {PHOTOMETRIC(page.photometric).name}"
    elif page.bitspersample != 1 and (page.dtype is None or np.dtype(page.dtype).name not in _DEPTHS):
        problem = f"holds {page.bitspersample}-bit samples"
    elif page.compression in _BY_PILLOW and not (
        _dtype(page) == "uint8" or (_dtype(page) == "uint16" and colours == 1)
    ):
        problem = f"holds {COMPRESSION(page.compression).name}-compressed {_dtype(page)} colour"
    if problem:
        raise DataError(
            f"{path} {problem}, which is not read without loss; store it uncompressed or deflated, grey or RGB."
        )
    return (3 if page.photometric == PHOTOMETRIC.PALETTE else colours, page.imagelength, page.imagewidth)


def _check_segments(path: Path, file: TiffFile, page: TiffPage) -> None:
    """Refuse a deflated strip or tile that inflates beyond the pixels it stands for."""
    if page.is_tiled:
        pixels = page.tilewidth * page.tilelength
    else:
        pixels = page.imagewidth * min(page.rowsperstrip or page.imagelength, page.imagelength)
    samples = page.samplesperpixel if page.planarconfig == 1 else 1
    assert page.dtype is not None
    allowed = pixels * samples * np.dtype(page.dtype).itemsize
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        file.filehandle.seek(offset)
        if len(zlib.decompressobj().decompress(file.filehandle.read(count), allowed + 1)) > allowed:
            raise SafetyError(f"{path} holds a strip that inflates beyond its pixels; refused as a bomb.")


def _channels_first(path: Path, page: TiffPage, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    stacked = pixels[None] if pixels.ndim == 2 else pixels
    planes = stacked if pixels.ndim == 2 or page.planarconfig == 2 else stacked.transpose(2, 0, 1)
    if page.extrasamples:
        if planes.dtype.kind != "u":
            raise DataError(f"{path} holds an extra channel of {planes.dtype}; store the image channels alone.")
        planes = drop_opaque_alpha(path, planes[:-1], planes[-1])
    return np.ascontiguousarray(planes, dtype=planes.dtype.newbyteorder("="))


def _by_pillow(path: Path, index: int) -> npt.NDArray[Any]:
    with Image.open(path, formats=("TIFF",)) as image:
        image.seek(index)
        if image.mode in ("1", "P"):
            flat = np.asarray(image.convert("L" if image.mode == "1" else "RGB"))
            return flat[None] if flat.ndim == 2 else np.ascontiguousarray(flat.transpose(2, 0, 1))
        if image.mode in ("L", "I;16", "I;16B"):
            return np.asarray(image).astype("uint8" if image.mode == "L" else "uint16")[None]
        if image.mode == "RGB":
            return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
        if image.mode in ("LA", "RGBA"):
            pixels = np.asarray(image)
            return np.ascontiguousarray(drop_opaque_alpha(path, pixels[..., :-1], pixels[..., -1]).transpose(2, 0, 1))
        raise DataError(f"{path} holds {image.mode} pixels; convert it to grey or RGB levels first.")
