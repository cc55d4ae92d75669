"""Runs a network over images in small fixed batches, so that a row depends on its image alone."""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval

from medtrust.errors import ConfigError, DataError
from medtrust.types import Intensity

__all__ = ["MICRO_BATCH", "HalfChange", "NetworkSpace", "Precision", "folded"]

Precision = Literal["fp32", "bf16"]
MICRO_BATCH = 16
VERSION = "2"


@dataclass(frozen=True, slots=True)
class HalfChange:
    """What bf16 did to Fréchet distances of derm-patches on the CPU; `benchmarks/precision.py` measures it.

    Args:
        images: Of each set.
        holdout: Relative change of the distance between train and holdout.
        synthetic: Relative change of the distance between train and the images of a VAE.
    """

    images: int
    holdout: float
    synthetic: float

    def describe(self) -> str:
        """Say it in one line, for the report."""
        return (
            f"bf16 changed the Fréchet distance of train and holdout by {self.holdout:+.1%}, that of train and the "
            f"images of a VAE by {self.synthetic:+.1%} (derm-patches, CPU, {self.images} images per set)"
        )


class Prepares(Protocol):
    """How images are brought to a network: a `Preparation`, or somebody else's convention."""

    def apply(self, images: torch.Tensor, intensity: Intensity, space: str) -> torch.Tensor:
        """Bring images [N, C, H, W] to what the network reads."""
        ...

    def describe(self) -> str:
        """Say in one line what happens to a pixel, for the report and the digest."""
        ...


class NetworkSpace:
    """A feature space made of a network and a preparation; the base of every space that has weights.

    On the CPU and on CUDA alike the network runs channels-last, in batches of one size. fp32 is full float32 (no TF32);
    bf16 runs convolutions and matrix products in bfloat16 under autocast and keeps the features in float32.

    Args:
        name: Name of the space, for errors and digest.
        run: The network, [N, channels, height, width] float32 → [N, columns] float32 (or bfloat16).
        preparation: How images are brought to it.
        weights_sha256: Digest of the weights' file.
        version: Version of the space; changes whenever its numbers would.
        columns: Width of a row; None takes what the network returns.
        device: Where to compute.
        precision: fp32 or bf16.

    Raises:
        ConfigError: An unknown precision.
    """

    standardise = False  # distances are defined on a network's features as they are
    names: tuple[str, ...] = ()
    micro_batch = MICRO_BATCH
    half_change: HalfChange | None = None  # what bf16 was measured to change in this space

    def __init__(
        self,
        name: str,
        run: Callable[[torch.Tensor], torch.Tensor],
        preparation: Prepares,
        *,
        weights_sha256: str,
        version: str,
        columns: int | None = None,
        device: str = "cpu",
        precision: Precision = "fp32",
    ) -> None:
        if precision not in ("fp32", "bf16"):
            raise ConfigError(f"precision {precision!r} is not known; choose fp32 or bf16")
        self.name, self.preparation, self.precision = name, preparation, precision
        self.device = torch.device(device)
        self.weights_sha256, self.version, self.columns = weights_sha256, version, columns
        if isinstance(run, torch.nn.Module):
            run = folded(run.eval()).to(self.device).to(memory_format=torch.channels_last)
        self.run = run

    @property
    def digest(self) -> str:
        """Digest of weights, version, preparation, precision and kind of device, whose last bits differ."""
        facts = (self.name, self.version, VERSION, self.weights_sha256, self.preparation.describe(), self.precision)
        return hashlib.sha256("\n".join((*facts, self.device.type)).encode()).hexdigest()

    @property
    def facts(self) -> dict[str, str]:
        """What the report says of this space."""
        facts = {
            "preparation": self.preparation.describe(),
            "precision": self.precision,
            "weights_sha256": self.weights_sha256,
        }
        if self.precision == "bf16":
            known = self.half_change
            facts["precision_change"] = (
                known.describe() if known else "what bf16 changes was not measured in this space"
            )
        return facts

    def extract(self, images: torch.Tensor, intensity: Intensity) -> torch.Tensor:
        """Run the network.

        Args:
            images: [N, C, H, W], any real dtype, in the unit of `intensity`; C is 1 or 3.
            intensity: Declared range.

        Returns:
            [N, columns] float32.

        Raises:
            DataError: Another shape, an empty declared range, or a network with other outputs.
        """
        starts = range(0, len(images), self.micro_batch)
        parts = [self._batch(images[i : i + self.micro_batch].to(self.device), intensity) for i in starts]
        return torch.cat(parts) if parts else torch.zeros(0, self.columns or 0)

    def _batch(self, images: torch.Tensor, intensity: Intensity) -> torch.Tensor:
        prepared = self.preparation.apply(images, intensity, self.name)
        # A short batch is filled up: a library may choose another algorithm, with other last bits, for another size.
        ready = torch.zeros((self.micro_batch, *prepared.shape[1:]), device=self.device)
        ready = ready.to(memory_format=torch.channels_last)
        ready[: len(prepared)] = prepared
        half = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")
        with torch.no_grad(), half, torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            features = self.run(ready)
        shape = tuple(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
        width = self.columns or (shape[1] if isinstance(shape, tuple) and len(shape) == 2 else None)
        if shape != (self.micro_batch, width):
            wanted = f"[{self.micro_batch}, {self.columns or 'd'}]"
            raise DataError(f"the network given as {self.name} weights returns {shape} instead of {wanted}")
        self.columns = width
        return features[: len(prepared)].float().cpu()


def folded(network: torch.nn.Module) -> torch.nn.Module:
    """Fold each batch norm into the convolution that directly precedes it in the same module.

    Args:
        network: In evaluation mode, with modules registered in the order in which they run. It is not changed.

    Returns:
        A copy that computes the same function with fewer passes over memory, up to float32 rounding.
    """
    if isinstance(network, torch.jit.ScriptModule):
        return network  # a program of its own, which torch has optimised already
    network = copy.deepcopy(network)
    for module in network.modules():
        names = list(module._modules)
        for first, second in itertools.pairwise(names):
            convolution, norm = module._modules[first], module._modules[second]
            if isinstance(convolution, torch.nn.Conv2d) and isinstance(norm, torch.nn.BatchNorm2d):
                module._modules[first] = fuse_conv_bn_eval(convolution, norm)
                module._modules[second] = torch.nn.Identity()
    return network
