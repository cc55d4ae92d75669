"""The image itself as a feature vector, for finding copies."""

from __future__ import annotations

import hashlib

import torch

from medtrust.stats.embedding import PIXEL_SIDE, pixel_embedding
from medtrust.types import Intensity

__all__ = ["Pixels"]

VERSION = "1"


class Pixels:
    """The embedding of `medtrust.stats.embedding.pixel_embedding`: small, centred, of unit length.

    Args:
        device: Where to compute.
    """

    standardise = False
    names: tuple[str, ...] = ()

    def __init__(self, *, device: str = "cpu") -> None:
        self.device = device

    @property
    def digest(self) -> str:
        """Digest of version and side."""
        return hashlib.sha256(f"pixels\n{VERSION}\n{PIXEL_SIDE}".encode()).hexdigest()

    def extract(self, images: torch.Tensor, intensity: Intensity) -> torch.Tensor:
        """Embed each image.

        Args:
            images: [N, C, H, W], any real dtype, in the unit of `intensity`.
            intensity: Declared range.

        Returns:
            [N, C·min(H, 32)·min(W, 32)] float32; a row of NaN for an image that holds a non-finite pixel.
        """
        # One image at a time: torch may add up a row in another order when the batch has another shape.
        rows = [pixel_embedding(image[None].to(self.device), intensity) for image in images]
        return torch.cat(rows).cpu() if rows else pixel_embedding(images, intensity).cpu()
