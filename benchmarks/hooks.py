"""What hooks add to an audit: the time spent in `Host.fire` with ten listening plugins, as a share of the whole audit.

Run: python benchmarks/hooks.py
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import medtrust
from medtrust import Intensity, hookimpl
from medtrust.host import Host, build_host
from medtrust.images import write_set

ROUNDS = 5
LISTENERS = 10


class Listener:
    """Listens to everything and does nothing."""

    @hookimpl
    def medtrust_before_metric(self, plan: Any, metric: Any) -> None: ...

    @hookimpl
    def medtrust_after_metric(self, plan: Any, metric: Any, result: Any) -> None: ...

    @hookimpl
    def medtrust_after_report(self, report: Any) -> None: ...


def shares(folder: Path) -> list[float]:
    rng = np.random.default_rng(0)
    for name in ("train", "holdout", "synthetic"):
        images = rng.integers(0, 256, (60, 3, 24, 24), dtype=np.uint8)
        write_set(folder / name, ((f"{name}{i}", image) for i, image in enumerate(images)), Intensity(0, 255, "level"))
    found = []
    fire = Host.fire
    for _ in range(ROUNDS):
        inside = 0.0

        def timed(self: Host, hook: str, **arguments: Any) -> Any:
            nonlocal inside
            began = time.perf_counter()
            try:
                return fire(self, hook, **arguments)
            finally:
                inside += time.perf_counter() - began

        Host.fire = timed  # type: ignore[method-assign]
        host = build_host()
        for i in range(LISTENERS):
            host.register(Listener(), f"listener-{i}")
        began = time.perf_counter()
        sets = {name: folder / name for name in ("train", "holdout", "synthetic")}
        medtrust.audit(**sets, metrics=("fd", "kid", "prdc", "intensity", "duplicates", "cpm"), host=host)
        found.append(inside / (time.perf_counter() - began))
        Host.fire = fire  # type: ignore[method-assign]
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        found = shares(Path(place))
    print(
        f"hooks, {LISTENERS} listeners: {statistics.median(found):.3%} of an audit, worst of {ROUNDS} {max(found):.3%}"
    )


if __name__ == "__main__":
    main()
