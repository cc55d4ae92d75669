"""Precision, recall, density and coverage of 10 000 + 10 000 against prdc: `python benchmarks/bench_prdc.py`."""

from __future__ import annotations

import contextlib
import io

import torch
from bench_features import features

from medtrust import ops
from peers import Contender, Row, main, module, once


def manifold(rounds: int) -> list[Row]:
    """Features of width 512, each run one time, with the memory it takes; the value is the density."""
    real, fake = features(10_000, 512, 3), 1.02 * features(10_000, 512, 4)
    contenders = [Contender("medtrust", lambda: ops.prdc(real, fake, 5), lambda r: r.density)]
    a, b = real.double(), fake.double()
    radii = torch.cat([torch.cdist(rows, a).topk(6, largest=False).values[:, 5] for rows in a.split(500)])
    oracle = sum(float((torch.cdist(rows, a) < radii).double().sum()) for rows in b.split(500)) / (5 * len(b))
    if peer := module("prdc"):

        def run() -> dict[str, float]:
            with contextlib.redirect_stdout(io.StringIO()):
                return peer.compute_prdc(real.numpy(), fake.numpy(), 5)  # type: ignore[no-any-return]

        contenders.append(Contender("prdc", run, lambda r: float(r["density"]), "n x n memory"))
    return once("PRDC, 10k + 10k, d=512", oracle, contenders)


if __name__ == "__main__":
    main("prdc", manifold, rounds=1)
