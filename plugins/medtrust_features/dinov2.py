"""DINOv2 features from a checkpoint of the published layout: a vision transformer that was taught without labels."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from medtrust.errors import DataError
from medtrust.weights import sha256_of
from medtrust_features.network import NetworkSpace, Precision
from medtrust_features.preparation import Preparation
from medtrust_features.state_dicts import fill, read_state_dict

__all__ = ["Dinov2", "VisionTransformer"]

VERSION = "1"
# ImageNet mean and standard deviation; 224 pixels, bicubic, the whole image instead of its centre.
PREPARATION = Preparation(
    size=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resize="bicubic", antialias=True
)
HEAD = 64  # channels of one attention head, in every published size
EPS = 1e-6


class Dinov2(NetworkSpace):
    """The normalised class token of DINOv2: 384 (S), 768 (B), 1024 (L) or 1536 (g) columns.

    Width, depth, patch, feed-forward kind and register tokens are read off the checkpoint, so that every published
    size opens, and so does a smaller one of the same layout.

    Args:
        weights: State dict such as `dinov2_vitb14_pretrain.pth` or `…_reg4_pretrain.pth` (.pth or .safetensors).
        device: Where to compute.
        precision: fp32 or bf16.

    Raises:
        DataError: The file does not have this layout.
        SafetyError: Reading the file could run code.

    Reference:
        Oquab et al., DINOv2, arXiv:2304.07193; Darcet et al., registers, arXiv:2309.16588; used to compare generators
        by Stein et al., arXiv:2306.04675.
    """

    def __init__(self, weights: Path, *, device: str = "cpu", precision: Precision = "fp32") -> None:
        path = Path(weights)
        digest, state = sha256_of(path), read_state_dict(path)
        state = {name: value for name, value in state.items() if name != "mask_token"}  # used in training alone
        network = VisionTransformer.like(state, path)
        fill(network, state, path, "a DINOv2 checkpoint", "give the backbone's state dict, without heads")
        super().__init__(
            "dinov2",
            network,
            PREPARATION,
            weights_sha256=digest,
            version=VERSION,
            columns=network.width,
            device=device,
            precision=precision,
        )


class VisionTransformer(nn.Module):
    """A vision transformer with layer scale, pre-normalisation and, perhaps, register tokens.

    Args:
        width: Channels of a token; a multiple of 64.
        depth: Number of blocks.
        patch: Side of a patch in pixels.
        grid: Patches per side that the position embedding was taught for.
        hidden: Channels inside the feed-forward part.
        registers: Number of register tokens.
        gated: The feed-forward part is SwiGLU instead of GELU.
    """

    def __init__(
        self, width: int, depth: int, patch: int, grid: int, hidden: int, registers: int = 0, *, gated: bool = False
    ) -> None:
        super().__init__()
        self.width, self.patch, self.grid = width, patch, grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, width))
        if registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, registers, width))
        self.registers = registers
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, patch, stride=patch)
        self.blocks = nn.ModuleList(_Block(width, hidden, gated) for _ in range(depth))
        self.norm = nn.LayerNorm(width, EPS)

    @classmethod
    def like(cls, state: dict[str, torch.Tensor], path: Path) -> VisionTransformer:
        """Make an empty network of the size that a state dict has.

        Raises:
            DataError: The layout is another one.
        """
        try:
            position, kernel = state["pos_embed"], state["patch_embed.proj.weight"]
            depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
            gated = "blocks.0.mlp.w12.weight" in state
            hidden = state["blocks.0.mlp.w3.weight"].shape[1] if gated else len(state["blocks.0.mlp.fc1.weight"])
            registers = state["register_tokens"].shape[1] if "register_tokens" in state else 0
            grid = math.isqrt(position.shape[1] - 1)
            if grid * grid != position.shape[1] - 1 or position.shape[2] % HEAD or kernel.ndim != 4:
                raise ValueError("the position embedding is not that of a square grid and heads of 64 channels")
        except (KeyError, ValueError, IndexError) as error:
            raise DataError(
                f"{path} is not a DINOv2 checkpoint ({error}); give the backbone's state dict, without heads"
            ) from error
        return cls(position.shape[2], depth, kernel.shape[-1], grid, hidden, registers, gated=gated)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the normalised class token [N, width] of images [N, 3, H, W], H and W multiples of the patch."""
        grid = self.patch_embed.proj(images)
        tokens = grid.flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(images), -1, -1), tokens], 1)
        x = x + self.position(int(grid.shape[2]), int(grid.shape[3]))
        if self.registers:
            x = torch.cat([x[:, :1], self.register_tokens.expand(len(images), -1, -1), x[:, 1:]], 1)
        for block in self.blocks:
            x = block(x)
        token: torch.Tensor = self.norm(x[:, 0])
        return token

    def position(self, height: int, width: int) -> torch.Tensor:
        """The position embedding for another grid: as published, with antialias where there are registers.

        Checkpoints without registers were made with a scale factor enlarged by 0.1 patches; their features are matched
        by doing the same.
        """
        if (height, width) == (self.grid, self.grid):
            return self.pos_embed
        plane = self.pos_embed[:, 1:].reshape(1, self.grid, self.grid, -1).permute(0, 3, 1, 2).float()
        if self.registers:
            plane = functional.interpolate(plane, size=(height, width), mode="bicubic", antialias=True)
        else:
            scale = ((height + 0.1) / self.grid, (width + 0.1) / self.grid)
            plane = functional.interpolate(plane, scale_factor=scale, mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], plane.permute(0, 2, 3, 1).flatten(1, 2)], 1)


class _Block(nn.Module):
    def __init__(self, width: int, hidden: int, gated: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, EPS), nn.LayerNorm(width, EPS)
        self.attn = _Attention(width)
        self.ls1, self.ls2 = _Scale(width), _Scale(width)
        self.mlp = _Gated(width, hidden) if gated else _Mlp(width, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        out: torch.Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return out


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, length, width = x.shape
        q, k, v = self.qkv(x).view(n, length, 3, self.heads, HEAD).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v)
        out: torch.Tensor = self.proj(seen.transpose(1, 2).reshape(n, length, width))
        return out


class _Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gamma


class _Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return out


class _Gated(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w12, self.w3 = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        out: torch.Tensor = self.w3(functional.silu(gate) * value)
        return out
