"""What every reader does before and after decoding: caps, guarded parsing, inflating to disk, remembering files."""

from __future__ import annotations

import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from medtrust.errors import DataError, MedtrustError, SafetyError
from medtrust.types import Limits

__all__ = [
    "OpenedFiles",
    "check_file",
    "check_inflation",
    "check_pixels",
    "drop_opaque_alpha",
    "inflate_to_array",
    "parsing",
]


# Below this size an extreme compression ratio is a constant image, not an attack.
_RATIO_FLOOR = 16 * 1024**2
_BLOCK = 1024**2

Opened = TypeVar("Opened")


def check_file(path: Path, limits: Limits) -> int:
    """Return a file's size, or refuse a file that is larger than allowed.

    Raises:
        DataError: The file is empty or cannot be opened.
        SafetyError: The file exceeds `limits.max_file_bytes`.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} cannot be opened ({error.strerror}).") from error
    if size == 0:
        raise DataError(f"{path} is empty; remove it or copy it again.")
    if size > limits.max_file_bytes:
        raise SafetyError(f"{path} has {size} bytes, more than the limit of {limits.max_file_bytes}.")
    return size


def check_pixels(path: Path, height: int, width: int, limits: Limits, frames: int = 1) -> None:
    """Refuse sizes that a header only claims before anything of that size is allocated.

    Raises:
        DataError: A size is not positive.
        SafetyError: One image, or the number of images, exceeds `limits`.
    """
    if min(height, width, frames) < 1:
        raise DataError(f"{path} declares {frames} images of {height} x {width} pixels, which is none.")
    if frames > limits.max_frames:
        raise SafetyError(f"{path} declares {frames} frames, more than the limit of {limits.max_frames}.")
    if height * width > limits.max_pixels:
        raise SafetyError(f"{path} declares {height} x {width} pixels, more than the limit of {limits.max_pixels}.")


def check_inflation(path: Path, inflated: int, stored: int, limits: Limits) -> None:
    """Refuse a compressed part that grows beyond what images do.

    Raises:
        SafetyError: The inflated size, or its ratio to the stored size, exceeds `limits`.
    """
    if inflated > limits.max_inflated_bytes:
        raise SafetyError(f"{path} inflates to more than {limits.max_inflated_bytes} bytes; refused as a bomb.")
    if inflated > max(_RATIO_FLOOR, limits.max_inflate_ratio * stored):
        raise SafetyError(
            f"{path} inflates to more than {limits.max_inflate_ratio:g} times its size; refused as a bomb. Store it "
            "uncompressed if it is genuine."
        )


@contextmanager
def parsing(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a parser raises on damaged or hostile bytes into one sentence that names the file."""
    try:
        yield
    except MedtrustError:
        raise
    except MemoryError as error:
        raise SafetyError(f"{path}: reading it as {what} needs more memory than there is.") from error
    except Exception as error:
        raise _damaged(path, what, error) from error
    except BaseException as error:
        # decoders written in Rust panic with an exception that is no Exception
        if type(error).__name__ != "PanicException":
            raise
        raise _damaged(path, what, error) from error


def _damaged(path: Path, what: str, error: BaseException) -> DataError:
    said = " ".join(str(error).split())[:300] or type(error).__name__
    return DataError(f"{path} cannot be read as {what} ({said}); it may be damaged or cut short.")


def drop_opaque_alpha(path: Path, pixels: npt.NDArray[Any], alpha: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the pixels if every alpha value is opaque; what shows through is not ours to choose.

    Raises:
        DataError: Some pixel is transparent.
    """
    if (alpha != np.iinfo(alpha.dtype).max).any():
        raise DataError(f"{path} has transparent pixels; flatten it onto the background that is meant.")
    return pixels


def inflate_to_array(
    stream: IO[bytes], path: Path, stored: int, limits: Limits, view: Callable[[str], npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    """Inflate a stream to an unnamed temporary file and map it, so that memory does not grow with the file.

    Args:
        stream: Inflates as it is read.
        path: Named in errors.
        stored: Bytes of the compressed part.
        limits: Caps, checked while inflating.
        view: Maps the temporary file, given its name; the file has no name any more when this function returns.

    Returns:
        What `view` returned.
    """
    with tempfile.NamedTemporaryFile(prefix="medtrust-", suffix=".raw") as spool:
        total = 0
        while block := stream.read(_BLOCK):
            total += len(block)
            check_inflation(path, total, stored, limits)
            spool.write(block)
        spool.flush()
        return view(spool.name)


class OpenedFiles(Generic[Opened]):
    """The last few opened files, so that consecutive images of one file do not open it again.

    Args:
        open_file: Opens a file.
        keep: How many to remember.
    """

    def __init__(self, open_file: Callable[[Path, Limits], Opened], keep: int = 4) -> None:
        self._open = open_file
        self._keep = keep
        self._opened: OrderedDict[tuple[Any, ...], Opened] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: Path, limits: Limits) -> Opened:
        """Return what opening the file gave, opening it if it is new or has changed."""
        facts = path.stat()
        key = (str(path), facts.st_mtime_ns, facts.st_size, limits)
        with self._lock:
            if key not in self._opened:
                self._opened[key] = self._open(path, limits)
                while len(self._opened) > self._keep:
                    self._opened.popitem(last=False)
            self._opened.move_to_end(key)
            return self._opened[key]
