"""Structural similarity (SSIM, MS-SSIM) in the conventions of the implementations people compare with."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from medtrust.errors import DataError, NativeError
from medtrust.ops import _native, reference
from medtrust.ops._check import PIXELS, finite, kernel_input, on_device, positive, same_images, threads
from medtrust.ops._conventions import CONVENTIONS, K1, K2, MS_WEIGHTS, Convention, Window, window_of

__all__ = ["MS_WEIGHTS", "ms_ssim", "ssim", "ssim_map"]


def ssim(
    x: Tensor,
    y: Tensor,
    *,
    data_range: float,
    window: str | None = None,
    size: int | None = None,
    sigma: float = 1.5,
    convention: str = "wang",
) -> Tensor:
    """Mean structural similarity of each image pair; differentiable for float images.

    Args:
        x: Images `[N, C, H, W]` or volumes `[N, C, D, H, W]`, uint8, uint16, float32 or float64.
        y: The images to compare with; same shape, dtype and device.
        data_range: Width of the declared intensity range (255 for 8-bit, 80 for an 80 HU window); never guessed.
        window: "gaussian" or "uniform"; None takes the convention's own (skimage: uniform, others: gaussian).
        size: Odd number of taps along each axis, 1..63; None takes 11 for a Gaussian (skimage and torchmetrics:
            `2 * int(3.5 sigma + 0.5) + 1`) and 7 for a uniform window.
        sigma: Standard deviation of the Gaussian, in pixels.
        convention: "wang", "skimage", "torchmetrics", "pytorch-msssim", "monai" or "piq" (without its downsampling).

    Returns:
        `[N]` float32, mean over channels and windows, -1..1, higher is more alike, 1 for identical images.

    Raises:
        DataError: Shapes, dtypes, devices or arguments do not fit, or an image holds a NaN or an infinity.

    Reference:
        Wang, Bovik, Sheikh & Simoncelli 2004, doi:10.1109/TIP.2003.819861
    """
    same_images("ssim", x, y)
    chosen = _window("ssim", convention, window, size, sigma)
    rules = CONVENTIONS[convention]
    _fits("ssim", x, len(chosen.taps), rules.reflect)
    planes = _planes("ssim", x, y, positive("ssim", "data_range", data_range), chosen, rules)
    full = planes[0]
    return (full[:, 0] if full.shape[1] == 1 else full.mean(1)).to(torch.float32)


def ssim_map(
    x: Tensor,
    y: Tensor,
    *,
    data_range: float,
    window: str | None = None,
    size: int | None = None,
    sigma: float = 1.5,
    convention: str = "wang",
) -> Tensor:
    """Structural similarity around each pixel, to see where two images differ; differentiable for float images.

    A map is looked at, one image at a time, so the float64 twin computes it: its mean is `ssim`.

    Args:
        x: As in `ssim`.
        y: As in `ssim`.
        data_range: As in `ssim`.
        window: As in `ssim`.
        size: As in `ssim`.
        sigma: As in `ssim`.
        convention: As in `ssim`.

    Returns:
        `[N, C, H', W']` (`[N, C, D', H', W']`) float32: as large as the image under "torchmetrics", which mirrors the
        border, else `size - 1` smaller along each axis.

    Raises:
        DataError: As in `ssim`.
    """
    same_images("ssim_map", x, y)
    chosen = window_of("ssim_map", convention, window, size, sigma)
    rules = CONVENTIONS[convention]
    _fits("ssim_map", x, len(chosen.taps), rules.reflect)
    data_range = positive("ssim_map", "data_range", data_range)
    count = len(chosen.taps) ** (x.ndim - 2)
    covariance = count / (count - 1) if rules.sample_covariance else 1.0
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    full, _ = reference.ssim_maps(x, y, chosen.taps, c1, c2, covariance, rules.reflect)
    finite("ssim_map", full.detach(), "image")
    return full.to(torch.float32)


def ms_ssim(
    x: Tensor,
    y: Tensor,
    *,
    data_range: float,
    window: str | None = None,
    size: int | None = None,
    sigma: float = 1.5,
    convention: str = "wang",
    weights: Sequence[float] = MS_WEIGHTS,
) -> Tensor:
    """Multi-scale structural similarity of each image pair; differentiable for float images.

    Negative factors count as zero, as in every implementation named here.

    Args:
        x: Images `[N, C, H, W]` or volumes `[N, C, D, H, W]`, uint8, uint16, float32 or float64.
        y: The images to compare with; same shape, dtype and device.
        data_range: Width of the declared intensity range; never guessed.
        window: As in `ssim`.
        size: As in `ssim`; the image must be wide enough for it at the coarsest scale.
        sigma: Standard deviation of the Gaussian, in pixels of each scale.
        convention: As in `ssim`; it also rules how odd edges are pooled and where channels are averaged.
        weights: Exponent of each scale, finest first.

    Returns:
        `[N]` float32, 0..1, higher is more alike.

    Raises:
        DataError: As in `ssim`, or the image is too small for this many scales.

    Reference:
        Wang, Simoncelli & Bovik 2003, doi:10.1109/ACSSC.2003.1292216
    """
    same_images("ms_ssim", x, y)
    if len(weights) == 0:
        raise DataError("ops.ms_ssim: weights is empty; give one exponent per scale")
    chosen = _window("ms_ssim", convention, window, size, sigma)
    rules = CONVENTIONS[convention]
    data_range = positive("ms_ssim", "data_range", data_range)
    factors = []
    for scale in range(len(weights)):
        if scale > 0:
            x, y = _halved(x, rules), _halved(y, rules)
        _fits("ms_ssim", x, len(chosen.taps), rules.reflect, scale)
        planes = _planes("ms_ssim", x, y, data_range, chosen, rules)
        factor = planes[0] if scale == len(weights) - 1 else _valid_contrast(x, y, planes, data_range, chosen, rules)
        factors.append(torch.relu(factor if rules.per_channel else factor.mean(1, keepdim=True)))
    exponents = torch.tensor(weights, dtype=torch.float64, device=x.device).reshape(-1, 1, 1)
    return (torch.stack(factors) ** exponents).prod(0).mean(1).to(torch.float32)


_kept_window = functools.lru_cache(maxsize=64)(window_of)


def _window(op: str, convention: str, window: str | None, size: int | None, sigma: float) -> Window:
    """`window_of`, kept: on a small image its taps take a share of the time. The compiler traces the plain function."""
    make = window_of if torch.compiler.is_compiling() else _kept_window
    return make(op, convention, window, size, sigma)


def _valid_contrast(
    x: Tensor, y: Tensor, planes: Tensor, data_range: float, window: Window, rules: Convention
) -> Tensor:
    """The contrast-structure factor over valid windows: torchmetrics crops it even where it mirrors for SSIM."""
    if not rules.reflect:
        return planes[1]
    inner = Convention(rules.window, rules.sample_covariance, False, rules.truncate, rules.pool, rules.per_channel)
    return _planes("ms_ssim", x, y, data_range, window, inner)[1]


def _halved(images: Tensor, rules: Convention) -> Tensor:
    """The 2x2(x2) mean that leads to the next scale."""
    sides = images.shape[2:]
    odd = rules.pool != "drop" and any(side % 2 for side in sides)
    if images.dtype in PIXELS and images.ndim == 4 and not odd and not images.requires_grad:
        lib = _native.kernels("ms_ssim", images.device.type)
        if lib is not None:
            images = kernel_input("ms_ssim", "an image", images)
            means = torch.empty(
                (*images.shape[:2], *(side // 2 for side in sides)), dtype=torch.float32, device=images.device
            )
            planes = images.shape[0] * images.shape[1]
            arguments = (images.data_ptr(), planes, *sides, PIXELS[images.dtype], means.data_ptr())
            if not images.is_cuda:
                lib.halve_cpu(*arguments, threads())
                return means
            with on_device(images) as stream:
                lib.halve_cuda(*arguments, stream)
            return means
    images = images if images.is_floating_point() else images.to(torch.float32)
    pool: Any = functional.avg_pool2d if len(sides) == 2 else functional.avg_pool3d
    if rules.pool == "zero":
        return pool(images, 2, padding=[side % 2 for side in sides])  # type: ignore[no-any-return]
    pads: list[int] = []
    for side in reversed(sides):  # torch pads the last axis first
        first = max(s % 2 for s in sides) if rules.pool == "replicate_first" else 0
        pads += [first, side % 2 if rules.pool == "replicate_last" else 0]
    return pool(functional.pad(images, pads, mode="replicate") if any(pads) else images, 2)  # type: ignore[no-any-return]


def _fits(op: str, x: Tensor, size: int, reflect: bool, scale: int = 0) -> None:
    """Refuse images smaller than the window."""
    least = size // 2 + 1 if reflect else size
    if min(x.shape[2:]) < least:
        where = f" at scale {scale + 1}" if scale else ""
        advice = "give fewer weights or a smaller size" if scale else "give a smaller size"
        raise DataError(f"ops.{op}: images of {list(x.shape[2:])} pixels{where} are smaller than {least}; {advice}")


def _planes(op: str, x: Tensor, y: Tensor, data_range: float, window: Window, rules: Convention) -> Tensor:
    """`[2, N, C]` float64: SSIM and contrast-structure of each channel."""
    count = len(window.taps) ** (x.ndim - 2)
    covariance = count / (count - 1) if rules.sample_covariance else 1.0
    taps = list(window.taps)
    arguments = (x, y, taps, data_range, covariance, rules.reflect)
    result: Tensor
    if torch.compiler.is_compiling() or x.requires_grad or y.requires_grad or type(x) is not Tensor:
        result = torch.ops.medtrust.ssim(*arguments)
    else:
        result = _ssim_planes(*arguments)  # past torch's dispatcher, which costs more than the kernel on a small image
    if not torch.compiler.is_compiling():
        detached = result.detach() if result.requires_grad else result
        if not math.isfinite(detached.sum()):
            finite(op, detached.transpose(0, 1), "image")
    return result


def _ssim_planes(
    x: Tensor, y: Tensor, taps: list[float], data_range: float, covariance: float, reflect: bool
) -> Tensor:
    if x.numel() == 0:
        return x.new_zeros((2, *x.shape[:2]), dtype=torch.float64)
    volumetric = x.ndim == 5
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    lib = _native.kernels("ssim") if x.dtype in PIXELS else None  # float64 images are the twin's own
    if lib is not None and x.is_cuda and not (lib.with_cuda and len(taps) == 11 and not volumetric):
        _native.warn_slower("ssim", "the CUDA kernel serves 2-D images and windows of 11 in builds with CUDA")
        lib = None
    if lib is None:
        return reference.ssim_planes(x, y, taps, c1, c2, covariance, reflect)
    x, y = kernel_input("ssim", "x", x), kernel_input("ssim", "y", y)
    shape = [x.shape[0] * x.shape[1], x.shape[2] if volumetric else 1, x.shape[-2], x.shape[-1]]
    images = (x.data_ptr(), y.data_ptr(), shape, PIXELS[x.dtype])
    rules = (taps, volumetric, reflect, [c1, c2, covariance, 2 * data_range**2])
    out = torch.empty((2, *x.shape[:2]), dtype=torch.float64, device=x.device)
    results = (out.data_ptr(), out.data_ptr() + out.nbytes // 2)
    try:
        if not x.is_cuda:
            lib.ssim_cpu(*images, *rules, *results, threads())
            return out
        with on_device(x) as stream:
            slots = lib.ssim_cuda_tiles(shape[2], shape[3], reflect)
            scratch = torch.empty((shape[0], slots, 2), dtype=torch.float64, device=x.device)
            lib.ssim_cuda(*images, *rules, scratch.data_ptr(), *results, stream)
            return out
    except (RuntimeError, ValueError) as error:
        raise NativeError(f"ops.ssim: {error}") from error


_ssim_op = torch.library.custom_op("medtrust::ssim", _ssim_planes, mutates_args=())


@_ssim_op.register_fake
def _(x: Tensor, y: Tensor, taps: list[float], data_range: float, covariance: float, reflect: bool) -> Tensor:
    return x.new_empty((2, *x.shape[:2]), dtype=torch.float64)


def _gradient_kernels(x: Tensor) -> Any:
    """The extension where it has the gradient: 2-D images on the CPU."""
    return None if x.is_cuda or x.ndim == 5 else _native.kernels("ssim")


@torch.library.custom_op("medtrust::ssim_gradient", mutates_args=())
def _gradient_op(
    x: Tensor,
    y: Tensor,
    upstream: Tensor,
    taps: list[float],
    data_range: float,
    covariance: float,
    reflect: bool,
    wants_x: bool,
    wants_y: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to x and y of the op's result weighted by `upstream` `[2, N, C]`; empty if not wanted."""
    wanted = (wants_x, wants_y)
    lib = _gradient_kernels(x)
    if lib is None:
        raise NativeError("ops.ssim: there is no kernel for this gradient; autograd uses the float64 twin's")
    if x.numel() == 0:
        return tuple(torch.zeros_like(x) if wants else x.new_empty(0) for wants in wanted)  # type: ignore[return-value]
    x, y = kernel_input("ssim", "x", x), kernel_input("ssim", "y", y)
    upstream = kernel_input("ssim", "the gradient of its result", upstream)
    grads = [torch.empty_like(x) if wants else x.new_empty(0) for wants in wanted]
    shape = [x.shape[0] * x.shape[1], 1, x.shape[-2], x.shape[-1]]
    images = (x.data_ptr(), y.data_ptr(), x.dtype == torch.float64, shape)
    results = [grad.data_ptr() if wants else 0 for grad, wants in zip(grads, wanted, strict=True)]
    constants = [(K1 * data_range) ** 2, (K2 * data_range) ** 2, covariance, 2 * data_range**2]
    try:
        lib.ssim_gradient_cpu(*images, taps, reflect, constants, upstream.data_ptr(), *results, threads())
    except (RuntimeError, ValueError) as error:
        raise NativeError(f"ops.ssim: {error}") from error
    return grads[0], grads[1]


@_gradient_op.register_fake
def _(
    x: Tensor,
    y: Tensor,
    upstream: Tensor,
    taps: list[float],
    data_range: float,
    covariance: float,
    reflect: bool,
    wants_x: bool,
    wants_y: bool,
) -> tuple[Tensor, Tensor]:
    shapes = [x.shape if wants else (0,) for wants in (wants_x, wants_y)]
    return x.new_empty(shapes[0]), y.new_empty(shapes[1])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, y, *rules = inputs
    ctx.save_for_backward(x, y)
    ctx.rules = rules


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, y = ctx.saved_tensors
    wanted = ctx.needs_input_grad[:2]
    if _gradient_kernels(x) is None:
        grads = _twin_gradient(x, y, grad, ctx.rules, wanted)
    else:
        grads = torch.ops.medtrust.ssim_gradient(x, y, grad, *ctx.rules, *wanted)
    return (*(g if wants else None for g, wants in zip(grads, wanted, strict=True)), None, None, None, None)


def _twin_gradient(
    x: Tensor, y: Tensor, grad: Tensor, rules: list[Any], wanted: tuple[bool, bool]
) -> list[Tensor | None]:
    taps, data_range, covariance, reflect = rules
    leaves = [t.detach().requires_grad_(wants) for t, wants in zip((x, y), wanted, strict=True)]
    with torch.enable_grad():
        constants = (K1 * data_range) ** 2, (K2 * data_range) ** 2
        result = reference.ssim_planes(leaves[0], leaves[1], taps, *constants, covariance, reflect)
    found = iter(torch.autograd.grad(result, [leaf for leaf in leaves if leaf.requires_grad], grad))
    return [next(found) if wants else None for wants in wanted]


_ssim_op.register_autograd(_backward, setup_context=_setup)
