"""Training images as one tensor, and the symmetries that may be applied to it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from medtrust.errors import ConfigError, DataError

if TYPE_CHECKING:
    from medtrust.types import ImageRecord

__all__ = ["stack_images", "symmetries"]


def stack_images(images: Sequence[ImageRecord]) -> tuple[Tensor, str, str]:
    """Bring every image into one float32 tensor [N, C, H, W]; also the dtype's name and a digest of the whole set.

    Raises:
        DataError: No images, several shapes or dtypes, or pixels that are not finite.
    """
    if not len(images):
        raise DataError("there are no images to train on; check the path")
    arrays, state = [], hashlib.sha256()
    first = images[0]
    for record in images:
        if record.pixels.shape != first.pixels.shape or record.pixels.dtype != first.pixels.dtype:
            raise DataError(
                f"{record.name} is {record.pixels.dtype} {list(record.pixels.shape)} but {first.name} is "
                f"{first.pixels.dtype} {list(first.pixels.shape)}; a generator is trained on images of one kind"
            )
        array = record.pixels.astype(np.float32)
        if array.ndim != 3 or not array.size or not np.isfinite(array).all():
            raise DataError(f"{record.name} is not finite numbers [C, H, W]; leave it out or repair it")
        arrays.append(array)
        state.update(record.digest.encode() + b"\n")
    return torch.from_numpy(np.stack(arrays)), first.pixels.dtype.name, state.hexdigest()


def symmetries(augment: str, pixels: Tensor, kind: str) -> list[Callable[[Tensor], Tensor]]:
    """List the symmetries of the image plane that training may apply.

    Args:
        augment: none, flips (both axes) or dihedral (and quarter turns).
        pixels: [N, C, H, W].
        kind: Name for messages.

    Raises:
        ConfigError: Quarter turns of images that are not square.
    """
    if augment == "dihedral" and pixels.shape[2] != pixels.shape[3]:
        raise ConfigError(f"option augment=dihedral of generator {kind} needs square images; use augment=flips")
    quarters = {"none": (0,), "flips": (0, 2), "dihedral": (0, 1, 2, 3)}[augment]
    mirrors = (False,) if augment == "none" else (False, True)
    return [_symmetry(k, mirror) for k in quarters for mirror in mirrors]


def _symmetry(quarters: int, mirror: bool) -> Callable[[Tensor], Tensor]:
    def turn(x: Tensor) -> Tensor:
        turned = torch.rot90(x, quarters, (2, 3))
        return turned.flip(3) if mirror else turned

    return turn
