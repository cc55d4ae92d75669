"""Checkpoints with a card, whatever kind they are of: the card says which architecture the tensors belong to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from medtrust.errors import ConfigError, DataError
from medtrust.host import build_host
from medtrust.sources import GeneratorSource, open_generator
from medtrust.types import Generator

__all__ = ["Zoo"]

_CARD, _MAX_CARD = "card.json", 1024**2


class Zoo:
    """Opens a checkpoint folder by its card: the `factory` of the spec `zoo`."""

    def open(self, path: Path | None, options: Mapping[str, str], device: str) -> Generator:
        """Find the kind that the card names among the trainable generators, and have it open the folder.

        Args:
            path: A folder with `card.json` and `weights.safetensors`.
            options: Those of the kind.
            device: cpu or cuda.

        Raises:
            ConfigError: No path, an option that the kind does not know, or a kind that is not installed.
            DataError: There is no readable card, or the weights do not fit it.
        """
        if path is None:
            raise ConfigError("generator zoo needs a checkpoint folder: write zoo:FOLDER")
        file = path / _CARD
        try:
            with file.open("rb") as stream:
                card: Any = json.loads(stream.read(_MAX_CARD))
            kind = str(card["kind"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{file} is not a checkpoint's card ({type(error).__name__}); see docs/generators.md"
            ) from error
        host = build_host()
        names = {c.spec.name for c in host.contributions("generator") if c.spec.trainable and c.spec.trust == "data"}
        if kind not in names:
            raise ConfigError(f"{path} holds a checkpoint of kind {kind!r}; installed are {', '.join(sorted(names))}")
        return cast("Generator", open_generator(GeneratorSource(kind, path, options, str(path)), host, device))
