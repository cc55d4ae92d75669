"""A small convolutional classifier and its training, with the same bits on any number of cores."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Classifier", "predict", "shuffled", "train_all"]

_BATCH = 64
_RATE = 4e-3
_DECAY = 1e-2
_WIDTHS = (16, 24, 48)


class Classifier(nn.Module):
    """Three convolutions, averaged over the image, and one number: above 0 speaks for the first of two sets.

    Args:
        channels: Channels of the images.
        mean: Mean of each channel, [C].
        spread: Standard deviation of each channel, [C].
    """

    layer = "features.5"  # the second convolution after its activation: half the resolution, and late enough to decide

    def __init__(self, channels: int, mean: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", mean.view(1, -1, 1, 1).clone())
        self.register_buffer("scale", spread.view(1, -1, 1, 1).clone())
        a, b, c = _WIDTHS
        self.features = nn.Sequential(
            nn.Conv2d(channels, a, 3, stride=2, padding=1), nn.BatchNorm2d(a), nn.ReLU(),
            nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(),
            nn.Conv2d(b, c, 3, stride=2, padding=1), nn.BatchNorm2d(c), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(c, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, C, H, W] in [0, 1] to logits [N]."""
        maps = self.features((images - self.centre) / self.scale)
        return self.head(maps.mean((2, 3)))[:, 0]


def train_all(sets: Sequence[tuple[Tensor, Tensor]], epochs: int | None, seeds: Sequence[int]) -> list[Classifier]:
    """Train one classifier per data set, side by side.

    Each trains on one thread, so that its bits do not depend on the machine's cores.

    Args:
        sets: Images [N, C, H, W] in [0, 1] and labels [N], 1 for the first set.
        epochs: Passes over the images; None gives small sets more of them, so that each network learns in 200 steps.
        seeds: Seed of each classifier's start and order.
    """
    networks = []
    for (images, _), seed in zip(sets, seeds, strict=True):
        torch.manual_seed(seed % 2**63)
        spread = images.std((0, 2, 3)).clamp_min(1e-6)
        networks.append(Classifier(images.shape[1], images.mean((0, 2, 3)), spread))
    threads = max(1, min(len(sets), os.cpu_count() or 1))
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        jobs = [
            pool.submit(_train, network, images, labels, epochs or _passes(len(images)), seed)
            for network, (images, labels), seed in zip(networks, sets, seeds, strict=True)
        ]
        return [job.result() for job in jobs]


def _passes(n: int) -> int:
    """Between 8 and 20 passes: as many as 200 steps take."""
    return min(20, max(8, -(-200 // max(1, n // _BATCH))))


def _train(network: Classifier, images: Tensor, labels: Tensor, epochs: int, seed: int) -> Classifier:
    rng = torch.Generator().manual_seed(seed % 2**63)
    network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = images.to(memory_format=torch.channels_last)
    steps = max(1, len(images) // _BATCH)
    size = min(_BATCH, len(images))
    weight = (1 - labels).sum() / labels.sum()  # the smaller set counts as much as the larger
    optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=epochs * steps)
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=rng)[: steps * size].view(steps, size)
        for rows in order:
            optimiser.zero_grad()
            loss = functional.binary_cross_entropy_with_logits(network(images[rows]), labels[rows], pos_weight=weight)
            loss.backward()
            optimiser.step()
            schedule.step()
    return network.eval().requires_grad_(False)


def shuffled(network: nn.Module, seed: int) -> nn.Module:
    """A copy with fresh random parameters: each module's own start, and noise of the same spread where it has none.

    Args:
        network: Any module.
        seed: Seed of the parameters.
    """
    other = copy.deepcopy(network)
    rng = torch.Generator().manual_seed(seed % 2**63)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed % 2**63)
        for module in other.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
                continue
            for parameter in module.parameters(recurse=False):
                noise = torch.randn(parameter.shape, generator=rng).to(parameter)
                parameter.copy_(parameter.mean() + noise * parameter.std(unbiased=False))
    return other.eval().requires_grad_(False)


@torch.no_grad()
def predict(network: nn.Module, images: Tensor) -> Tensor:
    """Logits [N] of images [N, C, H, W], in chunks of a fixed size."""
    return torch.cat([network(part) for part in images.split(256)]) if len(images) else torch.empty(0)
