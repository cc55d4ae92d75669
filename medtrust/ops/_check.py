"""One place that checks what an op is given, and the only one that copies to make it fit."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from medtrust.errors import DataError
from medtrust.ops._numbers import positive

__all__ = ["features", "finite", "kernel_input", "on_device", "positive", "same_images", "threads"]

log = logging.getLogger("medtrust.ops")

PIXELS = {torch.uint8: 0, torch.uint16: 1, torch.float32: 2}  # codes of csrc/ssim.h
IMAGES = frozenset((*PIXELS, torch.float64))


def same_images(op: str, x: Tensor, y: Tensor) -> None:
    """Check that two image batches can be compared.

    Args:
        op: Public name of the op, for the message.
        x: Images `[N, C, H, W]` or `[N, C, D, H, W]`, uint8, uint16, float32 or float64.
        y: The same shape, dtype and device as x.

    Raises:
        DataError: One of these does not hold.
    """
    for name, t in (("x", x), ("y", y)):
        if not isinstance(t, Tensor):
            raise DataError(
                f"ops.{op}: {name} is a {type(t).__name__}; pass a torch tensor (torch.from_numpy makes one)"
            )
        if t.dtype not in IMAGES:
            raise DataError(f"ops.{op}: {name} is {t.dtype}; convert it to uint8, uint16, float32 or float64")
        if t.layout != torch.strided:
            raise DataError(f"ops.{op}: {name} has layout {t.layout}; call .to_dense() on it")
        if t.ndim not in (4, 5):
            raise DataError(f"ops.{op}: {name} has shape {list(t.shape)}; give [N, C, H, W] or [N, C, D, H, W]")
        if t.shape[1] == 0:
            raise DataError(f"ops.{op}: {name} has no channel, its shape is {list(t.shape)}; give at least one")
    for what, a, b in (
        ("shape", list(x.shape), list(y.shape)),
        ("dtype", x.dtype, y.dtype),
        ("device", x.device, y.device),
    ):
        if a != b:
            raise DataError(f"ops.{op}: x and y differ in {what} ({a} and {b}); bring both to the same one")
    if x.device.type not in ("cpu", "cuda"):
        raise DataError(
            f"ops.{op}: there is no kernel for device {x.device}; move the images to the CPU or a CUDA device"
        )


def features(op: str, **matrices: Tensor) -> None:
    """Check feature matrices that are compared with each other.

    Args:
        op: Public name of the op.
        matrices: Features `[n, d]`, float32 or float64, by argument name; all of one width, dtype and device.

    Raises:
        DataError: One of these does not hold, a matrix is empty, or one holds a NaN or an infinity.
    """
    first_name, first = next(iter(matrices.items()))
    for name, t in matrices.items():
        if not isinstance(t, Tensor):
            raise DataError(
                f"ops.{op}: {name} is a {type(t).__name__}; pass a torch tensor (torch.from_numpy makes one)"
            )
        if t.dtype not in (torch.float32, torch.float64):
            raise DataError(f"ops.{op}: {name} is {t.dtype}; convert it to float32 or float64")
        if t.layout != torch.strided:
            raise DataError(f"ops.{op}: {name} has layout {t.layout}; call .to_dense() on it")
        if t.ndim != 2 or t.shape[1] == 0:
            raise DataError(f"ops.{op}: {name} has shape {list(t.shape)}; give features [n, d] with d of at least 1")
        if t.device.type not in ("cpu", "cuda"):
            raise DataError(
                f"ops.{op}: there is no kernel for device {t.device}; move {name} to the CPU or a CUDA device"
            )
        for what, a, b in (
            ("width", first.shape[1], t.shape[1]),
            ("dtype", first.dtype, t.dtype),
            ("device", first.device, t.device),
        ):
            if a != b:
                raise DataError(
                    f"ops.{op}: {first_name} and {name} differ in {what} ({a} and {b}); bring both to the same one"
                )
        if t.numel() == 0 or all(
            math.isfinite(value) for value in torch.aminmax(t.detach())
        ):  # a NaN is either's result
            continue
        good = torch.isfinite(t.detach()).all(1)
        if not bool(good.all()):
            row = int((~good).nonzero()[0])
            raise DataError(
                f"ops.{op}: row {row} of {name} holds a NaN or an infinity; drop or repair that feature row"
            )


def kernel_input(op: str, name: str, tensor: Tensor) -> Tensor:
    """Make a tensor readable by a kernel: contiguous, no gradient; a copy is named in the log.

    Args:
        op: Public name of the op.
        name: Name of the argument.
        tensor: Any strided tensor.

    Returns:
        The tensor itself where it is contiguous already, else a contiguous copy.
    """
    tensor = tensor.detach() if tensor.requires_grad else tensor
    if tensor.is_contiguous():
        return tensor
    log.debug(
        "ops.%s copies %s: strides %s of shape %s are not contiguous", op, name, tensor.stride(), list(tensor.shape)
    )
    return tensor.contiguous()


def finite(op: str, result: Tensor, what: str) -> None:
    """Refuse a result that a NaN or an infinity of the input has reached.

    Args:
        op: Public name of the op.
        result: One row per input item, any shape `[N, ...]`.
        what: What an item is, such as "image".

    Raises:
        DataError: An item's result is not finite; the message names the first one.
    """
    if not math.isfinite(result.sum()):  # results are bounded, so their sum overflows only where one is not finite
        good = torch.isfinite(result)
        first = int((~good.flatten(1).all(1)).nonzero()[0])
        raise DataError(f"ops.{op}: {what} {first} holds a NaN or an infinity; mask or clip it before comparing")


def threads() -> int:
    """Threads that torch was told to use; the kernels use as many."""
    return torch.get_num_threads()


@contextmanager
def on_device(tensor: Tensor) -> Iterator[int]:
    """Enter the tensor's CUDA device; yields the current stream's handle.

    Args:
        tensor: A CUDA tensor.

    Yields:
        Address of the current stream of that device.
    """
    with torch.cuda.device(tensor.device):
        yield torch.cuda.current_stream().cuda_stream
