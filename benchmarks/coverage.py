"""How often do the intervals hold the truth? Draws sets whose population values are known, and counts.

    python benchmarks/coverage.py --reps 200 --out benchmarks/results/coverage.json

Each row is a statistic, a population and a sample size; `cover` should lie in 0.93 to 0.99 for a level of 0.95 and may
be above where the interval is a bracket or the truth is at the edge of the possible. For the Fréchet distance the
percentile bootstrap stands beside it, to show why it is not offered.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from medtrust.stats import (
    Inference,
    fd_infinity_interval,
    frechet_distance,
    frechet_excess,
    frechet_interval,
    frechet_ratio,
    gaussian,
    kid_interval,
    manifold_interval,
    mmd_excess,
)
from medtrust.stats.manifold import MANIFOLD_NAMES

LEVEL = 0.95
Draw = tuple[torch.Tensor, torch.Tensor, list[int] | None]


@dataclass(frozen=True)
class Population:
    """Two Gaussians with diagonal covariances, or scale mixtures of such, and how many rows a patient has.

    Args:
        name: What differs.
        shift: Difference of the means, [d].
        var_a: Variances of set a, [d].
        var_b: Variances of set b, [d].
        per_patient: Rows per patient in set a.
        shared: Share of set a's variance that lies between patients.
        outliers: Share of rows that lie `stretch` times as far from the mean as the others. The variances stay what
            they are, and so do both truths, which know nothing beyond the third moment.
        stretch: How far those lie.
    """

    name: str
    shift: torch.Tensor
    var_a: torch.Tensor
    var_b: torch.Tensor
    per_patient: int = 1
    shared: float = 0.0
    outliers: float = 0.0
    stretch: float = 1.0

    def draw(self, n: int, seed: int) -> Draw:
        """Draw n patients of set a, n rows of set b."""
        generator = torch.Generator().manual_seed(seed)
        d, rows = len(self.shift), n * self.per_patient
        a = torch.randn(rows, d, generator=generator, dtype=torch.float64)
        if self.per_patient > 1:
            between = torch.randn(n, d, generator=generator, dtype=torch.float64)
            a = (1 - self.shared) ** 0.5 * a + self.shared**0.5 * between.repeat_interleave(self.per_patient, 0)
        b = torch.randn(n, d, generator=generator, dtype=torch.float64)
        patients = [i // self.per_patient for i in range(rows)] if self.per_patient > 1 else None
        if self.outliers:
            typical = (1 - self.outliers + self.outliers * self.stretch**2) ** -0.5
            for one in (a, b):
                far = torch.rand(len(one), 1, generator=generator, dtype=torch.float64) < self.outliers
                one *= torch.where(far, self.stretch, 1.0) * typical
        return a * self.var_a.sqrt(), b * self.var_b.sqrt() + self.shift, patients

    def frechet(self) -> float:
        """Population's Fréchet distance."""
        return float(self.shift.square().sum() + (self.var_a.sqrt() - self.var_b.sqrt()).square().sum())

    def kid(self) -> float:
        """Population's kernel distance, from the first three moments of both Gaussians."""
        zero = torch.zeros_like(self.shift)
        mean = {"a": (zero, self.var_a), "b": (self.shift, self.var_b)}

        def expected(one: str, other: str) -> float:
            d = len(zero)
            moments = [_moments(*mean[one]), _moments(*mean[other])]
            first, second, third = (float((x * y).sum()) for x, y in zip(*moments, strict=True))
            return third / d**3 + 3 * second / d**2 + 3 * first / d + 1

        return expected("a", "a") + expected("b", "b") - 2 * expected("a", "b")


def _moments(mean: torch.Tensor, var: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    cov = torch.diag(var)
    second = cov + torch.outer(mean, mean)
    mixed = torch.einsum("i,jk->ijk", mean, cov)
    cube = torch.einsum("i,j,k->ijk", mean, mean, mean)
    return mean, second, cube + mixed + mixed.permute(1, 0, 2) + mixed.permute(1, 2, 0)


def populations(d: int) -> Iterator[Population]:
    """Pairs of dimension d: equal, shifted, rescaled, of steep spectrum, several images a patient, and heavy tails."""
    one, none = torch.ones(d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64)
    first = none.clone()
    first[0] = 1
    tilt = torch.linspace(0.5, 1.5, d, dtype=torch.float64)
    steep = torch.arange(1, d + 1, dtype=torch.float64).reciprocal()
    yield Population("equal", none, one, one)
    yield Population("shifted", first, one, one)
    yield Population("rescaled", none, one, tilt)
    yield Population("steep, shifted", first, steep, steep)
    yield Population("steep, rescaled", none, steep, steep * tilt)
    yield Population("4 images a patient", first, one, one, per_patient=4, shared=0.7)
    yield Population("heavy tails, shifted", first, one, one, outliers=0.02, stretch=5.0)  # excess kurtosis 15


@dataclass(frozen=True)
class Row:
    """One line of the study."""

    statistic: str
    population: str
    d: int
    n: int
    truth: float
    mean: float
    cover: float
    bootstrap: float | None = None
    width: float = 0.0


def frechet_row(population: Population, n: int, reps: int, bootstrap: int = 0, seed: int = 0) -> Row:
    """Coverage of the Fréchet interval; `bootstrap` draws of the percentile bootstrap beside it, 0 for none."""
    truth, hits, boot, means, widths = population.frechet(), [], [], [], []
    for rep in range(reps):
        a, b, patients = population.draw(n, seed + rep)
        found = frechet_interval(a, b, patients, None, level=LEVEL, seed=rep)
        hits.append(found.interval.lo <= truth <= found.interval.hi)
        means.append(found.value)
        widths.append(found.interval.hi - found.interval.lo)
        if bootstrap:
            lo, hi = percentile_bootstrap(a, b, frechet_distance, bootstrap, rep)
            boot.append(lo <= truth <= hi)
    share = float(np.mean(boot)) if boot else None
    return Row(
        "frechet", population.name, len(population.shift), n, truth,
        float(np.mean(means)), float(np.mean(hits)), share, float(np.mean(widths)),
    )  # fmt: skip


def kid_row(population: Population, n: int, reps: int, seed: int = 0) -> Row:
    """Coverage of the kernel distance's interval."""
    truth, hits, means, widths = population.kid(), [], [], []
    for rep in range(reps):
        a, b, patients = population.draw(n, seed + rep)
        found = kid_interval(a, b, patients, None, level=LEVEL)
        hits.append(found.interval.lo <= truth <= found.interval.hi)
        means.append(found.value)
        widths.append(found.interval.hi - found.interval.lo)
    return Row(
        "kid", population.name, len(population.shift), n, truth, float(np.mean(means)), float(np.mean(hits)),
        width=float(np.mean(widths)),
    )  # fmt: skip


def infinity_row(population: Population, n: int, reps: int, seed: int = 0) -> Row:
    """Coverage of FD∞'s interval."""
    truth, found = population.frechet(), []
    for rep in range(reps):
        a, b, patients = population.draw(n, seed + rep)
        found.append(fd_infinity_interval(a, b, patients, None, level=LEVEL, seed=rep))
    return _counted("fd_infinity", population, n, truth, found)


def contrast_rows(population: Population, n: int, reps: int, seed: int = 0) -> list[Row]:
    """Coverage of the Fréchet ratio and of both excesses for their expectation at this size, over the draws.

    The reference and the first set are drawn from population a, the second set from population b. The expectation of
    the ratio is taken in the logarithm.
    """
    kernel = gaussian(float((2 * population.var_a.sum()).sqrt()))
    found: dict[str, list[Inference]] = {"fd_ratio": [], "fd_excess": [], "mmd_excess": []}
    for rep in range(reps):
        first, other, own = population.draw(n, seed + rep)
        reference, _, patients = population.draw(n, seed + rep + 1_000_000)
        found["fd_ratio"].append(frechet_ratio([reference, first, other], [patients, own, None], level=LEVEL, seed=rep))
        sets, owners = [reference, other, first], [patients, None, own]
        found["fd_excess"].append(frechet_excess(sets, owners, level=LEVEL, seed=rep))
        found["mmd_excess"].append(mmd_excess(sets, owners, kernel=kernel, level=LEVEL, seed=rep))
    truths = {name: float(np.mean([one.value for one in of])) for name, of in found.items()}
    truths["fd_ratio"] = float(np.exp(np.mean([np.log(one.value) for one in found["fd_ratio"]])))
    return [_counted(name, population, n, truths[name], of) for name, of in found.items()]


def _counted(name: str, population: Population, n: int, truth: float, found: list[Inference]) -> Row:
    hits = [one.interval.lo <= truth <= one.interval.hi for one in found]
    width = float(np.mean([one.interval.hi - one.interval.lo for one in found]))
    mean = float(np.mean([one.value for one in found]))
    return Row(name, population.name, len(population.shift), n, truth, mean, float(np.mean(hits)), width=width)


def manifold_rows(population: Population, n: int, reps: int, seed: int = 0) -> list[Row]:
    """Coverage of precision, recall, density and coverage for their expectation, taken as the mean over the draws."""
    found = []
    for rep in range(reps):
        a, b, patients = population.draw(n, seed + rep)
        found.append(manifold_interval(a, b, patients, None, level=LEVEL, seed=rep))
    rows = []
    for name in MANIFOLD_NAMES:
        truth = float(np.mean([f[name].value for f in found]))
        hits = [f[name].interval.lo <= truth <= f[name].interval.hi for f in found]
        width = float(np.mean([f[name].interval.hi - f[name].interval.lo for f in found]))
        rows.append(
            Row(name, population.name, len(population.shift), n, truth, truth, float(np.mean(hits)), width=width)
        )
    return rows


def percentile_bootstrap(
    a: torch.Tensor, b: torch.Tensor, statistic: Callable[..., float], draws: int, seed: int
) -> tuple[float, float]:
    """Return the interval that this study shows to fail."""
    rng = np.random.default_rng(seed)

    def again(x: torch.Tensor) -> torch.Tensor:
        return x[torch.from_numpy(rng.integers(0, len(x), len(x)))]

    values = [statistic(again(a), again(b)) for _ in range(draws)]
    lo, hi = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(lo), float(hi)


def main() -> None:
    """Run the study and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--reps", type=int, default=200)
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100, 400, 1000, 2000])
    parser.add_argument("--dims", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--statistics", nargs="+", default=["frechet", "kid", "manifold", "fd_infinity", "contrasts"])
    parser.add_argument("--bootstrap", type=int, default=40, help="draws of the percentile bootstrap, 0 for none")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    print("statistic   population             d     n    truth     mean     width  cover  bootstrap")
    for d in options.dims:
        for population in populations(d):
            for n in options.sizes:
                new: list[Row] = []
                if "frechet" in options.statistics:
                    new.append(frechet_row(population, n, options.reps, options.bootstrap if n <= 400 else 0))
                if "kid" in options.statistics:
                    new.append(kid_row(population, n, options.reps))
                if "fd_infinity" in options.statistics and n >= 4 * d:
                    new.append(infinity_row(population, n, options.reps))
                if "contrasts" in options.statistics:
                    new += contrast_rows(population, n, options.reps)
                if "manifold" in options.statistics and n <= 1000:
                    new += manifold_rows(population, n, options.reps)
                for row in new:
                    boot = "" if row.bootstrap is None else f"{row.bootstrap:.2f}"
                    print(
                        f"{row.statistic:11s} {row.population:20s} {row.d:3d} {row.n:5d} {row.truth:8.4f}"
                        f" {row.mean:8.4f} {row.width:9.4f}  {row.cover:.3f}  {boot}",
                        flush=True,
                    )
                rows += new
    if options.out:
        facts = {"torch": torch.__version__, "machine": platform.machine(), "level": LEVEL}
        found = [{**asdict(row), "reps": options.reps} for row in rows]
        options.out.write_text(json.dumps({"facts": facts, "rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
