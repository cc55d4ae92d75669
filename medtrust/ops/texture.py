"""Radiomics of 2-D images: first-order statistics and grey-level texture by the IBSI's definitions."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from medtrust.errors import DataError, NativeError
from medtrust.ops import _device, _native, reference_radiomics
from medtrust.ops._check import kernel_input, threads
from medtrust.ops._radiomics_names import FAMILIES, levels_of, names_of

__all__ = ["Radiomics", "radiomics"]

GREYS = {torch.uint8: 0, torch.uint16: 1, torch.int16: 2, torch.float32: 3}  # codes of csrc/radiomics.h
LONGEST_SIDE = 65535
FINE, EMPTY = 0, 1


class Radiomics(NamedTuple):
    """What `radiomics` returns.

    Attributes:
        values: `[N, F]`, one row per image.
        names: F column names, such as `glcm.contrast`.
    """

    values: Tensor
    names: tuple[str, ...]


def radiomics(
    images: Tensor,
    mask: Tensor | None = None,
    *,
    lo: float,
    hi: float,
    bins: int | None = None,
    width: float | None = None,
    families: tuple[str, ...] = tuple(FAMILIES),
    aggregation: Literal["averaged", "slice-merged"] = "averaged",
    dtype: torch.dtype = torch.float32,
) -> Radiomics:
    """Describe each image by first-order statistics and five texture matrices.

    First-order statistics are taken from the intensities; entropy, uniformity and all texture from the grey levels
    1, 2, ... into which the declared range is cut. Values outside the range go to the first and last level. The
    number of levels in the normalised features is that of the range, not that of the image, so images stay
    comparable. Neighbours are the 8 adjacent pixels; for dependence they must have the same level.

    Where a formula has no value these are used: skewness, excess kurtosis, a ratio by zero and both information
    correlations 0; correlation 1; coarseness 1e6 (its upper limit); a region without adjacent pixels has each pixel
    paired with itself. Directions without any pair are left out of the average.

    A row depends on its image alone: the same bits in any batch and at any number of threads. The counts on a CUDA
    device are those of the CPU; the formulas round in another order there, by a few ulp. float64 images, and images on
    a device in a build without CUDA, run on the float64 reference on the CPU, which is slower.

    Args:
        images: `[N, H, W]` or `[N, C, H, W]`, uint8, uint16, int16, float32 or float64; each channel is described
            alone, and with several channels the names say which.
        mask: Region to describe, `[N, H, W]` or `[N, 1, H, W]`, bool or integer (inside where not 0); None for all.
        lo: Lower end of the declared intensity range, in the images' unit.
        hi: Upper end, above lo.
        bins: Fixed bin number, 1..256; 32 where neither bins nor width is given.
        width: Fixed bin size in the images' unit, instead of bins; it may give at most 256 levels.
        families: Any of firstorder, glcm, glrlm, glszm, ngtdm, gldm; the columns keep this order.
        aggregation: For glcm and glrlm, "averaged" computes features per direction and averages them (IBSI "2D,
            averaged"), "slice-merged" adds up the four directions' matrices first (IBSI "2D, slice-merged").
        dtype: Of the values, torch.float32 or torch.float64.

    Returns:
        `Radiomics(values, names)`.

    Raises:
        DataError: An argument is out of its range, a mask is empty, or a region holds a NaN or an infinity.

    Reference:
        Zwanenburg et al., Image biomarker standardisation initiative, arXiv:1612.07003, doi:10.1148/radiol.2020191145
    """
    images = _images(images)
    region = None if mask is None else _region(mask, images)
    if not (math.isfinite(lo) and math.isfinite(hi) and lo < hi):
        raise DataError(f"ops.radiomics: the range {lo} to {hi} is empty or not finite; give the declared lo and hi")
    levels, multiply, divide = levels_of(lo, hi, bins, width)
    unknown = [name for name in families if name not in FAMILIES]
    if unknown or not families:
        wrong = f"{unknown[0]!r} is not a family" if unknown else "families is empty"
        raise DataError(f"ops.radiomics: {wrong}; choose from {', '.join(FAMILIES)}")
    if aggregation not in ("averaged", "slice-merged"):
        raise DataError(f"ops.radiomics: aggregation {aggregation!r} is not one of averaged, slice-merged")
    if dtype not in (torch.float32, torch.float64):
        raise DataError(f"ops.radiomics: dtype {dtype} is not one of torch.float32, torch.float64")
    chosen = tuple(name for name in FAMILIES if name in families)
    binning, merged = [float(lo), multiply, divide], aggregation == "slice-merged"
    values, states = torch.ops.medtrust.radiomics(images, region, binning, levels, merged, ",".join(chosen))
    if bool((states != FINE).any()):
        channels = images.shape[1]
        plane = int((states != FINE).nonzero()[0])
        if int(states[plane]) == EMPTY:
            raise DataError(f"ops.radiomics: the mask of image {plane // channels} is empty; leave that image out")
        raise DataError(
            f"ops.radiomics: image {plane // channels} holds a NaN or an infinity; repair it or mask it out"
        )
    names = names_of(chosen, images.shape[1])
    return Radiomics(values.reshape(len(images), len(names)).to(dtype), names)


def _images(images: Tensor) -> Tensor:
    """Checked images as [N, C, H, W]."""
    if not isinstance(images, Tensor):
        raise DataError(f"ops.radiomics: images is a {type(images).__name__}; pass a torch tensor")
    if images.dtype not in (*GREYS, torch.float64):
        raise DataError(
            f"ops.radiomics: images is {images.dtype}; convert it to uint8, uint16, int16, float32 or float64"
        )
    if images.layout != torch.strided:
        raise DataError(f"ops.radiomics: images has layout {images.layout}; call .to_dense() on it")
    if images.ndim not in (3, 4) or 0 in images.shape[1:] or max(images.shape[-2:]) > LONGEST_SIDE:
        raise DataError(
            f"ops.radiomics: images has shape {list(images.shape)}; give [N, H, W] or [N, C, H, W] with at least one "
            f"pixel and sides up to {LONGEST_SIDE}"
        )
    if images.shape[-1] * images.shape[-2] > 2**31 - 4:
        raise DataError("ops.radiomics: an image has more than 2^31 pixels; cut it into parts")
    if images.device.type not in ("cpu", "cuda"):
        raise DataError(f"ops.radiomics: there is no kernel for device {images.device}; move images to the CPU")
    return images[:, None] if images.ndim == 3 else images


def _region(mask: Tensor, images: Tensor) -> Tensor:
    """Checked mask as bool [N, H, W] on the images' device."""
    count, _, height, width = images.shape
    if not isinstance(mask, Tensor) or mask.is_floating_point() or mask.is_complex():
        kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise DataError(f"ops.radiomics: mask is {kind}; give bool or integers, not 0 inside the region")
    if tuple(mask.shape) not in ((count, height, width), (count, 1, height, width)):
        raise DataError(
            f"ops.radiomics: mask has shape {list(mask.shape)}; give one per image, [{count}, {height}, {width}]"
        )
    return (mask != 0).reshape(count, height, width).to(images.device)


@torch.library.custom_op("medtrust::radiomics", mutates_args=())
def _radiomics_op(
    images: Tensor, mask: Tensor | None, binning: list[float], levels: int, merged: bool, families: str
) -> tuple[Tensor, Tensor]:
    images = kernel_input("radiomics", "images", images)
    region = None if mask is None else kernel_input("radiomics", "mask", mask)
    lib = _native.kernels("radiomics", images.device.type) if images.dtype in GREYS else None
    names = families.split(",")
    if lib is None:
        region = None if region is None else region.cpu()
        values, states = reference_radiomics.describe(images.cpu(), region, binning, levels, merged, names)
        return values.to(images.device), states.to(images.device)
    bits = sum(1 << place for place, name in enumerate(FAMILIES) if name in names)
    rules = (GREYS[images.dtype], binning, levels, merged, bits)
    try:
        if images.is_cuda:
            return _device.radiomics(lib, images, region, rules, len(names_of(names, 1)))
        count, channels, height, width = images.shape
        values = torch.empty((count * channels, len(names_of(names, 1))), dtype=torch.float64)
        states = torch.zeros(count * channels, dtype=torch.int64)
        shape, address = [count * channels, height, width, channels], 0 if region is None else region.data_ptr()
        lib.radiomics_cpu(images.data_ptr(), address, shape, *rules, values.data_ptr(), states.data_ptr(), threads())
    except (RuntimeError, ValueError) as error:
        raise NativeError(f"ops.radiomics: {error}") from error
    return values, states


@_radiomics_op.register_fake
def _(
    images: Tensor, mask: Tensor | None, binning: list[float], levels: int, merged: bool, families: str
) -> tuple[Tensor, Tensor]:
    planes, features = images.shape[0] * images.shape[1], len(names_of(families.split(","), 1))
    return images.new_empty((planes, features), dtype=torch.float64), images.new_empty((planes,), dtype=torch.int64)
