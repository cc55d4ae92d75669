"""Caption to image: a rectified flow that reads a sentence."""

from __future__ import annotations

from collections.abc import Mapping

from medtrust_generators.flow import Flow

__all__ = ["Caption"]


class Caption(Flow):
    """Trains and opens caption-conditioned flows: the `factory` of the spec `caption`."""

    kind = "caption"
    version = "2"
    family = "conditional"
    asks: Mapping[str, str] = {"captions": "measured"}
