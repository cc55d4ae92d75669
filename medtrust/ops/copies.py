"""Similarity of image pairs pixel by pixel, for the search of copies."""

from __future__ import annotations

import torch
from torch import Tensor

from medtrust.errors import DataError
from medtrust.ops import _native, reference
from medtrust.ops._check import finite, kernel_input, same_images, threads

__all__ = ["max_ncc", "tile_l2"]


def max_ncc(x: Tensor, y: Tensor, radius: int) -> Tensor:
    """The largest normalised cross-correlation of each pair over small shifts: a copy keeps 1 when it is moved.

    Each shift correlates the parts that overlap, all channels together, about their own means; brightness and contrast
    do not matter. A part that is flat correlates 0.

    Args:
        x: Images `[N, C, H, W]`, uint8, uint16, float32 or float64, finite, any unit.
        y: The same shape, dtype and device.
        radius: Largest shift along each axis in pixels, 0 or more and below both H and W.

    Returns:
        `[N]` float64 in -1..1, larger is more alike.

    Raises:
        DataError: Shapes, dtypes or devices do not fit, the radius does not, or a value is not finite.

    Reference:
        Lewis 1995, Fast normalized cross-correlation, Vision Interface 120-123
    """
    _checked("max_ncc", x, y)
    if not 0 <= radius < min(x.shape[2:]):
        raise DataError(
            f"ops.max_ncc: radius {radius} does not fit images of {x.shape[2]} x {x.shape[3]}; give 0 or more and "
            "less than either side"
        )
    result: Tensor = torch.ops.medtrust.max_ncc(x, y, radius)
    return result


def tile_l2(x: Tensor, y: Tensor, tile: int) -> Tensor:
    """The largest Euclidean distance between corresponding tiles of each pair: small only where nothing differs.

    Args:
        x: Images `[N, C, H, W]`, uint8, uint16, float32 or float64, finite, any unit.
        y: The same shape, dtype and device.
        tile: Side of the square tiles in pixels, at least 1; tiles do not overlap, the last ones may be smaller.

    Returns:
        `[N]` float64 in the images' unit, 0 for equal images, smaller is more alike.

    Raises:
        DataError: Shapes, dtypes or devices do not fit, `tile` is below 1, or a value is not finite.

    Reference:
        Carlini et al. 2023, arXiv:2301.13188, section 4.2
    """
    _checked("tile_l2", x, y)
    if tile < 1:
        raise DataError(f"ops.tile_l2: tile is {tile}; give the side of a tile in pixels, at least 1")
    result: Tensor = torch.ops.medtrust.tile_l2(x, y, tile)
    return result


def _checked(op: str, x: Tensor, y: Tensor) -> None:
    same_images(op, x, y)
    if x.ndim != 4 or 0 in x.shape[2:]:
        raise DataError(f"ops.{op}: the images have shape {list(x.shape)}; give [N, C, H, W] with at least one pixel")
    for images in (x, y):
        if images.is_floating_point() and images.numel():
            finite(op, images.detach().flatten(1).double().mul(2.0**-1000).sum(1, keepdim=True), "image")


def _pairs(op: str, x: Tensor, y: Tensor) -> tuple[tuple[int, int, bool], list[int], tuple[Tensor, Tensor]]:
    """Addresses, shape and the float tensors that keep them alive."""
    kind = torch.float64 if x.dtype == torch.float64 else torch.float32  # float32 holds every 16-bit value
    images = kernel_input(op, "x", x).to(kind), kernel_input(op, "y", y).to(kind)
    return (images[0].data_ptr(), images[1].data_ptr(), kind == torch.float64), list(x.shape), images


@torch.library.custom_op("medtrust::max_ncc", mutates_args=())
def _max_ncc_op(x: Tensor, y: Tensor, radius: int) -> Tensor:
    lib = None if x.is_cuda else _native.kernels("max_ncc")
    if lib is None:
        return reference.max_ncc(x, y, radius)
    addresses, shape, _images = _pairs("max_ncc", x, y)
    largest = torch.empty(len(x), dtype=torch.float64)
    lib.max_ncc(*addresses, shape, radius, largest.data_ptr(), threads())
    return largest


@torch.library.custom_op("medtrust::tile_l2", mutates_args=())
def _tile_l2_op(x: Tensor, y: Tensor, tile: int) -> Tensor:
    lib = None if x.is_cuda else _native.kernels("tile_l2")
    if lib is None:
        return reference.tile_l2(x, y, tile)
    addresses, shape, _images = _pairs("tile_l2", x, y)
    farthest = torch.empty(len(x), dtype=torch.float64)
    lib.tile_l2(*addresses, shape, tile, farthest.data_ptr(), threads())
    return farthest


@_max_ncc_op.register_fake
def _(x: Tensor, y: Tensor, radius: int) -> Tensor:
    return x.new_empty((x.shape[0],), dtype=torch.float64)


@_tile_l2_op.register_fake
def _(x: Tensor, y: Tensor, tile: int) -> Tensor:
    return x.new_empty((x.shape[0],), dtype=torch.float64)
