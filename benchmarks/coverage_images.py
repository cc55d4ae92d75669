"""How often do the intervals hold the truth on features of real images?

    medtrust data get derm-patches            # prints the folder
    python benchmarks/coverage_images.py FOLDER --reps 200 --out benchmarks/results/coverage_images.json

A population with known values: the patients of the set, each as likely as the other. A draw of n patients with
replacement brings all images of each, and a patient drawn twice counts as two, as in a population that is this
distribution. The truth is the statistic of that distribution: the Fréchet distance of its moments with divisor N, the
kernel distance over all pairs with themselves. Train is drawn from one half of the patients, the other set from that
half ("same patients"), from the other half, or from the other half under a light blur.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from medtrust.stats import Inference, frechet_distance, frechet_interval
from medtrust.stats.kernel_sums import KernelSums
from medtrust.stats.kernels import polynomial
from medtrust.types import Intensity

LEVEL = 0.95
LEVELS = Intensity(0.0, 255.0, "level")
BLUR = 0.6  # pixels
FEW = 400  # patients, above which a third of the repetitions is drawn for the Fréchet distance


@dataclass(frozen=True)
class Population:
    """The images of some patients.

    Args:
        values: [N, d] features, float64.
        starts: [G + 1] first row of each patient; rows are sorted by patient.
    """

    values: torch.Tensor
    starts: np.ndarray

    @classmethod
    def of(cls, values: torch.Tensor, patients: np.ndarray) -> Population:
        """Sort rows by patient number."""
        order = np.argsort(patients, kind="stable")
        starts = np.r_[0, np.cumsum(np.bincount(patients))]
        return cls(values[torch.from_numpy(order)], starts)

    def draw(self, n: int, rng: np.random.Generator) -> tuple[torch.Tensor, list[int]]:
        """Draw n patients with replacement: rows, and the number of the draw as their patient."""
        chosen = rng.integers(0, len(self.starts) - 1, n)
        rows = [np.arange(self.starts[p], self.starts[p + 1]) for p in chosen]
        return self.values[torch.from_numpy(np.concatenate(rows))], [i for i, r in enumerate(rows) for _ in r]


def true_frechet(a: Population, b: Population) -> float:
    """Distance of the two distributions' moments."""
    return frechet_distance(a.values, b.values, convention="stylegan")


def true_kid(a: Population, b: Population) -> float:
    """Kernel distance of the two distributions, pairs of a row with itself included."""
    d = a.values.shape[1]
    means = [float(((x @ y.T / d + 1) ** 3).mean()) for x, y in ((a.values, a.values), (b.values, b.values))]
    return means[0] + means[1] - 2 * float(((a.values @ b.values.T / d + 1) ** 3).mean())


@dataclass(frozen=True)
class PatientKernels:
    """KID's kernel summed over the rows of each two patients: the interval of any draw follows, without its rows.

    Args:
        within_a: [A, A], patients of a with each other.
        within_b: [B, B], likewise of b.
        across: [A, B].
        n_a: [A] rows of each patient.
        n_b: [B].
    """

    within_a: torch.Tensor
    within_b: torch.Tensor
    across: torch.Tensor
    n_a: torch.Tensor
    n_b: torch.Tensor

    @classmethod
    def of(cls, a: Population, b: Population) -> PatientKernels:
        """Sum the kernel by patient."""

        def by_patient(x: Population, y: Population) -> torch.Tensor:
            table = polynomial(x.values, y.values).numpy()
            sums = np.add.reduceat(np.add.reduceat(table, x.starts[:-1], axis=0), y.starts[:-1], axis=1)
            return torch.from_numpy(sums)

        counts = [torch.from_numpy(np.diff(one.starts).astype(np.float64)) for one in (a, b)]
        return cls(by_patient(a, a), by_patient(b, b), by_patient(a, b), *counts)

    def draw(self, n: int, rng: np.random.Generator) -> KernelSums:
        """Draw n patients of either population, as `Population.draw` of a and then of b do with this generator."""
        i, j = (torch.from_numpy(rng.integers(0, len(one), n)) for one in (self.n_a, self.n_b))
        times_i, times_j = (torch.bincount(k, minlength=len(one)).double() for k, one in ((i, self.n_a), (j, self.n_b)))
        own_a, own_b = self.within_a.diagonal()[i], self.within_b.diagonal()[j]
        return KernelSums(
            self.n_a[i], (self.within_a @ times_i)[i] - own_a, own_a.sum(), (self.across @ times_j)[i],
            self.n_b[j], (self.within_b @ times_j)[j] - own_b, own_b.sum(), (self.across.T @ times_i)[j],
        )  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line: how often the interval and the percentile bootstrap held the truth."""

    statistic: str
    population: str
    features: str
    n: int
    reps: int
    truth: float
    mean: float
    cover: float
    below: float
    width: float
    extrapolated: float
    bootstrap: float | None = None


def study(
    statistic: str, name: str, space: str, a: Population, b: Population, n: int, reps: int, bootstrap: int = 0
) -> Row:
    """Draw, estimate and count.

    Args:
        statistic: "frechet" or "kid".
        name: What differs between the populations.
        space: Feature space.
        a: Where train is drawn from.
        b: Where the other set is drawn from.
        n: Patients of each.
        reps: Repetitions.
        bootstrap: Draws of the percentile bootstrap beside a Fréchet interval, 0 for none; by patient, too.
    """
    truth = true_frechet(a, b) if statistic == "frechet" else true_kid(a, b)
    pairs = None if statistic == "frechet" else PatientKernels.of(a, b)
    hits, below, boot, values, widths, extrapolated = [], [], [], [], [], []
    for rep in range(reps):
        rng = np.random.default_rng([rep, n])
        found: Inference
        if pairs is not None:
            found = pairs.draw(n, rng).inference(LEVEL)
        else:
            (x, of_x), (y, of_y) = a.draw(n, rng), b.draw(n, rng)
            found = frechet_interval(x, y, of_x, of_y, level=LEVEL, seed=rep)
        lo, hi = found.interval.lo, found.interval.hi
        hits.append(lo <= truth <= hi)
        below.append(truth < lo)
        values.append(found.value)
        widths.append(hi - lo)
        extrapolated.append(getattr(found, "extrapolated", True))
        if bootstrap:
            boot.append(_percentile_holds(x, y, of_x, of_y, truth, bootstrap, rng))
    return Row(
        statistic, name, space, n, reps, truth, float(np.mean(values)), float(np.mean(hits)), float(np.mean(below)),
        float(np.mean(widths)), float(np.mean(extrapolated)), float(np.mean(boot)) if boot else None,
    )  # fmt: skip


def _percentile_holds(
    x: torch.Tensor, y: torch.Tensor, of_x: list[int], of_y: list[int], truth: float, draws: int,
    rng: np.random.Generator,
) -> bool:  # fmt: skip
    """Does the interval that this study shows to fail hold the truth?"""
    sets = [Population.of(v, np.asarray(p)) for v, p in ((x, of_x), (y, of_y))]
    again = [frechet_distance(*(one.draw(len(one.starts) - 1, rng)[0] for one in sets)) for _ in range(draws)]
    lo, hi = np.quantile(again, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return bool(lo <= truth <= hi)


def populations(
    images: np.ndarray, patients: np.ndarray, extract: Callable[[torch.Tensor], torch.Tensor], standardise: bool
) -> dict[str, tuple[Population, Population]]:
    """The three pairs of populations, in the features that `extract` gives.

    Args:
        images: [N, C, H, W] uint8.
        patients: [N] patient numbers, 0 … G - 1.
        extract: Maps such images to [N, d].
        standardise: Divide features by their standard deviation in the first half.
    """
    side = np.random.default_rng(0).permutation(patients.max() + 1) % 2
    first, other = (np.flatnonzero(side[patients] == half) for half in (0, 1))
    blurred = np.rint(gaussian_filter(images[other].astype(np.float64), (0, 0, BLUR, BLUR))).astype(np.uint8)
    parts = [extract(torch.from_numpy(x)).double() for x in (images[first], images[other], blurred)]
    if standardise:
        scale = parts[0].std(0)
        parts = [part[:, scale > 0] / scale[scale > 0] for part in parts]
    numbers = [np.unique(patients[rows], return_inverse=True)[1] for rows in (first, other, other)]
    a, b, c = (Population.of(part, number) for part, number in zip(parts, numbers, strict=True))
    return {"same patients": (a, a), "other patients": (a, b), "other patients, blurred": (a, c)}


def load(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, C, H, W] uint8 and patient numbers [N] of a folder with a manifest."""
    with (folder / "manifest.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    images = np.stack([np.asarray(Image.open(folder / row["file"]).convert("RGB")) for row in rows])
    return images.transpose(0, 3, 1, 2), np.unique([row["patient"] for row in rows], return_inverse=True)[1]


def spaces(names: list[str]) -> dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], bool]]:
    """Extractors by name, and whether their features are standardised."""
    found: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], bool]] = {}
    for name in names:
        if name == "radiomics":
            from medtrust_features.radiomics import Radiomics

            found[name] = (lambda x, e=Radiomics(): e.extract(x, LEVELS), True)  # noqa: B008
        else:
            import platformdirs

            from medtrust.weights import resolve_weights
            from medtrust_features.inception import Inception

            cache = Path(platformdirs.user_cache_dir("medtrust"))
            network = Inception(resolve_weights("inception", {}, offline=True, cache_dir=cache))
            found[name] = (lambda x, e=network: e.extract(x, LEVELS), False)
    return found


def main() -> None:
    """Run the study and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--features", nargs="+", default=["radiomics"], help="radiomics, inception")
    parser.add_argument("--statistics", nargs="+", default=["frechet", "kid"])
    parser.add_argument("--reps", type=int, default=200, help="a third of them for Fréchet above 400 patients")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100, 400, 1000, 2000])
    parser.add_argument("--bootstrap", type=int, default=40, help="draws of the percentile bootstrap, 0 for none")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    images, patients = load(options.folder)
    rows: list[Row] = []
    print("statistic features   population                  n    truth     mean    width  cover  bootstrap")
    for space, (extract, standardise) in spaces(options.features).items():
        for name, (a, b) in populations(images, patients, extract, standardise).items():
            for n in options.sizes:
                for statistic in options.statistics:
                    draws = options.bootstrap if statistic == "frechet" else 0
                    reps = options.reps if n <= FEW or statistic == "kid" else options.reps // 3
                    row = study(statistic, name, space, a, b, n, reps, draws)
                    rows.append(row)
                    boot = "" if row.bootstrap is None else f"{row.bootstrap:.2f}"
                    error = (row.cover * (1 - row.cover) / reps) ** 0.5
                    print(
                        f"{statistic:9s} {space:10s} {name:24s} {n:5d} {row.truth:8.4f} {row.mean:8.4f}"
                        f" {row.width:8.4f}  {row.cover:.3f} ± {error:.3f}  {boot}",
                        flush=True,
                    )
    if options.out:
        facts = {
            "torch": torch.__version__, "machine": platform.machine(), "level": LEVEL, "reps": options.reps,
            "images": len(images), "patients": int(patients.max()) + 1,
        }  # fmt: skip
        options.out.write_text(json.dumps({"facts": facts, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
