"""What the user wants each sample to show, from the command line's words to a generator's conditions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medtrust.errors import ConfigError, DataError
from medtrust.images import ImageSet, Readers, open_set
from medtrust.types import ConditionSpec

__all__ = ["read_conditions"]


def read_conditions(text: str, spec: ConditionSpec, readers: Readers) -> tuple[Sequence[Any], tuple[str, ...], str]:
    """Read what the user wants each sample to show.

    Args:
        text: A class or a sentence, a .txt file with one of them per line, or a set of masks or images.
        spec: What the generator can be asked for.
        readers: The installed formats.

    Returns:
        The conditions (sample i takes number i modulo their count), a name for each, and a digest of them all.

    Raises:
        ConfigError: The generator takes no condition of this kind.
        DataError: The file or set cannot be read.
    """
    if spec.kind in ("label", "multilabel", "text"):
        path = Path(text)
        lines = [text]
        if path.suffix == ".txt" and path.is_file():
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if not lines:
            raise DataError(f"{text} has no lines; write one {spec.kind} per line")
        values: list[Any] = [tuple(line.split("|")) for line in lines] if spec.kind == "multilabel" else lines
        return values, tuple(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()
    if spec.kind in ("mask", "image"):
        images = open_set(Path(text), "synthetic", readers)
        images.inspect()
        state = hashlib.sha256("\n".join(images.digests).encode()).hexdigest()
        return _Pixels(images), images.names, state
    kinds = "no condition" if spec.kind == "none" else f"a {spec.kind}, which the command line cannot give"
    raise ConfigError(f"this generator takes {kinds}; leave --condition out")


class _Pixels(Sequence[Any]):
    """The pixels of a set, decoded when asked for."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        return self.images[index].pixels
