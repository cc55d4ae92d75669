"""The checkpoint folder: `weights.safetensors`, and `card.json` that says what it was fitted on and how."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from medtrust.errors import ConfigError, DataError

__all__ = ["CARD", "WEIGHTS", "read_card", "read_weights", "write_checkpoint"]

CARD = "card.json"
WEIGHTS = "weights.safetensors"
SCHEMA = "medtrust.generator/1"
_MAX_CARD_BYTES = 1024**2


def write_checkpoint(folder: Path, facts: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Path:
    """Write weights, then the card that vouches for them by SHA-256.

    Args:
        folder: Made when missing; a checkpoint that is there is replaced.
        facts: What the card says beside schema and digest.
        weights: Named tensors.

    Returns:
        The folder.

    Raises:
        ConfigError: The folder cannot be written.
    """
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})
    card = {"schema": SCHEMA, **facts, "weights_sha256": hashlib.sha256(content).hexdigest()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / WEIGHTS, content)
        _replace(folder / CARD, (json.dumps(card, indent=1, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        raise ConfigError(f"cannot write the checkpoint {folder} ({error}); choose another with --out") from error
    return folder


def read_card(folder: Path | None, kind: str) -> dict[str, Any]:
    """Read the card of a checkpoint of one kind.

    Raises:
        ConfigError: No checkpoint was named, or it is of another kind.
        DataError: There is no readable card.
    """
    if folder is None:
        raise ConfigError(
            f"generator {kind} needs a checkpoint: write {kind}:FOLDER, or make one with `medtrust train`"
        )
    path = folder / CARD
    try:
        with path.open("rb") as stream:
            card = json.loads(stream.read(_MAX_CARD_BYTES))
        schema, found = card["schema"], card["kind"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = type(error).__name__
        raise DataError(
            f"{path} is not a checkpoint's card ({why}); make a checkpoint with `medtrust train`"
        ) from error
    if schema != SCHEMA:
        raise DataError(f"{path} has the schema {schema!r} where {SCHEMA!r} is read; train the checkpoint again")
    if found != kind:
        raise ConfigError(f"{folder} holds a checkpoint of kind {found}, not {kind}; write {found}:{folder}")
    return dict(card)


def read_weights(folder: Path, card: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read the tensors that a card vouches for.

    Raises:
        DataError: They are missing, damaged, or not those of the card.
    """
    path = folder / WEIGHTS
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != card.get("weights_sha256"):
            raise DataError(f"{path} does not have the SHA-256 that {CARD} names; train the checkpoint again")
        return load(content)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read ({error}); train the checkpoint again") from error


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(path)
