"""Pixels of a set as tensors, a few images at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from medtrust import Insufficient
from medtrust.types import SetData

__all__ = ["stacked"]

_EXACT = {"uint8", "uint16", "float32", "float64"}  # what the image kernels take; other types become float32


def stacked(data: SetData, rows: Sequence[int], batch: int) -> Iterator[torch.Tensor]:
    """Decode images and stack them.

    Args:
        data: The set.
        rows: Which images, in order; one may come several times.
        batch: Images per stack.

    Yields:
        [≤ batch, C, H, W] of the images' own type, float32 where the kernels do not take it.

    Raises:
        Insufficient: Images differ in shape or type, or hold values that are not finite.
    """
    kind: tuple[tuple[int, ...], str] | None = None
    for start in range(0, len(rows), batch):
        parts = []
        for row in rows[start : start + batch]:
            record = data.images[row]
            pixels = record.pixels
            here = (tuple(pixels.shape), str(pixels.dtype))
            kind = kind or here
            if here != kind:
                raise Insufficient(
                    f"images of {data.name} differ in shape or type ({_words(kind)}, but {record.name} is "
                    f"{_words(here)}): bring them to one size and pixel type first"
                )
            tensor = torch.as_tensor(pixels if pixels.dtype.name in _EXACT else pixels.astype("float32"))
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise Insufficient(f"{record.name} of {data.name} holds values that are not finite: leave it out")
            parts.append(tensor)
        yield torch.stack(parts)


def _words(kind: tuple[tuple[int, ...], str]) -> str:
    return f"{' x '.join(map(str, kind[0]))} {kind[1]}"
