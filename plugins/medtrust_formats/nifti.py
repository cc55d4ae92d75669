"""NIfTI-1 and NIfTI-2 volumes as axial slices.

Whatever order the file stores its axes in, slices run from feet to head, rows from front to back and columns from the
patient's right to left, as an axial DICOM series has them. A volume with time points gives all slices of the first
one, then of the next. Every slice carries its volume as `series`, so that an unknown patient is one per volume.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import nibabel as nib
import numpy as np
import numpy.typing as npt

from medtrust.errors import DataError
from medtrust.types import ImageHeader, Intensity, Limits
from medtrust_formats.files import OpenedFiles, check_file, check_inflation, check_pixels, inflate_to_array, parsing
from medtrust_formats.levels import LinearScale

__all__ = ["NiftiReader"]

_LEVELS = Intensity(0.0, 255.0, "level")
_GZIP = b"\x1f\x8b"
_NIFTI2_SIZE = 540
_MILLIMETRES = {"mm": 1.0, "meter": 1000.0, "micron": 0.001, "unknown": 1.0}


@dataclass(frozen=True, slots=True)
class _Volume:
    """A NIfTI header, understood.

    Args:
        shape: Four stored axes: three of space and one that runs over everything else.
        dtype: Stored type; three channels where it is RGB.
        offset: Where the voxels begin.
        scale: Slope and intercept, None for values as stored.
        axes: Stored axis that runs left to right, back to front, feet to head.
        flips: Whether that stored axis runs the other way.
        spacing: Millimetres along those axes; None where the unit is not a length.
    """

    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    offset: int
    scale: tuple[float, float] | None
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    spacing: tuple[float, float, float] | None

    @property
    def bytes(self) -> int:
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


class NiftiReader:
    """Reads .nii by mapping it and .nii.gz by inflating it to disk once, so that memory stays small."""

    def __init__(self) -> None:
        self._opened: OpenedFiles[tuple[_Volume, npt.NDArray[Any]]] = OpenedFiles(_open_volume)

    def scan(self, path: Path, limits: Limits) -> Sequence[ImageHeader]:
        """List the slices of a volume from its header."""
        size = check_file(path, limits)
        with parsing(path, "NIfTI"):
            volume = _read_header(path)
            across, down, along = (volume.shape[axis] for axis in volume.axes)
            times = volume.shape[3]
            check_pixels(path, down, across, limits, along * times)
            if _is_packed(path):
                check_inflation(path, volume.bytes, size, limits)
            elif volume.bytes > size:
                raise DataError(f"{path} is cut short: it declares {volume.bytes} bytes and holds {size}.")
            channels = 3 if volume.dtype.names else 1
            dtype, intensity = _pixel_type(volume)
            spacing = (volume.spacing[1], volume.spacing[0]) if volume.spacing else None
            attributes = {"series": path.name}
            return [
                ImageHeader(
                    (channels, down, across),
                    dtype,
                    index=index,
                    intensity=intensity,
                    spacing_mm=spacing,
                    attributes=attributes,
                )
                for index in range(along * times)
            ]

    def read(self, path: Path, header: ImageHeader, limits: Limits) -> npt.NDArray[Any]:
        """Cut one slice out, turn it, and scale it."""
        with parsing(path, "NIfTI"):
            volume, voxels = self._opened.get(path, limits)
            time, height = divmod(header.index, volume.shape[volume.axes[2]])
            space = voxels[..., time].transpose(volume.axes)
            # Rows and columns of DICOM run opposite to NIfTI's right and front.
            turned = tuple(slice(None, None, 1 if flip else -1) for flip in volume.flips[:2])
            along = space.shape[2] - 1 - height if volume.flips[2] else height
            plane = space[(*turned, along)].T
            if volume.dtype.names:
                return np.ascontiguousarray(np.stack([plane[name] for name in volume.dtype.names]))
            return np.ascontiguousarray(_scaled(plane, volume, header.dtype)[None])


def _open_volume(path: Path, limits: Limits) -> tuple[_Volume, npt.NDArray[Any]]:
    size = check_file(path, limits)
    volume = _read_header(path)

    def view(name: str) -> npt.NDArray[Any]:
        return np.memmap(name, volume.dtype, "r", volume.offset, volume.shape, "F")

    if not _is_packed(path):
        return volume, view(str(path))
    with gzip.open(path) as stream:
        return volume, inflate_to_array(cast(IO[bytes], stream), path, size, limits, view)


def _is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == _GZIP


def _read_header(path: Path) -> _Volume:
    with gzip.open(path) if _is_packed(path) else path.open("rb") as file:
        first = file.read(4)
        file.seek(0)
        second = _NIFTI2_SIZE in (int.from_bytes(first, "little"), int.from_bytes(first, "big"))
        header: Any = (nib.Nifti2Header if second else nib.Nifti1Header).from_fileobj(file)
    if bytes(header["magic"]).rstrip(b"\0")[:3] not in (b"n+1", b"n+2"):
        raise DataError(f"{path} is no single-file NIfTI; store header and voxels in one .nii or .nii.gz.")
    stored = tuple(int(size) for size in header.get_data_shape())
    if not 2 <= len(stored) <= 7 or min(stored) < 1:
        raise DataError(f"{path} holds a volume of shape {list(stored)}, which has no slices.")
    rows, columns, slices = (*stored[:3], 1)[:3]
    shape = (rows, columns, slices, math.prod(stored[3:]))
    dtype = header.get_data_dtype()
    if not (dtype.kind in "iuf" and dtype.itemsize <= 8) and dtype.names != ("R", "G", "B"):
        raise DataError(f"{path} holds {dtype} voxels; images are integers, floats or RGB.")
    slope, intercept = header.get_slope_inter()
    scale = None if slope is None or (slope, intercept) == (1.0, 0.0) else (float(slope), float(intercept or 0.0))
    return _Volume(shape, dtype, int(header.get_data_offset()), scale, *_orientation(path, header))


def _orientation(
    path: Path, header: Any
) -> tuple[tuple[int, int, int], tuple[bool, bool, bool], tuple[float, float, float] | None]:
    """Which stored axis runs along each axis of the body, in which direction, and how far apart voxels are."""
    turns: npt.NDArray[Any] = nib.io_orientation(header.get_best_affine())
    if not np.isfinite(turns).all():
        raise DataError(f"{path} has an affine that flattens an axis; repair its orientation.")
    by_body = sorted((int(body), axis, bool(direction < 0)) for axis, (body, direction) in enumerate(turns))
    (_, x, x_flip), (_, y, y_flip), (_, z, z_flip) = by_body
    zooms = [float(zoom) for zoom in header.get_zooms()[:3]] + [0.0] * 3
    factor = _MILLIMETRES[header.get_xyzt_units()[0]]
    spacing = (zooms[x] * factor, zooms[y] * factor, zooms[z] * factor)
    return (x, y, z), (x_flip, y_flip, z_flip), spacing if min(spacing[:2]) > 0 else None


def _pixel_type(volume: _Volume) -> tuple[str, Intensity | None]:
    """The dtype of a slice, and the range where the type alone settles it."""
    if volume.dtype.names:
        return "uint8", _LEVELS
    if volume.dtype.kind == "f":
        wide = "float64" if volume.dtype.itemsize == 8 else "float32"
        return (wide if volume.scale else volume.dtype.newbyteorder("=").name), None
    name = _integer_scale(volume).dtype
    return name, _LEVELS if volume.dtype == np.uint8 and volume.scale is None else None


def _integer_scale(volume: _Volume) -> LinearScale:
    bounds = np.iinfo(volume.dtype)
    return LinearScale(int(bounds.min), int(bounds.max), *(volume.scale or (1.0, 0.0)))


def _scaled(plane: npt.NDArray[Any], volume: _Volume, dtype: str) -> npt.NDArray[Any]:
    if volume.dtype.kind == "f":
        slope, intercept = volume.scale or (1.0, 0.0)
        return (plane.astype(np.float64) * slope + intercept).astype(dtype) if volume.scale else plane.astype(dtype)
    return _integer_scale(volume).apply(plane)
