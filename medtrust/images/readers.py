"""Choose the reader that fits a file: by its first bytes, then by its suffix."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from medtrust.errors import DataError
from medtrust.types import FormatSpec, ImageReader

__all__ = ["Readers"]


@dataclass(slots=True)
class _Format:
    spec: FormatSpec
    load: Callable[[], ImageReader]
    reader: ImageReader | None = None

    def starts(self, head: bytes) -> bool:
        return any(head[offset : offset + len(magic)] == magic for offset, magic in self.spec.magic)

    def suffix_length(self, name: str) -> int:
        return max((len(suffix) for suffix in self.spec.suffixes if name.endswith(suffix.lower())), default=0)


class Readers:
    """The installed file formats, each loaded when the first file needs it.

    Args:
        formats: Specification and loader of each format, in any order.
    """

    def __init__(self, formats: Iterable[tuple[FormatSpec, Callable[[], ImageReader]]]) -> None:
        self._formats = [_Format(spec, load) for spec, load in sorted(formats, key=lambda each: each[0].name)]
        self._head = max((offset + len(m) for each in self._formats for offset, m in each.spec.magic), default=0)
        self._lock = threading.Lock()

    def pick(self, path: Path) -> tuple[FormatSpec, ImageReader]:
        """Choose the format of a file.

        Args:
            path: An existing file.

        Returns:
            The format's specification and its reader.

        Raises:
            DataError: No format fits, or several do.
        """
        try:
            with path.open("rb") as file:
                head = file.read(self._head)
        except OSError as error:
            raise DataError(f"{path} cannot be opened ({error.strerror}).") from error
        name = path.name.lower()
        fitting = [each for each in self._formats if each.starts(head)]
        if len(fitting) != 1:
            longest = max((each.suffix_length(name) for each in fitting or self._formats), default=0)
            by_suffix = [each for each in fitting or self._formats if longest and each.suffix_length(name) == longest]
            fitting = by_suffix or fitting
        if not fitting:
            known = ", ".join(each.spec.name for each in self._formats) or "none"
            raise DataError(
                f"{path}: no installed format reads this file (installed: {known}). Move it out of the set, or "
                "install the plugin that reads it."
            )
        if len(fitting) > 1:
            names = " and ".join(each.spec.name for each in fitting)
            raise DataError(f"{path} looks like {names} alike; give it the suffix of the one that is meant.")
        return fitting[0].spec, self._loaded(fitting[0])

    def _loaded(self, chosen: _Format) -> ImageReader:
        with self._lock:
            if chosen.reader is None:
                chosen.reader = chosen.load()
            return chosen.reader
