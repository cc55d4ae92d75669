"""Fréchet distance against the packages people use: `python benchmarks/bench_frechet.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from medtrust import ops
from medtrust.stats.frechet import Factored, frechet_distance
from peers import Contender, Row, compare, main, module


def features(n: int, d: int, seed: int, shift: float = 0.0) -> Tensor:
    """Rows with the decaying spectrum and the positive offset of network features, `[n, d]` float32."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, d + 1, dtype=torch.float32) ** -0.5
    return 0.4 + shift + torch.randn((n, d), generator=generator) * scale


def distances(rounds: int) -> list[Row]:
    """From features in memory to the distance, d = 2048; what belongs to the reference set is computed before."""
    rows = []
    for n in (500, 10000):
        real, fake = features(n, 2048, 1), features(n, 2048, 2, 0.02)
        means = [x.double().mean(0) for x in (real, fake)]
        roots = [(x.double() - mean) / (n - 1) ** 0.5 for x, mean in zip((real, fake), means, strict=True)]
        roots = [root if n <= 2048 else torch.linalg.qr(root, mode="r").R for root in roots]
        norm = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
        spread = sum(root.square().sum() for root in roots) - 2 * norm
        oracle = float((means[0] - means[1]).square().sum() + spread)
        kept = Factored.of(ops.Moments(2048).update(real) if n > 2048 else real)

        def ours(x: Tensor = fake, n: int = n, kept: Factored = kept) -> float:
            return frechet_distance(kept, ops.Moments(2048).update(x) if n > 2048 else x)

        def moments(x: Tensor) -> tuple[Tensor, Tensor]:
            return x.double().mean(0), torch.cov(x.double().T)

        known = moments(real)
        contenders = [Contender("medtrust", ours, note="reference kept")]
        if peer := module("torchmetrics.image.fid"):
            contenders.append(
                Contender(
                    "torchmetrics",
                    lambda p=peer, k=known, x=fake: p._compute_fid(*k, *moments(x)),
                    note="eigvals, reference's moments kept",
                )
            )
        rows += compare(f"Frechet, {n} + {n}, d=2048", oracle, contenders, rounds)
    return rows


if __name__ == "__main__":
    main("frechet", distances, rounds=3)
