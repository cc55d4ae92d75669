"""Checks of a file format: what is written comes back level for level, and no damaged file does harm."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from medtrust.errors import DataError, SafetyError
from medtrust.testing.kit import Check, Conformance, NotApplicable, Subject, hold, require, resolve
from medtrust.testing.watching import left_alone
from medtrust.types import FormatSpec, ImageHeader, Limits

__all__ = ["FORMAT_CHECKS", "FORMAT_FLOOR", "Example", "FormatGiven", "check_format", "format_subject"]

FORMAT_FLOOR = 7
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Example:
    """A file of the format.

    Args:
        path: Where it is.
        pixels: What each of its images must read as, [C, H, W]; None where that is not known.
    """

    path: Path
    pixels: Sequence[Array] | None = None


@dataclass(frozen=True, slots=True)
class FormatGiven:
    """What the author of a format gives its checks.

    Args:
        examples: Small valid files, or a function that writes some into a folder.
    """

    examples: Sequence[Example | Path] | Callable[[Path], Sequence[Example | Path]]


def format_subject(
    file_format: str | FormatSpec,
    *,
    examples: Sequence[Example | Path] | Callable[[Path], Sequence[Example | Path]],
    expected_failures: Mapping[str, str] | None = None,
    floor: int = FORMAT_FLOOR,
) -> Subject:
    """Find a file format, with what its checks need (see `check_format`)."""
    given = FormatGiven(examples)
    return resolve("format", file_format, expected=expected_failures or {}, floor=floor, given=given)


def check_format(file_format: str | FormatSpec, **options: Any) -> Conformance:
    """Run every check of a file format.

    Args:
        file_format: Name of an installed format, or a `FormatSpec` that is not installed.
        options: `examples`: small valid files as `Example` or path, or a function that writes them into a folder.
            `expected_failures`: checks that are known to fail, each with the reason. `floor`: how many checks must run.

    Returns:
        The account of every check.

    Raises:
        AssertionError: A check failed, one that was expected to fail passed, or too few ran.
    """
    return hold(FORMAT_CHECKS, format_subject(file_format, **options))


def _folder(subject: Subject) -> Path:
    if "folder" not in subject.kept:
        subject.kept["keeper"] = TemporaryDirectory(prefix="medtrust-check-")  # removed with the subject
        subject.kept["folder"] = Path(subject.kept["keeper"].name)
    folder: Path = subject.kept["folder"]
    return folder


def _examples(subject: Subject) -> list[Example]:
    if "examples" not in subject.kept:
        told = subject.given.examples
        found = told(_folder(subject)) if callable(told) else told
        examples = [one if isinstance(one, Example) else Example(Path(one)) for one in found]
        require(examples, "there is no example file to check it on; give `examples`")
        subject.kept["examples"] = examples
    kept: list[Example] = subject.kept["examples"]
    return kept


def _reader(subject: Subject) -> Any:
    return subject.load()()


def _scan(subject: Subject, path: Path, limits: Limits | None = None) -> list[ImageHeader]:
    headers = list(_reader(subject).scan(path, limits or Limits()))
    for header in headers:
        require(isinstance(header, ImageHeader), f"scan() gave a {type(header).__name__}, wanted ImageHeader")
    return headers


def headers_tell_the_pixels(subject: Subject) -> None:
    """Each image reads with the shape and type its header announced, inside the declared range."""
    for example in _examples(subject):
        headers = _scan(subject, example.path)
        require(headers, f"{example.path.name}: scan() found no image")
        for header in headers:
            pixels = _reader(subject).read(example.path, header, Limits())
            require(isinstance(pixels, np.ndarray), f"read() gave a {type(pixels).__name__}, wanted a numpy array")
            require(
                tuple(pixels.shape) == tuple(header.shape),
                f"{example.path.name}: read() gave {pixels.shape}, its header says {header.shape}",
            )
            require(
                pixels.dtype.name == np.dtype(header.dtype).name,
                f"{example.path.name}: read() gave {pixels.dtype}, its header says {header.dtype}",
            )
            if header.intensity is not None and pixels.size:
                lo, hi = float(pixels.min()), float(pixels.max())
                require(
                    header.intensity.lo <= lo and hi <= header.intensity.hi,
                    f"{example.path.name}: values are {lo:g} … {hi:g}, declared is {header.intensity}",
                )


def every_level_is_kept(subject: Subject) -> None:
    """Pixels are those that the example says, exactly."""
    known = [one for one in _examples(subject) if one.pixels is not None]
    if not known:
        raise NotApplicable("no example says what its pixels are")
    for example in known:
        assert example.pixels is not None
        headers = _scan(subject, example.path)
        require(
            len(headers) == len(example.pixels),
            f"{example.path.name}: {len(headers)} images, the example has {len(example.pixels)}",
        )
        for header, wanted in zip(headers, example.pixels, strict=True):
            pixels = _reader(subject).read(example.path, header, Limits())
            require(
                np.array_equal(pixels, wanted),
                f"{example.path.name}, image {header.index}: pixels differ from what was written",
            )


def reads_the_same_twice(subject: Subject) -> None:
    """Two readers give the same headers and pixels, and arrays that belong to the caller."""
    for example in _examples(subject):
        first, second = _scan(subject, example.path), _scan(subject, example.path)
        require(first == second, f"{example.path.name}: two scans gave two lists of headers")
        one = _reader(subject).read(example.path, first[0], Limits())
        kept = one.copy()
        if one.flags.writeable:
            one[...] = 0
        again = _reader(subject).read(example.path, first[0], Limits())
        require(np.array_equal(again, kept), f"{example.path.name}: a second reading gave other pixels")


def files_are_recognised(subject: Subject) -> None:
    """The declared suffixes and first bytes are those of the examples."""
    spec: FormatSpec = subject.spec
    require(spec.suffixes, "the spec names no suffix")
    for suffix in spec.suffixes:
        require(
            suffix.startswith(".") and suffix == suffix.lower(), f"suffix {suffix!r} must be lower case, with a dot"
        )
    for example in _examples(subject):
        named = example.path.name.lower().endswith(spec.suffixes)
        require(named, f"{example.path.name} ends with none of {', '.join(spec.suffixes)}")
        if spec.magic:
            content = example.path.read_bytes()
            begins = any(content[at : at + len(word)] == word for at, word in spec.magic)
            require(begins or example.path.suffix == ".gz", f"{example.path.name} has none of the declared first bytes")


def limits_are_kept(subject: Subject) -> None:
    """A file beyond the limits is refused with SafetyError before anything is allocated."""
    for example in _examples(subject):
        try:
            _scan(subject, example.path, Limits(max_pixels=0))
        except SafetyError:
            continue
        except DataError as error:
            raise AssertionError(f"{example.path.name}: beyond the limit it is a DataError ({error})") from error
        raise AssertionError(f"{example.path.name}: scan() ignores limits.max_pixels; refuse with SafetyError")


def _refuses(subject: Subject, path: Path, what: str) -> None:
    """Nothing but DataError, SafetyError or a sound image may come of a damaged file."""
    try:
        for header in _scan(subject, path):
            _reader(subject).read(path, header, Limits())
    except (DataError, SafetyError) as error:
        require(str(error).strip(), f"{what}: the error has no sentence")
    except Exception as error:
        raise AssertionError(
            f"{what}: it raised {type(error).__name__}: {error}; raise DataError with the file's name and what to do"
        ) from error


def broken_files_are_refused(subject: Subject) -> None:
    """Empty, truncated and foreign files give DataError or SafetyError, and no other exception."""
    suffix = subject.spec.suffixes[0]
    rng = np.random.default_rng(1)
    for example in _examples(subject):
        content = example.path.read_bytes()
        cuts = sorted({0, 1, 2, *(len(content) * i // 12 for i in range(1, 12)), len(content) - 1})
        path = _folder(subject) / f"broken{suffix}"
        for cut in cuts:
            path.write_bytes(content[:cut])
            _refuses(subject, path, f"{example.path.name} cut to {cut} of {len(content)} bytes")
        for at in range(min(24, len(content))):
            path.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
            _refuses(subject, path, f"{example.path.name} with byte {at} inverted")
    path = _folder(subject) / f"foreign{suffix}"
    path.write_bytes(rng.bytes(300))
    _refuses(subject, path, "300 random bytes")
    path.write_bytes(b"")
    try:
        _scan(subject, path)
    except (DataError, SafetyError):
        return
    except Exception as error:
        raise AssertionError(f"an empty file: it raised {type(error).__name__}: {error}; raise DataError") from error
    raise AssertionError("an empty file was taken for an image file; raise DataError")


def errors_name_the_file(subject: Subject) -> None:
    """The message of a refusal says which file it was."""
    path = _folder(subject) / f"named{subject.spec.suffixes[0]}"
    path.write_bytes(b"")
    try:
        _scan(subject, path)
    except (DataError, SafetyError) as error:
        require(path.name in str(error), f"the error does not name the file: {error}")
        return
    raise NotApplicable("it takes an empty file")


def files_are_left_alone(subject: Subject) -> None:
    """Reading changes no file, and leaves none behind."""
    for example in _examples(subject):
        folder = example.path.parent
        before = {path.name for path in folder.iterdir()}, hashlib.sha256(example.path.read_bytes()).digest()
        for header in _scan(subject, example.path):
            _reader(subject).read(example.path, header, Limits())
        after = {path.name for path in folder.iterdir()}, hashlib.sha256(example.path.read_bytes()).digest()
        require(before == after, f"reading {example.path.name} changed the folder or the file")


def leaves_the_process_alone(subject: Subject) -> None:
    """Random states, threads, environment, functions of torch and numpy, and standard output are left alone."""
    example = _examples(subject)[0]
    header = _scan(subject, example.path)[0]
    _reader(subject).read(example.path, header, Limits())  # a library's own initialisation is not the reader's doing
    with left_alone():
        _scan(subject, example.path)
        _reader(subject).read(example.path, header, Limits())


FORMAT_CHECKS: Sequence[Check] = tuple(
    Check(check.__name__, (check.__doc__ or "").strip(), check)
    for check in (
        headers_tell_the_pixels,
        every_level_is_kept,
        reads_the_same_twice,
        files_are_recognised,
        limits_are_kept,
        broken_files_are_refused,
        errors_name_the_file,
        files_are_left_alone,
        leaves_the_process_alone,
    )
)
