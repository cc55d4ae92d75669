"""Structural similarity, radiomics and comparisons for copies, on images as NumPy arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medtrust.errors import DataError
from medtrust.ops._conventions import CONVENTIONS, K1, K2, MS_WEIGHTS, Convention, Window, window_of
from medtrust.ops._numbers import positive
from medtrust.ops._radiomics_names import FAMILIES, levels_of, names_of
from medtrust.ops.raw._arrays import PIXELS, array, extension, kind, pair, team

__all__ = ["Radiomics", "max_ncc", "ms_ssim", "radiomics", "ssim", "tile_l2"]

GREYS = {"uint8": 0, "uint16": 1, "int16": 2, "float32": 3}  # codes of csrc/radiomics.h


class Radiomics(NamedTuple):
    """What `radiomics` returns.

    Args:
        values: `[N, F]` float64, one row per image.
        names: F column names, such as `glcm.contrast`.
    """

    values: NDArray[np.float64]
    names: tuple[str, ...]


def ssim(
    x: NDArray[Any],
    y: NDArray[Any],
    *,
    data_range: float,
    window: str | None = None,
    size: int | None = None,
    sigma: float = 1.5,
    convention: str = "wang",
    threads: int = 1,
) -> NDArray[np.float64]:
    """Mean structural similarity of each image pair.

    Args:
        x: Images `[N, C, H, W]` or volumes `[N, C, D, H, W]`, uint8, uint16 or float32.
        y: The images to compare with; same shape and dtype.
        data_range: Width of the declared intensity range; never guessed.
        window: As in `medtrust.ops.ssim`.
        size: As there.
        sigma: As there.
        convention: As there.
        threads: Threads to use; the bits do not depend on it.

    Returns:
        `[N]` float64, -1..1, higher is more alike.

    Raises:
        DataError: Shapes, dtypes or arguments do not fit, or an image holds a NaN or an infinity.
        NativeError: There is no extension.

    Reference:
        Wang, Bovik, Sheikh & Simoncelli 2004, doi:10.1109/TIP.2003.819861
    """
    extension("ssim")
    x, y = pair("ssim", x, y, (4, 5))
    chosen = window_of("raw.ssim", convention, window, size, sigma)
    width = positive("raw.ssim", "data_range", data_range)
    return _planes("ssim", x, y, width, chosen, CONVENTIONS[convention], team(threads))[0].mean(axis=1)  # type: ignore[no-any-return]


def ms_ssim(
    x: NDArray[Any],
    y: NDArray[Any],
    *,
    data_range: float,
    window: str | None = None,
    size: int | None = None,
    sigma: float = 1.5,
    convention: str = "wang",
    weights: Sequence[float] = MS_WEIGHTS,
    threads: int = 1,
) -> NDArray[np.float64]:
    """Multi-scale structural similarity of each image pair.

    Args:
        x: As in `ssim`.
        y: As in `ssim`.
        data_range: As in `ssim`.
        window: As in `ssim`.
        size: As in `ssim`.
        sigma: As in `ssim`.
        convention: As in `ssim`; it also rules how odd edges are pooled and where channels are averaged.
        weights: Exponent of each scale, finest first.
        threads: Threads to use; the bits do not depend on it.

    Returns:
        `[N]` float64, 0..1, higher is more alike.

    Raises:
        DataError: As in `ssim`, or the image is too small for this many scales.
        NativeError: There is no extension.

    Reference:
        Wang, Simoncelli & Bovik 2003, doi:10.1109/ACSSC.2003.1292216
    """
    extension("ms_ssim")
    x, y = pair("ms_ssim", x, y, (4, 5))
    if len(weights) == 0:
        raise DataError("ops.raw.ms_ssim: weights is empty; give one exponent per scale")
    chosen, rules = window_of("raw.ms_ssim", convention, window, size, sigma), CONVENTIONS[convention]
    width = positive("raw.ms_ssim", "data_range", data_range)
    product: Any = 1.0
    for scale, weight in enumerate(weights):
        if scale > 0:
            x, y = _halved(x, rules), _halved(y, rules)
        last = scale == len(weights) - 1
        # torchmetrics crops the contrast-structure factor to valid windows even where it mirrors for SSIM
        planes = _planes(
            "ms_ssim", x, y, width, chosen, rules, team(threads), mirror=rules.reflect and last, scale=scale
        )
        factor = planes[0 if last else 1]
        factor = factor if rules.per_channel else factor.mean(axis=1, keepdims=True)
        product = product * np.maximum(factor, 0.0) ** weight
    return product.mean(axis=1)  # type: ignore[no-any-return]


def _halved(images: NDArray[Any], rules: Convention) -> NDArray[np.float32]:
    """The 2x2(x2) mean that leads to the next scale."""
    sides = images.shape[2:]
    images = images.astype(np.float64)
    pads = {
        "drop": [(0, 0) for _ in sides],
        "zero": [(side % 2, side % 2) for side in sides],
        "replicate_first": [(max(side % 2 for side in sides), 0) for _ in sides],
        "replicate_last": [(0, side % 2) for side in sides],
    }[rules.pool]
    images = np.pad(images, [(0, 0), (0, 0), *pads], mode="constant" if rules.pool == "zero" else "edge")
    for axis in range(2, images.ndim):
        first, second = (images.take(range(start, images.shape[axis] // 2 * 2, 2), axis) for start in (0, 1))
        images = (first + second) / 2
    return np.ascontiguousarray(images, np.float32)


def _planes(
    op: str,
    x: NDArray[Any],
    y: NDArray[Any],
    data_range: float,
    window: Window,
    rules: Convention,
    threads: int,
    *,
    mirror: bool | None = None,
    scale: int = 0,
) -> NDArray[np.float64]:
    """`[2, N, C]`: SSIM and contrast-structure of each channel."""
    reflect = rules.reflect if mirror is None else mirror
    taps, axes = list(window.taps), x.ndim - 2
    least = len(taps) // 2 + 1 if reflect else len(taps)
    if min(x.shape[2:]) < least:
        where = f" at scale {scale + 1}" if scale else ""
        raise DataError(
            f"ops.raw.{op}: images of {list(x.shape[2:])} pixels{where} are smaller than {least}; use fewer taps"
        )
    covariance = len(taps) ** axes / (len(taps) ** axes - 1) if rules.sample_covariance else 1.0
    shape = [x.shape[0] * x.shape[1], x.shape[2] if axes == 3 else 1, x.shape[-2], x.shape[-1]]
    constants = [(K1 * data_range) ** 2, (K2 * data_range) ** 2, covariance, 2 * data_range**2]
    planes = np.empty((2, *x.shape[:2]))
    results = (planes[0].ctypes.data, planes[1].ctypes.data)
    images = (x.ctypes.data, y.ctypes.data, shape, PIXELS[x.dtype.name])
    extension(op).ssim_cpu(*images, taps, axes == 3, reflect, constants, *results, threads)
    bad = np.flatnonzero(~np.isfinite(planes[0]).all(axis=1))
    if len(bad):
        raise DataError(f"ops.raw.{op}: image {bad[0]} holds a NaN or an infinity; mask or clip it before comparing")
    return planes


def max_ncc(x: NDArray[Any], y: NDArray[Any], radius: int, *, threads: int = 1) -> NDArray[np.float64]:
    """The largest normalised cross-correlation of each pair over small shifts, the bits of `medtrust.ops.max_ncc`.

    Args:
        x: Images `[N, C, H, W]`, uint8, uint16 or float32, finite.
        y: The same shape and dtype.
        radius: Largest shift along each axis in pixels, 0 or more and below both H and W.
        threads: Threads to use; the bits do not depend on it.

    Returns:
        `[N]` float64 in -1..1, larger is more alike.

    Raises:
        DataError: Shapes, dtypes or the radius do not fit, or a value is not finite.
        NativeError: There is no extension.
    """
    lib, (x, y) = extension("max_ncc"), _finite_pair("max_ncc", x, y)
    if not 0 <= radius < min(x.shape[2:]):
        raise DataError(f"ops.raw.max_ncc: radius {radius} does not fit images {list(x.shape)}; give less than a side")
    largest = np.empty(len(x))
    lib.max_ncc(x.ctypes.data, y.ctypes.data, False, list(x.shape), radius, largest.ctypes.data, team(threads))
    return largest


def tile_l2(x: NDArray[Any], y: NDArray[Any], tile: int, *, threads: int = 1) -> NDArray[np.float64]:
    """The largest Euclidean distance between corresponding tiles of each pair, the bits of `medtrust.ops.tile_l2`.

    Args:
        x: Images `[N, C, H, W]`, uint8, uint16 or float32, finite.
        y: The same shape and dtype.
        tile: Side of the square tiles in pixels, at least 1.
        threads: Threads to use; the bits do not depend on it.

    Returns:
        `[N]` float64 in the images' unit, smaller is more alike.

    Raises:
        DataError: Shapes or dtypes do not fit, `tile` is below 1, or a value is not finite.
        NativeError: There is no extension.
    """
    lib, (x, y) = extension("tile_l2"), _finite_pair("tile_l2", x, y)
    if tile < 1:
        raise DataError(f"ops.raw.tile_l2: tile is {tile}; give the side of a tile in pixels, at least 1")
    farthest = np.empty(len(x))
    lib.tile_l2(x.ctypes.data, y.ctypes.data, False, list(x.shape), tile, farthest.ctypes.data, team(threads))
    return farthest


def _finite_pair(op: str, x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two checked batches as float32, which holds every 16-bit value."""
    x, y = pair(op, x, y, (4,))
    for images in (x, y):
        bad = np.flatnonzero(~np.isfinite(images).reshape(len(images), -1).all(axis=1))
        if len(bad):
            raise DataError(
                f"ops.raw.{op}: image {bad[0]} holds a NaN or an infinity; mask or clip it before comparing"
            )
    return x.astype(np.float32, copy=False), y.astype(np.float32, copy=False)


def radiomics(
    images: NDArray[Any],
    mask: NDArray[Any] | None = None,
    *,
    lo: float,
    hi: float,
    bins: int | None = None,
    width: float | None = None,
    families: tuple[str, ...] = tuple(FAMILIES),
    aggregation: str = "averaged",
    threads: int = 1,
) -> Radiomics:
    """Describe each image by first-order statistics and five texture matrices, as `medtrust.ops.radiomics` does.

    Args:
        images: `[N, H, W]` or `[N, C, H, W]`, uint8, uint16, int16 or float32.
        mask: Region to describe, `[N, H, W]`, bool or integer (inside where not 0); None for all.
        lo: Lower end of the declared intensity range, in the images' unit.
        hi: Upper end, above lo.
        bins: Fixed bin number, 1..256; 32 where neither bins nor width is given.
        width: Fixed bin size in the images' unit, instead of bins.
        families: Any of firstorder, glcm, glrlm, glszm, ngtdm, gldm.
        aggregation: "averaged" or "slice-merged".
        threads: Threads to use; the bits do not depend on it.

    Returns:
        `Radiomics(values, names)`.

    Raises:
        DataError: An argument is out of its range, a mask is empty, or a region holds a NaN or an infinity.
        NativeError: There is no extension.

    Reference:
        Zwanenburg et al., arXiv:1612.07003, doi:10.1148/radiol.2020191145
    """
    lib, images = extension("radiomics"), array("radiomics", "images", images, GREYS)
    images = images[:, None] if images.ndim == 3 else images
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise DataError(f"ops.raw.radiomics: images is {kind(images)}; give [N, H, W] or [N, C, H, W]")
    count, channels, height, across = images.shape
    region = None
    if mask is not None:
        if not isinstance(mask, np.ndarray) or mask.dtype.kind not in "biu" or mask.shape != (count, height, across):
            raise DataError(f"ops.raw.radiomics: mask must be bool or integers [{count}, {height}, {across}]")
        region = np.ascontiguousarray(mask != 0)
    if not (math.isfinite(lo) and math.isfinite(hi) and lo < hi):
        raise DataError(f"ops.raw.radiomics: the range {lo} to {hi} is empty or not finite; give lo and hi")
    unknown = [name for name in families if name not in FAMILIES]
    if unknown or not families or aggregation not in ("averaged", "slice-merged"):
        wrong = unknown[0] if unknown else aggregation if families else families
        raise DataError(f"ops.raw.radiomics: {wrong!r} is not one of {', '.join(FAMILIES)}, averaged, slice-merged")
    levels, multiply, divide = levels_of(lo, hi, bins, width)
    chosen = tuple(name for name in FAMILIES if name in families)
    bits = sum(1 << place for place, name in enumerate(FAMILIES) if name in chosen)
    values, states = np.empty((count * channels, len(names_of(chosen, 1)))), np.zeros(count * channels, np.int64)
    shape, binning = [count * channels, height, across, channels], [float(lo), multiply, divide]
    address = 0 if region is None else region.ctypes.data
    rules = (shape, GREYS[images.dtype.name], binning, levels, aggregation == "slice-merged", bits)
    lib.radiomics_cpu(images.ctypes.data, address, *rules, values.ctypes.data, states.ctypes.data, team(threads))
    bad = np.flatnonzero(states)
    if len(bad):
        what = "has an empty mask" if states[bad[0]] == 1 else "holds a NaN or an infinity"
        raise DataError(f"ops.raw.radiomics: image {bad[0] // channels} {what}; repair it or leave it out")
    names = names_of(chosen, channels)
    return Radiomics(values.reshape(count, len(names)), names)
