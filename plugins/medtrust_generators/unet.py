"""A small U-Net that takes an embedding of everything it is conditioned on."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["UNet", "levels_for", "padding_to"]

_GROUPS = 8


def levels_for(height: int, width: int, side: int) -> int:
    """Count the halvings that bring an image down to at most `side` pixels, at least one."""
    return max(1, math.ceil(math.log2(max(height, width) / side)))


def padding_to(height: int, width: int, multiple: int) -> tuple[int, int, int, int]:
    """Say how much to pad on the right and at the bottom, as `functional.pad` wants it."""
    return (0, -width % multiple, 0, -height % multiple)


class _Block(nn.Module):
    """Two convolutions with a residual path; the embedding scales and shifts between them."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_GROUPS, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.modulate = nn.Linear(embedding, 2 * outputs)
        self.norm2 = nn.GroupNorm(_GROUPS, outputs)
        self.conv2 = _zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.short = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulate(embedding)[:, :, None, None].chunk(2, 1)
        h = self.conv1(functional.silu(self.norm1(x)))
        h = self.norm2(h) * (1 + scale) + shift
        return self.short(x) + self.conv2(functional.silu(h))


class _Attention(nn.Module):
    """Self-attention over positions, heads of 32 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = _zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, -1, 32)).transpose(-1, -2).unbind(1)
        h = functional.scaled_dot_product_attention(q, k, v)  # [N, heads, HW, 32]
        return x + self.out(h.transpose(-1, -2).flatten(1, 2).view_as(x))


class UNet(nn.Module):
    """Image in, image of the same shape out, [N, C, H, W] float32; zero at the start.

    Args:
        shape: (C, H, W).
        width: Channels of the finest level, a multiple of 16; coarser levels have twice as many.
        embedding: Length of the embedding.
        extra: Further input channels that are not in the output.
    """

    def __init__(self, shape: tuple[int, int, int], width: int, embedding: int, extra: int = 0) -> None:
        super().__init__()
        channels, height, columns = shape
        # The finest level works on 2x2 pixels at once: a quarter of the positions for the same picture.
        steps = levels_for(height, columns, 16)
        self.padding = padding_to(height, columns, 2 ** (steps + 1))
        sizes = [width] + [2 * width] * steps
        self.enter = nn.Conv2d(4 * (channels + extra), width, 3, padding=1)
        self.down = nn.ModuleList(_Block(a, b, embedding) for a, b in itertools.pairwise([width, *sizes]))
        self.coarsen = nn.ModuleList(nn.Conv2d(a, a, 3, stride=2, padding=1) for a in sizes[:-1])
        self.middle = nn.ModuleList(_Block(2 * width, 2 * width, embedding) for _ in range(2))
        self.attention = _Attention(2 * width)
        back = sizes[::-1]
        self.up = nn.ModuleList(_Block(2 * size, size, embedding) for size in back)
        self.refine = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(back))
        self.norm = nn.GroupNorm(_GROUPS, width)
        self.leave = _zeroed(nn.Conv2d(width, 4 * channels, 3, padding=1))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map x [N, C + extra, H, W] and the embedding [N, E] to [N, C, H, W]."""
        height, width = x.shape[2:]
        h = self.enter(functional.pixel_unshuffle(functional.pad(x, self.padding, mode="replicate"), 2))
        kept = []
        for level, block in enumerate(self.down):
            h = block(h, embedding)
            kept.append(h)
            if level < len(self.coarsen):
                h = self.coarsen[level](h)
        h = self.middle[1](self.attention(self.middle[0](h, embedding)), embedding)
        for level, block in enumerate(self.up):
            h = block(torch.cat([h, kept.pop()], 1), embedding)
            if level < len(self.refine):
                h = self.refine[level](functional.interpolate(h, scale_factor=2.0))
        out = functional.pixel_shuffle(self.leave(functional.silu(self.norm(h))), 2)
        return out[:, :, :height, :width]


def _zeroed(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
