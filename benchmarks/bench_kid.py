"""KID over 100 subsets of 1000 against torch-fidelity: `python benchmarks/bench_kid.py`."""

from __future__ import annotations

from dataclasses import replace

from bench_features import features

from medtrust import stats
from peers import Contender, Row, main, module, once


def kid(rounds: int) -> list[Row]:
    """Sets of 5000 of width 2048, each run one time; errors are distances from torch-fidelity in float64."""
    real, fake = features(5000, 2048, 5), features(5000, 2048, 6) + 0.01
    options = {"convention": "torch-fidelity", "subsets": 100, "subset_size": 1000}
    contenders = [Contender("medtrust", lambda: stats.kid(real, fake, **options))]
    peer = module("torch_fidelity.metric_kid")
    if peer is None:
        return once("KID, 100 x 1000 of 5000, d=2048", float("nan"), contenders)
    a, b = real.double(), fake.double()

    def run() -> float:
        found = peer.kid_features_to_metric(a, b, kid_subsets=100, kid_subset_size=1000, verbose=False)
        values.append(float(found[peer.KEY_METRIC_KID_MEAN]))
        return values[-1]

    values: list[float] = []
    rows = once("KID, 100 x 1000 of 5000, d=2048", 0.0, [*contenders, Contender("torch-fidelity", run, note="float64")])
    return [replace(row, error=abs(row.error - values[-1])) for row in rows]


if __name__ == "__main__":
    main("kid", kid, rounds=1)
