"""Open feature spaces: find their weights and hand each the options that it takes."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtrust.errors import ConfigError
from medtrust.types import FeatureExtractor

if TYPE_CHECKING:
    from medtrust.host import Contribution, Host

__all__ = ["Opening", "load_spaces", "openings"]


@dataclass(frozen=True, slots=True)
class Opening:
    """How a feature space is opened, here or in another process: what travels, where an extractor cannot.

    Args:
        factory: `module:attribute`, as in the spec.
        options: Arguments of the factory.
    """

    factory: str
    options: Mapping[str, Any]

    def open(self) -> FeatureExtractor:
        """Import the factory and call it; whatever that raises is raised."""
        module, _, attribute = self.factory.partition(":")
        extractor: FeatureExtractor = attrgetter(attribute)(importlib.import_module(module))(**self.options)
        return extractor


def openings(
    spaces: Mapping[str, Contribution],
    host: Host,
    weights: Mapping[str, Path],
    *,
    offline: bool,
    cache_dir: Path,
    device: str = "cpu",
    precision: str = "fp32",
) -> dict[str, Opening]:
    """Settle how each space is opened; see `load_spaces`."""
    from medtrust.weights import resolve_weights

    found: dict[str, Opening] = {}
    for name, contribution in spaces.items():
        options: dict[str, Any] = {"device": device}
        if contribution.spec.weights:
            options["weights"] = resolve_weights(
                contribution.spec.weights, weights, offline=offline, cache_dir=cache_dir
            )
        if "precision" in inspect.signature(host.load(contribution)).parameters:
            options["precision"] = precision
        found[name] = Opening(contribution.spec.factory, options)
    unused = set(weights) - {c.spec.weights for c in spaces.values()}
    if unused:
        raise ConfigError(f"--weights {sorted(unused)[0]} is used by no chosen feature space; chosen: {sorted(spaces)}")
    return found


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
    settled = openings(
        spaces, host, weights, offline=offline, cache_dir=cache_dir, device=device, precision=precision
    )  # fmt: skip
    return {name: opening.open() for name, opening in settled.items()}
