"""Write arrays as a set that `open_set` opens again with the same values, range and names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from medtrust.errors import DataError, SafetyError
from medtrust.types import Intensity

__all__ = ["write_set"]

_LEVELS = (0.0, 255.0, "level")
_SAFE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")


def write_set(folder: Path, images: Iterable[tuple[str, npt.NDArray[Any]]], intensity: Intensity) -> tuple[Path, ...]:
    """Write one file per image: PNG for 8-bit levels in one or three channels, otherwise .npz with the range inside.

    Args:
        folder: Where to write; made if missing.
        images: File name without suffix, and pixels [C, H, W] in the unit of `intensity`.
        intensity: The declared range.

    Returns:
        The files, in order; the same input writes the same bytes.

    Raises:
        SafetyError: A name that is not a plain file name.
        DataError: A file of that name is there already, or pixels that are not [C, H, W] numbers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, pixels in images:
        if not _SAFE_NAME.fullmatch(name):
            raise SafetyError(f"{name!r} is no file name of letters, digits, '.', '_' and '-'; rename the image.")
        if pixels.ndim != 3 or not pixels.size or pixels.dtype.kind not in "iuf":
            raise DataError(f"{name}: expected [C, H, W] numbers, not {pixels.dtype} {list(pixels.shape)}.")
        as_png = (
            pixels.dtype == np.uint8
            and len(pixels) in (1, 3)
            and (intensity.lo, intensity.hi, intensity.unit) == _LEVELS
        )
        path = folder / f"{name}{'.png' if as_png else '.npz'}"
        if path.exists():
            raise DataError(f"{path} exists already; choose an empty folder.")
        partial = path.with_name(f".{path.name}.partial")  # a killed run leaves no half image under an image's name
        try:
            with partial.open("wb") as file:
                if as_png:
                    levels = pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))
                    Image.fromarray(np.ascontiguousarray(levels)).save(file, "PNG", compress_level=1)
                else:
                    bounds = np.array([intensity.lo, intensity.hi])
                    np.savez(file, images=pixels[None], intensity=bounds, unit=np.array(intensity.unit))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        written.append(path)
    return tuple(written)
