"""The card of a network that the user brings: how images are to be prepared for it, as TOML or JSON beside its file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtrust.config import did_you_mean
from medtrust.errors import ConfigError
from medtrust_features.preparation import Preparation

__all__ = ["Card", "read_card"]

KEYS = (
    "size", "channels", "range", "mean", "std", "resize", "antialias", "source", "unit", "layout", "output", "pool",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Card:
    """A card, understood.

    Args:
        preparation: How images are brought to the network.
        layout: NCHW or NHWC.
        output: Which of the network's outputs holds the features, counted from 0.
        pool: "mean" averages [N, d, h, w] over its last two axes; empty takes [N, d] as it is.
    """

    preparation: Preparation
    layout: str = "NCHW"
    output: int = 0
    pool: str = ""

    def describe(self) -> str:
        """Everything that decides the numbers, in one line."""
        return f"{self.preparation.describe()}; {self.layout}, output {self.output}, pool {self.pool or 'none'}"


def read_card(model: Path) -> Card:
    """Read the card of a model file: `NAME.toml` or `NAME.json` beside it, NAME with or without the model's suffix.

    Args:
        model: The network's file.

    Raises:
        ConfigError: There is no card, or it is not understood; nothing about a network is guessed.
    """
    places = [model.with_name(stem + suffix) for stem in (model.name, model.stem) for suffix in (".toml", ".json")]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise ConfigError(
            f"{model} has no card that says how images are prepared for it; write {places[0].name} beside it with at "
            "least size, channels and range (see docs/features.md)"
        )
    try:
        text = found.read_text(encoding="utf-8")
        table = tomllib.loads(text) if found.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{found} cannot be read as {found.suffix[1:].upper()} ({error}); correct it") from error
    return _card(table, found)


def _card(table: Any, place: Path) -> Card:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{place} must hold keys and values; see docs/features.md")
    for key in table:
        if key not in KEYS:
            raise ConfigError(f"{place}: unknown key {key!r}{did_you_mean(str(key), KEYS)}; known: {', '.join(KEYS)}")
    missing = [key for key in ("size", "channels", "range") if key not in table]
    if missing:
        raise ConfigError(f"{place} lacks {' and '.join(missing)}; nothing about a network is guessed")
    try:
        channels = _whole(table["channels"])
        size = table["size"] if isinstance(table["size"], list) else [table["size"]] * 2
        lo, hi = (float(value) for value in table["range"])
        preparation = Preparation(
            size=(_whole(size[0]), _whole(size[1])),
            channels=channels,
            lo=lo,
            hi=hi,
            mean=_each(table.get("mean", 0.0), channels),
            std=_each(table.get("std", 1.0), channels),
            resize=table.get("resize", "bilinear"),
            antialias=bool(table.get("antialias", False)),
            source=(float(table["source"][0]), float(table["source"][1])) if "source" in table else None,
            unit=str(table.get("unit", "")),
        )
        card = Card(preparation, table.get("layout", "NCHW"), _whole(table.get("output", 0)), table.get("pool", ""))
        if card.layout not in ("NCHW", "NHWC") or card.pool not in ("", "mean") or card.output < 0:
            raise ValueError('layout is "NCHW" or "NHWC", pool is "mean" or left out, output counts from 0')
    except (TypeError, ValueError, IndexError) as error:
        raise ConfigError(f"{place} is not a valid card: {error}") from error
    return card


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is not a whole number")
    return value


def _each(value: Any, channels: int) -> tuple[float, ...]:
    values = value if isinstance(value, list) else [value] * channels
    return tuple(float(one) for one in values)
