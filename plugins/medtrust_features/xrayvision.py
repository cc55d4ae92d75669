"""Chest X-ray features from a DenseNet checkpoint of torchxrayvision's layout."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from medtrust.errors import DataError
from medtrust.weights import sha256_of
from medtrust_features.network import NetworkSpace, Precision
from medtrust_features.preparation import Preparation
from medtrust_features.state_dicts import fill, read_state_dict

__all__ = ["XRayVision"]

VERSION = "1"
PREPARATION = Preparation(
    size=(224, 224), channels=1, lo=-1024.0, hi=1024.0, mean=(0.0,), std=(1.0,), resize="bilinear", antialias=True
)
_LAYER = re.compile(r"features\.denseblock(\d+)\.denselayer(\d+)\.conv2\.weight")


class XRayVision(NetworkSpace):
    """Pooled features of a torchxrayvision DenseNet: 1024 columns for its DenseNet-121.

    One grey channel in -1024 … 1024, as `torchxrayvision.datasets.normalize` makes it from the largest possible
    value, at 224 pixels; the whole image, without a centre crop. Not Hounsfield units, in spite of the numbers.

    Args:
        weights: The network's state dict, with or without classifier (.pth or .safetensors). The package's own files
            are whole pickled objects, which are not opened here; `torch.save(model.state_dict(), PATH)` writes one
            that is.
        device: Where to compute.
        precision: fp32 or bf16.

    Raises:
        DataError: The file does not have this layout.
        SafetyError: Reading the file could run code.

    Reference:
        Cohen et al., TorchXRayVision, arXiv:2111.00595; Huang et al., DenseNet, arXiv:1608.06993.
    """

    def __init__(self, weights: Path, *, device: str = "cpu", precision: Precision = "fp32") -> None:
        path = Path(weights)
        digest, state = sha256_of(path), read_state_dict(path)
        body = {name: value for name, value in state.items() if name.startswith("features.")}
        network = _network(body, path)
        fill(network, body, path, "a torchxrayvision DenseNet", "give the state dict of such a network")
        super().__init__(
            "xrayvision",
            network,
            PREPARATION,
            weights_sha256=digest,
            version=VERSION,
            device=device,
            precision=precision,
        )


class _Pooled(nn.Module):
    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.features(images)).float().mean(dim=(2, 3))


def _network(state: dict[str, torch.Tensor], path: Path) -> nn.Module:
    """torchvision's DenseNet of the size that the state dict has, with one input channel and without its classifier."""
    from torchvision.models import DenseNet

    blocks: dict[int, int] = {}
    for name in state:
        if found := _LAYER.fullmatch(name):
            blocks[int(found[1])] = max(blocks.get(int(found[1]), 0), int(found[2]))
    try:
        first = state["features.conv0.weight"]
        growth = len(state["features.denseblock1.denselayer1.conv2.weight"])
        narrow = len(state["features.denseblock1.denselayer1.conv1.weight"])
        if first.ndim != 4 or first.shape[1] != 1:
            raise ValueError("its first convolution does not read one grey channel")
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{path} is not a torchxrayvision DenseNet ({error}); give the state dict of such a network"
        ) from error
    config = tuple(blocks[i] for i in sorted(blocks))
    whole = DenseNet(growth, config, len(first), narrow // growth, num_classes=1)  # type: ignore[arg-type]
    whole.features.conv0 = nn.Conv2d(1, len(first), 7, stride=2, padding=3, bias=False)
    return _Pooled(whole.features)
