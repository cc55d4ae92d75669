"""Image to image: a rectified flow that sees the same place in another contrast."""

from __future__ import annotations

from collections.abc import Mapping

from medtrust_generators.flow import Flow

__all__ = ["ImageToImage"]


class ImageToImage(Flow):
    """Trains and opens image-to-image flows: the `factory` of the spec `i2i`."""

    kind = "i2i"
    version = "2"
    family = "conditional"
    asks: Mapping[str, str] = {"source": ""}
