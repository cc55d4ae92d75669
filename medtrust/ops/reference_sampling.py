"""Float64 torch twins of the sampler ops: Philox in integers, Box-Muller and the step as they are written down."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["diffusion_step", "normals", "philox", "uniforms", "words"]

MASK = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)


def _high(a: Tensor, multiplier: int) -> Tensor:
    """Upper 32 bits of the product of 32-bit numbers, without leaving int64."""
    return (a * (multiplier >> 16) + ((a * (multiplier & 0xFFFF)) >> 16)) >> 16


def philox(counter: Tensor, key: tuple[int, int]) -> Tensor:
    """Philox4x32-10.

    Args:
        counter: `[..., 4]` int64, 0..2^32 - 1.
        key: Two numbers 0..2^32 - 1.

    Returns:
        `[..., 4]` int64, 0..2^32 - 1.

    Reference:
        Salmon, Moraes, Dror & Shaw 2011, doi:10.1145/2063384.2063405
    """
    c0, c1, c2, c3 = counter.unbind(-1)
    k0, k1 = key
    for _ in range(10):
        low0, high0 = (c0 * MULTIPLIERS[0]) & MASK, _high(c0, MULTIPLIERS[0])
        low1, high1 = (c2 * MULTIPLIERS[1]) & MASK, _high(c2, MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return torch.stack([c0, c1, c2, c3], -1)


def words(count: int, seed: int, step: int, offset: int, device: torch.device) -> Tensor:
    """Words of the noise of (seed, step).

    Args:
        count: Elements.
        seed: 0..2^63 - 1.
        step: 0..2^63 - 1.
        offset: First element.
        device: Where to compute.

    Returns:
        `[count]` int64, 0..2^32 - 1.
    """
    blocks = torch.arange(offset // 4, (offset + count + 3) // 4, dtype=torch.int64, device=device)
    halves = [blocks & MASK, blocks >> 32]
    halves += [torch.full_like(blocks, half) for half in (step & MASK, step >> 32)]
    flat = philox(torch.stack(halves, -1), (seed & MASK, seed >> 32)).flatten()
    return flat[offset % 4 : offset % 4 + count]


def uniforms(count: int, seed: int, step: int, offset: int, device: torch.device) -> Tensor:
    """Uniform numbers, multiples of 2^-24.

    Args:
        count: Elements.
        seed: 0..2^63 - 1.
        step: 0..2^63 - 1.
        offset: First element.
        device: Where to compute.

    Returns:
        `[count]` float64 in [0, 1).
    """
    return (words(count, seed, step, offset, device) >> 8).to(torch.float64) * 2.0**-24


def normals(count: int, seed: int, step: int, offset: int, device: torch.device) -> Tensor:
    """Standard normals: words 2i and 2i + 1 give elements 2i and 2i + 1.

    Args:
        count: Elements.
        seed: 0..2^63 - 1.
        step: 0..2^63 - 1.
        offset: First element.
        device: Where to compute.

    Returns:
        `[count]` float64.

    Reference:
        Box & Muller 1958, doi:10.1214/aoms/1177706645
    """
    lead = offset % 2
    pairs = words(count + lead + (count + lead) % 2, seed, step, offset - lead, device).reshape(-1, 2)
    above = pairs[:, 0] - (pairs[:, 0] >> 31 << 32)  # u - 1 where u is above one half
    part = (above.to(torch.float64) + 0.5) * 2.0**-32
    log = torch.where(above < 0, torch.log1p(part.clamp(max=0)), torch.log(part.clamp(min=2.0**-33)))
    radius = torch.sqrt(-2 * log)
    angle = pairs[:, 1].to(torch.float64) * (2 * math.pi * 2.0**-32)
    both = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], -1)
    return both.flatten()[lead : lead + count]


def diffusion_step(
    x: Tensor,
    output: Tensor,
    unconditional: Tensor | None,
    memory: Tensor | None,
    row: Tensor,
    noise: Tensor | None,
    scale: float,
    limits: tuple[float, float],
) -> tuple[Tensor, Tensor]:
    """One row of a schedule.

    Args:
        x: `[N, ...]`.
        output: What the model returned, the same shape.
        unconditional: What it returned without the condition, or None for no guidance.
        memory: From the row before, or None.
        row: `[6]`, a row of `Schedule.table`.
        noise: `[N, ...]`, or None for a row without noise.
        scale: Guidance scale.
        limits: Smallest and largest value of the clean image.

    Returns:
        The next x and the clean image, float64.
    """
    kx, km, cx, cc, cm, cn = row.to(torch.float64).unbind()
    x, output = x.to(torch.float64), output.to(torch.float64)
    if unconditional is not None:
        base = unconditional.to(torch.float64)
        output = base + scale * (output - base)
    clean = (kx * x + km * output).clamp(*limits)
    result = cx * x + cc * clean
    if memory is not None:
        result = result + cm * memory.to(torch.float64)
    if noise is not None:
        result = result + cn * noise.to(torch.float64)
    return result, clean
