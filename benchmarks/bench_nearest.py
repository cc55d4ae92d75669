"""The 5 nearest of 100 000 references for 10 000 queries against faiss: `python benchmarks/bench_nearest.py`."""

from __future__ import annotations

import torch
from bench_features import features

from medtrust import ops
from medtrust.ops import reference
from peers import Contender, Row, main, module, once


def neighbours(rounds: int) -> list[Row]:
    """Features of width 512, each run one time; the value is the mean 5th distance of 100 queries."""
    queries, points = features(10_000, 512, 1), features(100_000, 512, 2)
    oracle = float(reference.nearest(queries[:100], points, 5, None, None)[0][:, 4].sqrt().mean())
    contenders = [
        Contender("medtrust", lambda: ops.nearest(queries, points, 5), lambda r: float(r.distances[:100, 4].mean()))
    ]
    if peer := module("faiss"):
        a, b = queries.numpy(), points.numpy()
        contenders.append(
            Contender(
                "faiss",
                lambda: peer.knn(a, b, 5),
                lambda r: float(torch.from_numpy(r[0])[:100, 4].double().sqrt().mean()),
                "float32, expanded",
            )
        )
    return once("nearest 5, 10k x 100k, d=512", oracle, contenders)


if __name__ == "__main__":
    main("nearest", neighbours, rounds=1)
