"""PNG, JPEG and BMP.

Grey and colour levels are kept as stored. A palette becomes RGB. A fully opaque alpha channel is dropped and a
transparent pixel is an error. The EXIF orientation of a JPEG is noted in the attributes and not applied: the digest is
of the pixels as the file holds them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from medtrust.errors import DataError, SafetyError
from medtrust.types import ImageHeader, Intensity, Limits
from medtrust_formats.files import check_file, check_pixels, drop_opaque_alpha, parsing

__all__ = ["BmpReader", "JpegReader", "PngReader"]

_LEVELS = Intensity(0.0, 255.0, "level")
_CHANNELS = {"1": 1, "L": 1, "LA": 1, "I;16": 1, "P": 3, "PA": 3, "RGB": 3, "RGBA": 3}
_ORIENTATION = 0x0112
_NO_ATTRIBUTES: Mapping[str, str] = {}


class _RasterReader:
    """What the three formats share; `formats` is Pillow's name of the only format it may try."""

    formats: ClassVar[tuple[str, ...]]

    def scan(self, path: Path, limits: Limits) -> Sequence[ImageHeader]:
        """Read the size and the kind of pixel from the header."""
        check_file(path, limits)
        with parsing(path, self.formats[0]), self._open(path) as image:
            check_pixels(path, image.height, image.width, limits)
            if image.mode not in _CHANNELS:
                raise DataError(f"{path} holds {image.mode} pixels; convert it to grey or RGB levels first.")
            if self.formats == ("PNG",) and getattr(image, "is_animated", False):
                raise DataError(f"{path} is an animation; store each of its frames as one image.")
            shape = (_CHANNELS[image.mode], image.height, image.width)
            return (self._header(path, image, shape),)

    def read(self, path: Path, header: ImageHeader, limits: Limits) -> npt.NDArray[Any]:
        """Decode to [C, H, W], uint8 or uint16, level for level."""
        check_file(path, limits)
        if ImageFile.LOAD_TRUNCATED_IMAGES:
            raise SafetyError("Pillow was told to accept truncated images (LOAD_TRUNCATED_IMAGES); switch that off.")
        with parsing(path, self.formats[0]):
            pixels = self._decode(path, limits)
        return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))

    def _header(self, path: Path, image: Image.Image, shape: tuple[int, int, int]) -> ImageHeader:
        if image.mode == "I;16":
            return ImageHeader(shape, "uint16", attributes=_NO_ATTRIBUTES)
        return ImageHeader(shape, "uint8", intensity=_LEVELS, attributes=self._attributes(image))

    def _attributes(self, image: Image.Image) -> Mapping[str, str]:
        return _NO_ATTRIBUTES

    def _decode(self, path: Path, limits: Limits) -> npt.NDArray[Any]:
        with self._open(path) as image:
            check_pixels(path, image.height, image.width, limits)
            return _pixels(path, image)

    def _open(self, path: Path) -> Image.Image:
        try:
            return Image.open(path, formats=self.formats)
        except Image.DecompressionBombError as error:
            raise SafetyError(f"{path} declares more pixels than is safe to decode ({error}).") from error


class BmpReader(_RasterReader):
    """Windows bitmaps."""

    formats = ("BMP",)


class JpegReader(_RasterReader):
    """JPEG files, grey or colour."""

    formats = ("JPEG",)

    def _attributes(self, image: Image.Image) -> Mapping[str, str]:
        orientation = image.getexif().get(_ORIENTATION, 1) if "exif" in image.info else 1
        return _NO_ATTRIBUTES if orientation == 1 else {"exif_orientation": str(orientation)}


class PngReader(_RasterReader):
    """PNG files. Pillow keeps 16 bits in grey images only, so imagecodecs decodes 16-bit colour and alpha."""

    formats = ("PNG",)

    def _header(self, path: Path, image: Image.Image, shape: tuple[int, int, int]) -> ImageHeader:
        channels = _deep_channels(path)
        if channels is None:
            return super()._header(path, image, shape)
        return ImageHeader((1 if channels < 3 else 3, *shape[1:]), "uint16", attributes=_NO_ATTRIBUTES)

    def _decode(self, path: Path, limits: Limits) -> npt.NDArray[Any]:
        if _deep_channels(path) is None:
            return super()._decode(path, limits)
        with self._open(path) as image:
            check_pixels(path, image.height, image.width, limits)
            if "transparency" in image.info:
                raise DataError(f"{path} has a transparent colour; flatten it onto the background that is meant.")
        pixels: npt.NDArray[Any] = imagecodecs.png_decode(path.read_bytes())
        if pixels.shape[2] == 3:
            return pixels
        return drop_opaque_alpha(path, pixels[..., :-1], pixels[..., -1])


def _deep_channels(path: Path) -> int | None:
    """Number of channels of a 16-bit PNG with colour or alpha, None for any other PNG."""
    with path.open("rb") as file:
        head = file.read(26)
    depth, colour = struct.unpack(">BB", head[24:26])
    return {2: 3, 4: 2, 6: 4}.get(colour) if depth == 16 else None


def _pixels(path: Path, image: Image.Image) -> npt.NDArray[Any]:
    """Decode an image of a mode that Pillow holds without loss: [H, W] or [H, W, 3]."""
    mode = image.mode
    if mode == "1":
        return np.asarray(image.convert("L"))
    if mode in ("P", "PA") or (mode in ("L", "RGB") and "transparency" in image.info):
        see_through = mode == "PA" or "transparency" in image.info
        flat = np.asarray(image.convert("RGBA" if see_through else "RGB"))
        if see_through:
            flat = drop_opaque_alpha(path, flat[..., :3], flat[..., 3])
        return flat[..., 0] if mode == "L" else flat
    pixels = np.asarray(image)
    if mode in ("LA", "RGBA"):
        colours = pixels[..., 0] if mode == "LA" else pixels[..., :3]
        return drop_opaque_alpha(path, colours, pixels[..., -1])
    if mode == "I;16" and "transparency" in image.info and (pixels == image.info["transparency"]).any():
        raise DataError(f"{path} has transparent pixels; flatten it onto the background that is meant.")
    return pixels
