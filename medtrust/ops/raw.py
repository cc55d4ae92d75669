"""The native kernels on NumPy arrays, without torch: for services and notebooks that have no use for it.

`from medtrust.ops import raw` imports NumPy alone. The values are those of the functions of the same name in
`medtrust.ops`; there is no gradient, no CUDA, and no twin: without the extension these functions raise.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtrust.errors import DataError, NativeError
from medtrust.ops import _native
from medtrust.ops._conventions import CONVENTIONS, K1, K2, window_of
from medtrust.ops._numbers import NORMAL, UNIFORM, noise_place, positive

__all__ = ["philox_normal", "philox_uniform", "reparameterise", "ssim"]

PIXELS = {"uint8": 0, "uint16": 1, "float32": 2}  # codes of csrc/pixel.h


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
    lib = _extension("ssim")
    x, y = _array("ssim", "x", x, PIXELS), _array("ssim", "y", y, PIXELS)
    if x.shape != y.shape or x.dtype != y.dtype:
        raise DataError(f"ops.raw.ssim: x is {_kind(x)}, y is {_kind(y)}; bring both to the same shape and dtype")
    if x.ndim not in (4, 5) or x.shape[1] == 0:
        raise DataError(f"ops.raw.ssim: x has shape {list(x.shape)}; give [N, C, H, W] or [N, C, D, H, W]")
    chosen, rules = window_of("raw.ssim", convention, window, size, sigma), CONVENTIONS[convention]
    taps, axes = list(chosen.taps), x.ndim - 2
    least = len(taps) // 2 + 1 if rules.reflect else len(taps)
    if min(x.shape[2:]) < least:
        raise DataError(f"ops.raw.ssim: images of {list(x.shape[2:])} pixels are smaller than {least}; use fewer taps")
    width = positive("raw.ssim", "data_range", data_range)
    covariance = len(taps) ** axes / (len(taps) ** axes - 1) if rules.sample_covariance else 1.0
    shape = [x.shape[0] * x.shape[1], x.shape[2] if axes == 3 else 1, x.shape[-2], x.shape[-1]]
    constants = [(K1 * width) ** 2, (K2 * width) ** 2, covariance, 2 * width**2]
    planes, contrast = np.empty(x.shape[:2]), np.empty(x.shape[:2])
    images = (x.ctypes.data, y.ctypes.data, shape, PIXELS[x.dtype.name])
    lib.ssim_cpu(
        *images, taps, axes == 3, rules.reflect, constants, planes.ctypes.data, contrast.ctypes.data, _team(threads)
    )
    bad = np.flatnonzero(~np.isfinite(planes).all(axis=1))
    if len(bad):
        raise DataError(f"ops.raw.ssim: image {bad[0]} holds a NaN or an infinity; mask or clip it before comparing")
    return planes.mean(axis=1)  # type: ignore[no-any-return]


def philox_normal(
    shape: Sequence[int], seed: int, step: int = 0, *, first: int = 0, threads: int = 1
) -> NDArray[np.float32]:
    """Standard normal noise of a batch, the bits of `medtrust.ops.philox_normal` on the CPU.

    Args:
        shape: `[N, ...]`.
        seed: 0..2^63 - 1.
        step: 0..2^63 - 1.
        first: Index of the first sample.
        threads: Threads to use; the bits do not depend on it.

    Returns:
        `shape` float32.

    Raises:
        DataError: An argument is out of range.
        NativeError: There is no extension.

    Reference:
        Philox4x32-10: doi:10.1145/2063384.2063405
    """
    return _drawn("philox_normal", NORMAL, shape, seed, step, first, threads)


def philox_uniform(
    shape: Sequence[int], seed: int, step: int = 0, *, first: int = 0, threads: int = 1
) -> NDArray[np.float32]:
    """Uniform noise of a batch, the bits of `medtrust.ops.philox_uniform`.

    Args:
        shape: `[N, ...]`.
        seed: 0..2^63 - 1.
        step: 0..2^63 - 1.
        first: Index of the first sample.
        threads: Threads to use; the bits do not depend on it.

    Returns:
        `shape` float32 in [0, 1).

    Raises:
        DataError: An argument is out of range.
        NativeError: There is no extension.

    Reference:
        Philox4x32-10: doi:10.1145/2063384.2063405
    """
    return _drawn("philox_uniform", UNIFORM, shape, seed, step, first, threads)


def reparameterise(
    mu: NDArray[Any], logvar: NDArray[Any], seed: int, step: int = 0, *, first: int = 0, threads: int = 1
) -> NDArray[np.float32]:
    """A latent drawn from a VAE's posterior: mu + exp(logvar / 2) noise.

    Args:
        mu: Means `[N, ...]` float32.
        logvar: Logarithms of the variances, the same shape and dtype.
        seed: 0..2^63 - 1.
        step: 0..2^63 - 1.
        first: Index of the first sample.
        threads: Threads to use; the bits do not depend on it.

    Returns:
        Latents, the shape of mu, float32.

    Raises:
        DataError: An argument does not fit.
        NativeError: There is no extension.

    Reference:
        Kingma & Welling 2014, arXiv:1312.6114, section 2.4
    """
    lib = _extension("reparameterise")
    mu, logvar = (_array("reparameterise", n, a, ["float32"]) for n, a in (("mu", mu), ("logvar", logvar)))
    if mu.shape != logvar.shape or mu.ndim == 0:
        raise DataError(f"ops.raw.reparameterise: mu is {_kind(mu)}, logvar {_kind(logvar)}; give both [N, ...]")
    place = noise_place("raw.reparameterise", mu.shape, seed, step, first)
    out = np.empty(mu.shape, np.float32)
    lib.reparameterise_cpu(mu.ctypes.data, logvar.ctypes.data, place, mu.size, out.ctypes.data, _team(threads))
    return out


def _drawn(
    op: str, kind: int, shape: Sequence[int], seed: int, step: int, first: int, threads: int
) -> NDArray[np.float32]:
    lib = _extension(op)
    sizes = [operator.index(size) for size in shape]
    if not sizes or min(sizes) < 0:
        raise DataError(f"ops.raw.{op}: shape is {sizes}; give [N, ...] without negative sizes")
    out = np.empty(sizes, np.float32)
    lib.philox_cpu(kind, noise_place(f"raw.{op}", sizes, seed, step, first), out.size, out.ctypes.data, _team(threads))
    return out


def _extension(op: str) -> Any:
    """The extension, or an error that says why there is none."""
    if _native.extension is None:
        raise NativeError(f"ops.raw.{op} needs the compiled kernels: {_native.absence}")
    return _native.extension


def _array(op: str, name: str, array: NDArray[Any], dtypes: Any) -> NDArray[Any]:
    """A checked array whose memory a kernel can read."""
    if not isinstance(array, np.ndarray):
        raise DataError(f"ops.raw.{op}: {name} is a {type(array).__name__}; pass a NumPy array")
    if array.dtype.name not in dtypes or not array.dtype.isnative:
        raise DataError(f"ops.raw.{op}: {name} is {array.dtype}; convert it to {' or '.join(dtypes)}")
    return np.ascontiguousarray(array) if array.ndim else array


def _kind(array: NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _team(threads: int) -> int:
    if operator.index(threads) < 1:
        raise DataError(f"ops.raw: threads is {threads}; give at least 1")
    return int(threads)
