"""Numpy arrays: .npy and .npz, never pickled.

An array is [N, C, H, W] with one to four channels, [N, H, W, C] with one or three, [N, H, W], or [H, W]. An .npz holds
it as `images`, and may hold `patients` [N], `intensity` (lo, hi) and `unit`; any other text or integer array [N] beside
it, such as `labels`, becomes an attribute of each image.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from medtrust.errors import DataError, SafetyError
from medtrust.types import ImageHeader, Intensity, Limits
from medtrust_formats.files import OpenedFiles, check_file, check_inflation, check_pixels, inflate_to_array, parsing

__all__ = ["ArrayReader"]

_LEVELS = Intensity(0.0, 255.0, "level")
_MEMBER = re.compile(r"[A-Za-z0-9_. -]{1,100}\.npy")
_MAX_MEMBERS = 64
_PICKLES = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))
_ENCRYPTED = 0x1


class ArrayReader:
    """Reads .npy by mapping it and .npz by inflating it to disk once, so that memory stays small."""

    def __init__(self) -> None:
        self._opened: OpenedFiles[npt.NDArray[Any]] = OpenedFiles(_open_images)

    def scan(self, path: Path, limits: Limits) -> Sequence[ImageHeader]:
        """List the rows of the array from its header and the small arrays beside it."""
        check_file(path, limits)
        with parsing(path, "numpy arrays"):
            if not zipfile.is_zipfile(path):
                with path.open("rb") as file:
                    shape, dtype = _array_header(path, file)
                    _check_length(path, shape, dtype, path.stat().st_size - file.tell())
                return _headers(path, shape, dtype, {}, limits)
            with zipfile.ZipFile(path) as archive:
                members = _members(path, archive, limits)
                if "images" not in members:
                    raise DataError(f"{path} holds no array named 'images' but {', '.join(members) or 'nothing'}.")
                with archive.open(members["images"]) as file:
                    shape, dtype = _array_header(path, file)
                    _check_length(path, shape, dtype, members["images"].file_size - file.tell())
                beside = {key: _small(path, archive, info) for key, info in members.items() if key != "images"}
                return _headers(path, shape, dtype, beside, limits)

    def read(self, path: Path, header: ImageHeader, limits: Limits) -> npt.NDArray[Any]:
        """Copy one row to [C, H, W] in native byte order."""
        with parsing(path, "numpy arrays"):
            row = _rows(path, self._opened.get(path, limits))[header.index]
            return np.array(row, dtype=header.dtype, order="C")


def _open_images(path: Path, limits: Limits) -> npt.NDArray[Any]:
    check_file(path, limits)
    if not zipfile.is_zipfile(path):
        return npy.open_memmap(path, mode="r")
    with zipfile.ZipFile(path) as archive:
        info = _members(path, archive, limits)["images"]
        with archive.open(info) as stream:
            return inflate_to_array(
                stream, path, info.compress_size, limits, lambda spool: npy.open_memmap(spool, mode="r")
            )


def _members(path: Path, archive: zipfile.ZipFile, limits: Limits) -> dict[str, zipfile.ZipInfo]:
    """Check the archive's own table before anything is inflated; sizes are checked again while inflating."""
    infos = archive.infolist()
    if len(infos) > _MAX_MEMBERS:
        raise SafetyError(f"{path} holds {len(infos)} arrays, more than the limit of {_MAX_MEMBERS}.")
    for info in infos:
        if not _MEMBER.fullmatch(info.filename) or ".." in info.filename:
            raise SafetyError(f"{path} holds an entry named {info.filename!r}, which is no plain array name.")
        if info.flag_bits & _ENCRYPTED:
            raise DataError(f"{path} is encrypted; store it without a password.")
        check_inflation(path, info.file_size, info.compress_size, limits)
    check_inflation(path, sum(info.file_size for info in infos), path.stat().st_size, limits)
    return {info.filename.removesuffix(".npy"): info for info in infos}


def _array_header(path: Path, file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    if file.read(2) in _PICKLES:
        raise SafetyError(f"{path} is a pickle, which is never loaded; save plain numbers with numpy.save.")
    file.seek(-2, io.SEEK_CUR)
    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise DataError(f"{path} uses version {version} of the npy format; save it again with numpy.save.")
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise SafetyError(f"{path} holds pickled Python objects, which are never loaded; save plain numbers.")
    return shape, dtype


def _check_length(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], available: int) -> None:
    needed = math.prod(shape) * dtype.itemsize
    if needed > available:
        raise DataError(f"{path} is cut short: its array needs {needed} bytes and {available} are there.")


def _small(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> npt.NDArray[Any]:
    """Load an array beside the images; its inflated size has been checked."""
    data = io.BytesIO(archive.read(info))
    _array_header(path, data)
    data.seek(0)
    array: npt.NDArray[Any] = np.load(data, allow_pickle=False)
    return array


def _headers(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], beside: Mapping[str, npt.NDArray[Any]], limits: Limits
) -> list[ImageHeader]:
    if dtype.kind not in "iuf":
        raise DataError(f"{path} holds {dtype} values; images are integers or floats.")
    rows, channels, height, width = _layout(path, shape)
    check_pixels(path, height, width, limits)
    intensity = _intensity(path, beside)
    if intensity is None and dtype == np.uint8:
        intensity = _LEVELS
    columns = {
        key: [str(value) for value in array.tolist()]
        for key, array in beside.items()
        if key not in ("intensity", "unit") and array.shape == (rows,) and array.dtype.kind in "iuUb"
    }
    patients = columns.pop("patients", None)
    if "patients" in beside and patients is None:
        raise DataError(f"{path}: 'patients' must be {rows} texts or integers, one per image.")
    if patients is not None and not all(patients):
        raise DataError(f"{path}: 'patients' holds an empty text; name a patient for every image.")
    native = dtype.newbyteorder("=").name
    return [
        ImageHeader(
            (channels, height, width),
            native,
            index=row,
            intensity=intensity,
            patient=patients[row] if patients else None,
            attributes={key: column[row] for key, column in columns.items()},
        )
        for row in range(rows)
    ]


def _layout(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Read (N, C, H, W) out of a shape."""
    if 0 in shape:
        raise DataError(f"{path} holds an array of shape {list(shape)}, which is no image.")
    if len(shape) == 2:
        return 1, 1, shape[0], shape[1]
    if len(shape) == 3:
        return shape[0], 1, shape[1], shape[2]
    if len(shape) == 4 and shape[1] <= 4:
        return shape[0], shape[1], shape[2], shape[3]
    if len(shape) == 4 and shape[3] in (1, 3):
        return shape[0], shape[3], shape[1], shape[2]
    raise DataError(f"{path} holds an array of shape {list(shape)}; expected [N, C, H, W], [N, H, W, 3] or [N, H, W].")


def _rows(path: Path, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """View an array as [N, C, H, W]."""
    layout = _layout(path, images.shape)
    if images.ndim == 4 and images.shape[1] > 4:
        return images.transpose(0, 3, 1, 2)
    return images.reshape(layout)


def _intensity(path: Path, beside: Mapping[str, npt.NDArray[Any]]) -> Intensity | None:
    if "intensity" not in beside:
        return None
    bounds = np.asarray(beside["intensity"])
    if (
        bounds.shape != (2,)
        or bounds.dtype.kind not in "iuf"
        or not np.isfinite(bounds).all()
        or bounds[0] >= bounds[1]
    ):
        raise DataError(f"{path}: 'intensity' must be two finite numbers, the lower first.")
    unit = str(beside["unit"]) if "unit" in beside else "a.u."
    if not unit or len(unit) > 16 or not unit.isprintable():
        raise DataError(f"{path}: 'unit' must be 1 to 16 printable characters.")
    return Intensity(float(bounds[0]), float(bounds[1]), unit)
