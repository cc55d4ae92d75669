"""What the user wants each sample to show, from the command line's words to a generator's conditions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medtrust.errors import ConfigError, DataError
from medtrust.images import ImageSet, Readers, open_set
from medtrust.types import ConditionSpec

__all__ = ["read_conditions"]

_DEALT = 10_000  # classes in a row that is dealt out by shares, before it begins again


def read_conditions(text: str, spec: ConditionSpec, readers: Readers) -> tuple[Sequence[Any], tuple[str, ...], str]:
    """Read what the user wants each sample to show.

    Args:
        text: A class, shares of classes as "naevus=0.7,melanoma=0.3", a sentence, or numbers as "tr=500,te=15"; a .txt
            file with one class, sentence or row of numbers per line; or a set of masks or images.
        spec: What the generator can be asked for.
        readers: The installed formats.

    Returns:
        The conditions (sample i takes number i modulo their count), a name for each, and a digest of them all.

    Raises:
        ConfigError: The generator takes no condition of this kind.
        DataError: The file or set cannot be read.
    """
    if spec.kind in ("label", "multilabel", "text", "tabular"):
        path = Path(text)
        lines = [text]
        if path.suffix == ".txt" and path.is_file():
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if not lines:
            raise DataError(f"{text} has no lines; write one {spec.kind} per line")
        if spec.kind == "label" and lines == [text] and text not in spec.classes and "=" in text:
            lines = _dealt(text, spec.classes)
        values: list[Any] = list(lines)
        if spec.kind == "multilabel":
            values = [tuple(line.split("|")) for line in lines]
        elif spec.kind == "tabular":
            values = [_numbers(line, spec.classes) for line in lines]
        return values, tuple(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()
    if spec.kind in ("mask", "image"):
        images = open_set(Path(text), "synthetic", readers)
        images.inspect()
        state = hashlib.sha256("\n".join(images.digests).encode()).hexdigest()
        return _Pixels(images), images.names, state
    raise ConfigError("this generator takes no condition; leave --condition out")


def _dealt(text: str, classes: Sequence[str]) -> list[str]:
    """Deal classes out by their shares, so that each beginning of the series has them as nearly as it can."""
    shares = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.rpartition("="))
        try:
            share = float(value)
        except ValueError:
            share = math.nan
        if name not in classes or name in shares or not 0 < share < math.inf:
            raise ConfigError(
                f"--condition {text!r}: write CLASS=SHARE,CLASS=SHARE with shares above 0; known are "
                f"{', '.join(classes)}"
            )
        shares[name] = share
    whole, counts, dealt = sum(shares.values()), dict.fromkeys(shares, 0), []
    for i in range(_DEALT):
        behind = max(shares, key=lambda name: shares[name] / whole * (i + 1) - counts[name])
        counts[behind] += 1
        dealt.append(behind)
    return dealt


def _numbers(line: str, known: Sequence[str]) -> dict[str, float]:
    found = {}
    for part in line.split(","):
        name, _, value = (text.strip() for text in part.partition("="))
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = math.nan
        if name not in known or not math.isfinite(found[name]):
            raise ConfigError(f"--condition {line!r}: write NAME=NUMBER, with the names {', '.join(known)}")
    return found


class _Pixels(Sequence[Any]):
    """The pixels of a set, decoded when asked for."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        return self.images[index].pixels
