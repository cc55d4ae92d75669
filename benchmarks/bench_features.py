"""Neighbours, PRDC, MMD and moments against the packages people use: `python benchmarks/bench_features.py`."""

from __future__ import annotations

import contextlib
import io

import torch
from torch import Tensor

from medtrust import ops
from medtrust.ops import reference
from peers import Contender, Row, compare, main, module


def features(n: int, d: int, seed: int) -> Tensor:
    """Rows with the decaying spectrum and the positive offset of network features, `[n, d]` float32."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, d + 1, dtype=torch.float32) ** -0.5
    return 0.4 + torch.randn((n, d), generator=generator) * scale


def neighbours(rounds: int) -> list[Row]:
    """The 5 nearest of 10 000 references for 2 000 queries; the value is the mean 5th distance."""
    rows = []
    for d in (100, 2048):
        queries, points = features(2000, d, 1), features(10000, d, 2)
        oracle = float(reference.nearest(queries[:200], points, 5, None, None)[0][:, 4].sqrt().mean())
        contenders = [
            Contender(
                "medtrust",
                lambda q=queries, p=points: ops.nearest(q, p, 5),
                lambda r: float(r.distances[:200, 4].mean()),
                "exact",
            )
        ]
        if peer := module("faiss"):
            a, b = queries.numpy(), points.numpy()
            contenders.append(
                Contender(
                    "faiss",
                    lambda f=peer, a=a, b=b: f.knn(a, b, 5),
                    lambda r: float(torch.from_numpy(r[0])[:200, 4].double().sqrt().mean()),
                    "float32, expanded",
                )
            )
        contenders.append(
            Contender(
                "torch.cdist + topk",
                lambda q=queries, p=points: torch.cdist(q, p).topk(5, largest=False).values,
                lambda r: float(r[:200, 4].double().mean()),
                "float32, expanded, n x m memory",
            )
        )
        rows += compare(f"nearest 5, 2k x 10k, d={d}", oracle, contenders, rounds)
    return rows


def manifold(rounds: int) -> list[Row]:
    """PRDC of 2 000 against 2 000; the value is the density."""
    real, fake = features(2000, 2048, 3), 1.02 * features(2000, 2048, 4)
    contenders = [Contender("medtrust", lambda: ops.prdc(real, fake, 5), lambda r: r.density)]
    a, b = real.double(), fake.double()
    radii = [reference.nearest(m, m, 6, None, None)[0][:, 5].contiguous() for m in (b, a)]
    oracle = float(reference.balls(b, a, *radii, False)[0].double().mean()) / 5
    if peer := module("prdc"):

        def run() -> dict[str, float]:
            with contextlib.redirect_stdout(io.StringIO()):
                return peer.compute_prdc(real.numpy(), fake.numpy(), 5)  # type: ignore[no-any-return]

        contenders.append(Contender("prdc", run, lambda r: float(r["density"]), "n x n memory"))
    return compare("PRDC, 2k + 2k, d=2048", oracle, contenders, max(3, rounds // 3))


def discrepancy(rounds: int) -> list[Row]:
    """One KID subset: 1 000 against 1 000 features of 2048."""
    real, fake = features(1000, 2048, 5), features(1000, 2048, 6) + 0.01
    within_real, within_fake, across = reference.kernel_sums(real, fake, "poly3", 1 / 2048).tolist()
    oracle = (within_real + within_fake) / (1000 * 999) - 2 * across / 1e6
    contenders = [Contender("medtrust", lambda: ops.mmd(real, fake), note="exact digits")]
    if peer := module("torch_fidelity.metric_kid"):
        options = {
            "kid_kernel": "poly",
            "kid_kernel_poly_degree": 3,
            "kid_kernel_poly_gamma": None,
            "kid_kernel_poly_coef0": 1,
        }
        for dtype in (torch.float64, torch.float32):
            a, b = real.to(dtype).numpy(), fake.to(dtype).numpy()
            name = str(dtype).removeprefix("torch.")
            contenders.append(Contender("torch-fidelity", lambda a=a, b=b: peer.kernel_mmd(a, b, **options), note=name))
    return compare("MMD poly3, 1k + 1k, d=2048", oracle, contenders, rounds)


def moments(rounds: int) -> list[Row]:
    """Covariance of 8 192 x 1024 in batches of 64; the value is the trace."""
    x = features(8192, 1024, 7)
    oracle = float(torch.cov(x.double().T).trace())

    def ours() -> Tensor:
        stream = ops.Moments(1024)
        for batch in x.split(64):
            stream.update(batch)
        return stream.cov

    def per_batch() -> Tensor:  # what torchmetrics' FrechetInceptionDistance does with each batch
        total, outer = torch.zeros(1024, dtype=torch.float64), torch.zeros((1024, 1024), dtype=torch.float64)
        for batch in x.split(64):
            rows = batch.double()
            total += rows.sum(0)
            outer += rows.T @ rows
        mean = total / len(x)
        return (outer - len(x) * torch.outer(mean, mean)) / (len(x) - 1)

    contenders = [
        Contender("medtrust", ours, lambda r: float(r.trace())),
        Contender("float64 sums per batch", per_batch, lambda r: float(r.trace()), "torchmetrics' way"),
    ]
    return compare("covariance, 8k x 1024", oracle, contenders, max(3, rounds // 3))


if __name__ == "__main__":
    main("features", lambda n: neighbours(n) + manifold(n) + discrepancy(n) + moments(n), rounds=9)
