"""Open feature spaces: find their weights and hand each the options that it takes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtrust.errors import ConfigError
from medtrust.types import FeatureExtractor

if TYPE_CHECKING:
    from medtrust.host import Contribution, Host

__all__ = ["load_spaces"]


def load_spaces(
    spaces: Mapping[str, Contribution],
    host: Host,
    weights: Mapping[str, Path],
    *,
    offline: bool,
    cache_dir: Path,
    device: str = "cpu",
    precision: str = "fp32",
) -> dict[str, FeatureExtractor]:
    """Open each space.

    Args:
        spaces: Contributions by name.
        host: Loads them.
        weights: Weight files that the user named.
        offline: Open no socket.
        cache_dir: Where fetched weights lie.
        device: Where networks run.
        precision: Arithmetic of networks; a space whose factory takes no such option has none, and is exact.

    Raises:
        ConfigError: Weights are missing, or were named for a space that is not chosen.
    """
    from medtrust.weights import resolve_weights

    extractors: dict[str, FeatureExtractor] = {}
    for name, contribution in spaces.items():
        options: dict[str, Any] = {"device": device}
        if contribution.spec.weights:
            options["weights"] = resolve_weights(
                contribution.spec.weights, weights, offline=offline, cache_dir=cache_dir
            )
        factory = host.load(contribution)
        if "precision" in inspect.signature(factory).parameters:
            options["precision"] = precision
        extractors[name] = factory(**options)
    unused = set(weights) - {c.spec.weights for c in spaces.values()}
    if unused:
        raise ConfigError(f"--weights {sorted(unused)[0]} is used by no chosen feature space; chosen: {sorted(spaces)}")
    return extractors
