"""EfficientNet-Lite0 features: a second, smaller family of ImageNet features."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from medtrust.weights import KNOWN, sha256_of
from medtrust_features.network import HalfChange, NetworkSpace, Precision
from medtrust_features.preparation import Preparation
from medtrust_features.state_dicts import fill, read_state_dict

__all__ = ["EfficientNetLite0"]

VERSION = "1"
# The published network reads (pixel - 127) / 128 of 0 … 255 at 224 pixels, resized bicubically.
PREPARATION = Preparation(
    size=(224, 224), lo=0.0, hi=255.0, mean=(127.0,) * 3, std=(128.0,) * 3, resize="bicubic", antialias=True
)
# repeats, kernel, stride of the first, expansion, channels in, channels out
STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
EPS = 1e-3


class EfficientNetLite0(NetworkSpace):
    """Pooled features of EfficientNet-Lite0, ImageNet: 1280 columns.

    Args:
        weights: `efficientnet-lite0-57934424.pth`, or a state dict of the same layout (.pth or .safetensors).
        device: Where to compute.
        precision: fp32 or bf16.

    Raises:
        DataError: The file does not hold this network.
        SafetyError: Reading the file could run code.

    Reference:
        Tan, Le, EfficientNet, arXiv:1905.11946; the Lite0 variant has ReLU6 and no squeeze-and-excitation.
    """

    half_change = HalfChange(400, holdout=0.0198, synthetic=0.0618)

    def __init__(self, weights: Path, *, device: str = "cpu", precision: Precision = "fp32") -> None:
        digest = sha256_of(Path(weights))
        network = Lite0()
        trusted = any(file.sha256 == digest for file in KNOWN["efficientnet-lite0"])
        state = read_state_dict(Path(weights), trusted=trusted)
        body = {name: value for name, value in state.items() if not name.startswith("_fc.")}
        fill(network, body, Path(weights), "EfficientNet-Lite0", "give a state dict of that layout")
        super().__init__(
            "efficientnet-lite0",
            network,
            PREPARATION,
            weights_sha256=digest,
            version=VERSION,
            columns=1280,
            device=device,
            precision=precision,
        )


class _Same(nn.Conv2d):
    """A convolution padded as TensorFlow pads: the odd pixel goes to the right and to the bottom."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inside, outside, kernel, stride, bias=False, groups=groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, columns = (self._missing(size) for size in x.shape[2:])
        if rows % 2 == 0 and columns % 2 == 0:  # even on both sides: the convolution pads by itself, without a copy
            return nn.functional.conv2d(
                x, self.weight, self.bias, self.stride, (rows // 2, columns // 2), groups=self.groups
            )
        x = nn.functional.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return nn.functional.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)

    def _missing(self, size: int) -> int:
        kernel, stride = self.kernel_size[0], self.stride[0]
        return max((-(-size // stride) - 1) * stride + kernel - size, 0)


class _Block(nn.Module):
    def __init__(self, kernel: int, stride: int, expansion: int, inside: int, outside: int) -> None:
        super().__init__()
        wide = inside * expansion
        if expansion != 1:
            self._expand_conv = _Same(inside, wide, 1)
            self._bn0 = nn.BatchNorm2d(wide, EPS)
        self._depthwise_conv = _Same(wide, wide, kernel, stride, groups=wide)
        self._bn1 = nn.BatchNorm2d(wide, EPS)
        self._project_conv = _Same(wide, outside, 1)
        self._bn2 = nn.BatchNorm2d(outside, EPS)
        self.expands, self.skips = expansion != 1, stride == 1 and inside == outside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = nn.functional.relu6(self._bn0(self._expand_conv(x)), inplace=True) if self.expands else x
        inner = nn.functional.relu6(self._bn1(self._depthwise_conv(inner)), inplace=True)
        inner = self._bn2(self._project_conv(inner))
        return inner + x if self.skips else inner


class Lite0(nn.Module):
    """EfficientNet-Lite0 without its class head: [N, 3, H, W] → [N, 1280]; names as in the published state dict."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _Same(3, 32, 3, 2)
        self._bn0 = nn.BatchNorm2d(32, EPS)
        blocks = []
        for repeats, kernel, stride, expansion, inside, outside in STAGES:
            for i in range(repeats):
                first = i == 0
                blocks.append(_Block(kernel, stride if first else 1, expansion, inside if first else outside, outside))
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = _Same(320, 1280, 1)
        self._bn1 = nn.BatchNorm2d(1280, EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the pooled features."""
        x = nn.functional.relu6(self._bn0(self._conv_stem(x)), inplace=True)
        for block in self._blocks:
            x = block(x)
        x = nn.functional.relu6(self._bn1(self._conv_head(x)), inplace=True)
        return x.float().mean(dim=(2, 3))
