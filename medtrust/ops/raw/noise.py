"""Counter-based noise on NumPy arrays."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtrust.errors import DataError
from medtrust.ops._numbers import NORMAL, UNIFORM, WORDS, noise_place
from medtrust.ops.raw._arrays import array, extension, kind, team

__all__ = ["philox_normal", "philox_uniform", "reparameterise", "truncated_normal"]


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
    lib = extension("reparameterise")
    mu, logvar = (array("reparameterise", n, a, ["float32"]) for n, a in (("mu", mu), ("logvar", logvar)))
    if mu.shape != logvar.shape or mu.ndim == 0:
        raise DataError(f"ops.raw.reparameterise: mu is {kind(mu)}, logvar {kind(logvar)}; give both [N, ...]")
    place = noise_place("raw.reparameterise", mu.shape, seed, step, first)
    out = np.empty(mu.shape, np.float32)
    lib.reparameterise_cpu(mu.ctypes.data, logvar.ctypes.data, place, mu.size, out.ctypes.data, team(threads))
    return out


def truncated_normal(
    shape: Sequence[int], seed: int, step: int = 0, bound: float = 2.0, *, first: int = 0, threads: int = 1
) -> NDArray[np.float32]:
    """Standard normal noise within -bound..bound, as `medtrust.ops.truncated_normal` draws it.

    Args:
        shape: `[N, ...]`.
        seed: 0..2^63 - 1.
        step: 0..2^63 - 1.
        bound: Largest magnitude, above zero.
        first: Index of the first sample.
        threads: Threads to use; the bits do not depend on it.

    Returns:
        `shape` float32.

    Raises:
        DataError: An argument is out of range.
        NativeError: There is no extension.
    """
    from scipy.special import ndtri  # a third of a second to import

    if not (math.isfinite(bound) and bound > 0):
        raise DataError(f"ops.raw.truncated_normal: bound is {bound}; give a finite number above zero")
    words = _drawn("truncated_normal", WORDS, shape, seed, step, first, threads)
    centred = (words.astype(np.float64) + 0.5) * 2.0**-32
    exact = ndtri(0.5 + centred * math.erf(bound / math.sqrt(2)))
    result: NDArray[np.float32] = np.clip(exact, -bound, bound).astype(np.float32)
    return result


def _drawn(op: str, code: int, shape: Sequence[int], seed: int, step: int, first: int, threads: int) -> NDArray[Any]:
    lib = extension(op)
    sizes = [operator.index(size) for size in shape]
    if not sizes or min(sizes) < 0:
        raise DataError(f"ops.raw.{op}: shape is {sizes}; give [N, ...] without negative sizes")
    out = np.empty(sizes, np.int32 if code == WORDS else np.float32)
    lib.philox_cpu(code, noise_place(f"raw.{op}", sizes, seed, step, first), out.size, out.ctypes.data, team(threads))
    return out
