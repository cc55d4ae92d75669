"""Mask to image: a rectified flow that sees where each tissue lies."""

from __future__ import annotations

from collections.abc import Mapping

from medtrust_generators.flow import Flow

__all__ = ["Mask"]


class Mask(Flow):
    """Trains and opens mask-conditioned flows: the `factory` of the spec `mask`."""

    kind = "mask"
    version = "2"
    family = "conditional"
    asks: Mapping[str, str] = {"masks": "", "cuts": ""}
