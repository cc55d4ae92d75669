"""Noise that depends on (seed, step, element) alone: the same at any thread count, batch split and instruction set."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from medtrust.errors import DataError, NativeError
from medtrust.ops import _native, reference_sampling
from medtrust.ops._check import kernel_input, on_device, threads
from medtrust.ops._numbers import NORMAL, UNIFORM, WORDS, noise_place

__all__ = ["philox_normal", "philox_uniform", "reparameterise", "truncated_normal"]


def philox_normal(
    shape: Sequence[int], seed: int, step: int = 0, device: str | torch.device = "cpu", *, first: int = 0
) -> Tensor:
    """Standard normal noise of a batch: sample i depends on (seed, step, first + i) alone.

    The CPU gives the same bits on every instruction set. A CUDA device runs the same arithmetic; without compiled
    kernels the float64 twin serves, within 4 units in the last place.

    Args:
        shape: `[N, ...]`; element e of the noise is number `first * (elements per sample) + e` of the sequence.
        seed: 0..2^63 - 1, as `medtrust.seeding.derive_seed` makes them.
        step: 0..2^63 - 1; each step has its own sequence. `diffusion_step` uses row + 1, so 0 is free for the start.
        device: Where the noise is wanted.
        first: Index of the first sample.

    Returns:
        `shape` float32, mean 0, standard deviation 1, |z| below 6.8.

    Raises:
        DataError: An argument is out of range.

    Reference:
        Philox4x32-10: doi:10.1145/2063384.2063405; Box & Muller 1958, doi:10.1214/aoms/1177706645
    """
    return _drawn("philox_normal", NORMAL, shape, seed, step, device, first)


def philox_uniform(
    shape: Sequence[int], seed: int, step: int = 0, device: str | torch.device = "cpu", *, first: int = 0
) -> Tensor:
    """Uniform noise of a batch: sample i depends on (seed, step, first + i) alone, the same bits everywhere.

    Args:
        shape: `[N, ...]`.
        seed: 0..2^63 - 1.
        step: 0..2^63 - 1; each step has its own sequence.
        device: Where the noise is wanted.
        first: Index of the first sample.

    Returns:
        `shape` float32 in [0, 1), multiples of 2^-24.

    Raises:
        DataError: An argument is out of range.

    Reference:
        Philox4x32-10: doi:10.1145/2063384.2063405
    """
    return _drawn("philox_uniform", UNIFORM, shape, seed, step, device, first)


def truncated_normal(
    shape: Sequence[int],
    seed: int,
    step: int = 0,
    bound: float = 2.0,
    device: str | torch.device = "cpu",
    *,
    first: int = 0,
) -> Tensor:
    """Standard normals conditioned on |z| <= bound, for the latents of a GAN, by inversion in float64.

    Args:
        shape: `[N, ...]`.
        seed: 0..2^63 - 1.
        step: 0..2^63 - 1; each step has its own sequence.
        bound: Truncation, above zero; BigGAN's trick with threshold `bound`, without its rejected draws.
        device: Where the noise is wanted.
        first: Index of the first sample.

    Returns:
        `shape` float32 in [-bound, bound].

    Raises:
        DataError: An argument is out of range.

    Reference:
        Brock, Donahue & Simonyan 2019, arXiv:1809.11096, section 3.1
    """
    if not (math.isfinite(bound) and bound > 0):
        raise DataError(f"ops.truncated_normal: bound is {bound}; give a finite number above zero")
    words = _drawn("truncated_normal", WORDS, shape, seed, step, device, first)
    # read as signed numbers the words spread evenly over (-1/2, 1/2), symmetric with the half
    centred = (words.to(torch.float64) + 0.5) * 2.0**-32
    inside = math.erf(bound / math.sqrt(2))
    exact: Tensor = torch.special.ndtri(0.5 + centred * inside)
    return exact.clamp(-bound, bound).to(torch.float32)


def reparameterise(mu: Tensor, logvar: Tensor, seed: int, step: int = 0, *, first: int = 0) -> Tensor:
    """A latent drawn from a VAE's posterior: mu + exp(logvar / 2) noise, differentiable in both.

    Args:
        mu: Means `[N, ...]` float32.
        logvar: Logarithms of the variances, the same shape, dtype and device.
        seed: 0..2^63 - 1.
        step: 0..2^63 - 1; the noise is `philox_normal(mu.shape, seed, step, first=first)`.
        first: Index of the first sample.

    Returns:
        Latents, the shape of mu, float32.

    Raises:
        DataError: An argument does not fit.

    Reference:
        Kingma & Welling 2014, arXiv:1312.6114, section 2.4
    """
    for name, t in (("mu", mu), ("logvar", logvar)):
        if not isinstance(t, Tensor) or t.dtype != torch.float32 or t.layout != torch.strided:
            raise DataError(f"ops.reparameterise: {name} must be a strided float32 tensor; convert it with .float()")
        if t.device.type not in ("cpu", "cuda"):
            raise DataError(f"ops.reparameterise: there is no kernel for device {t.device}; move {name} to the CPU")
    if mu.shape != logvar.shape or mu.device != logvar.device or mu.ndim == 0:
        raise DataError(
            f"ops.reparameterise: mu is {list(mu.shape)} on {mu.device}, logvar {list(logvar.shape)} on "
            f"{logvar.device}; give both the same shape [N, ...] and device"
        )
    seed, step, offset = noise_place("reparameterise", mu.shape, seed, step, first)
    result: Tensor = torch.ops.medtrust.reparameterise(mu, logvar, seed, step, offset)
    return result


def _drawn(
    op: str, kind: int, shape: Sequence[int], seed: int, step: int, device: str | torch.device, first: int
) -> Tensor:
    sizes = [operator.index(size) for size in shape]
    if not sizes or min(sizes) < 0:
        raise DataError(f"ops.{op}: shape is {sizes}; give [N, ...] without negative sizes")
    place = torch.device(device)
    if place.type not in ("cpu", "cuda"):
        raise DataError(f"ops.{op}: there is no kernel for device {place}; draw on the CPU and move the noise")
    result: Tensor = torch.ops.medtrust.philox(sizes, kind, *noise_place(op, sizes, seed, step, first), place)
    return result


@torch.library.custom_op("medtrust::philox", mutates_args=())
def _philox_op(shape: Sequence[int], kind: int, seed: int, step: int, offset: int, device: torch.device) -> Tensor:
    out = torch.empty(shape, dtype=torch.int32 if kind == WORDS else torch.float32, device=device)
    if out.numel() == 0:
        return out
    lib = _native.kernels("philox_normal", out.device.type)
    if lib is None:
        twins: Any = {
            WORDS: reference_sampling.words,
            UNIFORM: reference_sampling.uniforms,
            NORMAL: reference_sampling.normals,
        }
        drawn: Tensor = twins[kind](out.numel(), seed, step, offset, out.device)
        if kind == WORDS:
            drawn = drawn - (drawn >> 31 << 32)
        return drawn.to(out.dtype).reshape(list(shape))
    arguments = (kind, (seed, step, offset), out.numel(), out.data_ptr())
    try:
        if not out.is_cuda:
            lib.philox_cpu(*arguments, threads())
        else:
            with on_device(out) as stream:
                lib.philox_cuda(*arguments, stream)
    except (RuntimeError, ValueError) as error:
        raise NativeError(f"ops.philox_normal: {error}") from error
    return out


@_philox_op.register_fake
def _(shape: Sequence[int], kind: int, seed: int, step: int, offset: int, device: torch.device) -> Tensor:
    return torch.empty(shape, dtype=torch.int32 if kind == WORDS else torch.float32, device=device)


@torch.library.custom_op("medtrust::reparameterise", mutates_args=())
def _reparameterise_op(mu: Tensor, logvar: Tensor, seed: int, step: int, offset: int) -> Tensor:
    if mu.numel() == 0:
        return torch.empty(mu.shape, dtype=mu.dtype, device=mu.device)
    lib = _native.kernels("reparameterise", mu.device.type)
    if lib is None:
        noise = reference_sampling.normals(mu.numel(), seed, step, offset, mu.device).reshape(mu.shape)
        return (mu.to(torch.float64) + torch.exp(logvar.to(torch.float64) / 2) * noise).to(torch.float32)
    mu, logvar = kernel_input("reparameterise", "mu", mu), kernel_input("reparameterise", "logvar", logvar)
    out = torch.empty_like(mu)
    arguments = (mu.data_ptr(), logvar.data_ptr(), (seed, step, offset), mu.numel(), out.data_ptr())
    try:
        if not mu.is_cuda:
            lib.reparameterise_cpu(*arguments, threads())
        else:
            with on_device(mu) as stream:
                lib.reparameterise_cuda(*arguments, stream)
    except (RuntimeError, ValueError) as error:
        raise NativeError(f"ops.reparameterise: {error}") from error
    return out


@_reparameterise_op.register_fake
def _(mu: Tensor, logvar: Tensor, seed: int, step: int, offset: int) -> Tensor:
    return torch.empty(mu.shape, dtype=mu.dtype, device=mu.device)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, logvar, *ctx.place = inputs
    ctx.save_for_backward(logvar)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (logvar,) = ctx.saved_tensors
    of_logvar = None
    if ctx.needs_input_grad[1]:  # the noise is drawn again rather than kept
        noise = torch.ops.medtrust.philox(list(logvar.shape), NORMAL, *ctx.place, logvar.device)
        of_logvar = 0.5 * grad * torch.exp(0.5 * logvar) * noise
    return grad, of_logvar, None, None, None


_reparameterise_op.register_autograd(_backward, setup_context=_setup)
