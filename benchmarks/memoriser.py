"""A small diffusion model that learns 50 images by heart, and the same model that cannot: are they told apart?

    medtrust data get derm-patches            # prints the folder
    python benchmarks/memoriser.py FOLDER --out benchmarks/results/memoriser.json

The model is a three-layer network that denoises the leading principal components of its training images. Nothing but
its samples is given to the copy test.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from power_data import LEVELS, load

from medtrust.seeding import derive_seed
from medtrust.stats import copy_test, pixel_embedding
from medtrust.types import FeatureMatrix

COMPONENTS, WIDTH, STEPS, BATCH, LEVELS_OF_NOISE = 48, 192, 3000, 128, 60


class Denoiser(torch.nn.Module):
    """Predicts the clean components from noisy ones and the noise level."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(columns + 16, WIDTH), torch.nn.SiLU(),
            torch.nn.Linear(WIDTH, WIDTH), torch.nn.SiLU(),
            torch.nn.Linear(WIDTH, WIDTH), torch.nn.SiLU(),
            torch.nn.Linear(WIDTH, columns),
        )  # fmt: skip

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        waves = t[:, None] * torch.pi * 2.0 ** torch.arange(-1, 7)
        answer: torch.Tensor = self.layers(torch.cat([x, waves.sin(), waves.cos()], dim=1))
        return answer


def sample_from(images: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Train on images [N, C, H, W] uint8 and sample as many images as asked for."""
    torch.manual_seed(seed)
    flat = torch.from_numpy(images.reshape(len(images), -1)).float() / 127.5 - 1
    mean = flat.mean(0)
    _, spread, directions = torch.linalg.svd(flat - mean, full_matrices=False)
    keep = min(COMPONENTS, len(images) - 1)
    scale = spread[:keep] / math.sqrt(len(images))
    codes = (flat - mean) @ directions[:keep].T / scale
    model = Denoiser(keep)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for _ in range(STEPS):
        clean = codes[torch.randint(len(codes), (BATCH,))]
        t = torch.rand(BATCH)
        alpha, sigma = torch.cos(t * torch.pi / 2)[:, None], torch.sin(t * torch.pi / 2)[:, None]
        loss = (model(alpha * clean + sigma * torch.randn_like(clean), t) - clean).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    x = torch.randn(count, keep)
    times = torch.linspace(0.995, 0, LEVELS_OF_NOISE + 1)
    with torch.no_grad():
        for now, then in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):  # deterministic DDIM steps
            clean = model(x, torch.full((count,), now))
            noise = (x - math.cos(now * math.pi / 2) * clean) / math.sin(now * math.pi / 2)
            x = math.cos(then * math.pi / 2) * clean + math.sin(then * math.pi / 2) * noise
    made = (x * scale) @ directions[:keep] + mean
    return ((made + 1) * 127.5).clamp(0, 255).round().byte().numpy().reshape(count, *images.shape[1:])


def audit(images: np.ndarray, groups: np.ndarray, n_train: int, samples: int, seed: int) -> dict[str, float | int]:
    """Train on about `n_train` images of whole patients, hold as many patients out where there are enough, and test."""
    rng = np.random.default_rng(seed)
    people = rng.permutation(groups.max() + 1)
    sizes = np.bincount(groups)[people].cumsum()
    cut = int(np.searchsorted(sizes, n_train)) + 1
    sides = [np.flatnonzero(np.isin(groups, people[:cut])), np.flatnonzero(np.isin(groups, people[cut : 2 * cut]))]
    made = sample_from(images[sides[0]], samples, seed)
    rows = pixel_embedding(torch.from_numpy(images), LEVELS)
    train, holdout = (
        FeatureMatrix(rows[side], tuple(map(str, groups[side])), ("",) * len(side), "pixels", "") for side in sides
    )
    found = copy_test(train, holdout, pixel_embedding(torch.from_numpy(made), LEVELS), seed=seed)
    return {
        "train_images": len(sides[0]), "train_patients": cut, "holdout_patients": len(set(groups[sides[1]].tolist())),
        "p": found.p, "deciding_count": found.enrichment.count, "in_train": found.enrichment.in_train,
        "median_score": float(np.median(found.matches.score)),
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    images, groups, _ = load(args.data)
    rows = []
    for n_train in (50, 2000):
        for repetition in range(args.repetitions):
            row = audit(images, groups, n_train, args.samples, derive_seed(0, n_train, repetition) % 2**31)
            rows.append(row)
            print(json.dumps(row), flush=True)
    if args.out:
        report = {"samples": args.samples, "steps": STEPS, "torch": torch.__version__, "rows": rows}
        args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
