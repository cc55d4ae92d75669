"""Precision, recall, density and coverage: do two sets lie in each other's nearest-neighbour balls?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

import medtrust.ops.neighbours  # noqa: F401  registers torch.ops.medtrust.nearest and .balls
from medtrust.errors import Insufficient
from medtrust.stats.intervals import korn_graubard, t_quantile
from medtrust.stats.resampling import Inference, Patients, groups, half_sampling
from medtrust.types import Interval

__all__ = ["MANIFOLD_NAMES", "Manifold", "manifold", "manifold_interval"]

MANIFOLD_NAMES = ("precision", "recall", "density", "coverage")


@dataclass(frozen=True, slots=True)
class Manifold:
    """The four shares.

    Args:
        precision: Share of the synthetic images within the ball of some real image.
        recall: Share of the real images within the ball of some synthetic image.
        density: Mean number of real balls around a synthetic image, divided by k; 1 for ideal data, unbounded.
        coverage: Share of the real images whose ball holds a synthetic image.
    """

    precision: float
    recall: float
    density: float
    coverage: float

    def as_tuple(self) -> tuple[float, float, float, float]:
        """The four in the order of `MANIFOLD_NAMES`."""
        return self.precision, self.recall, self.density, self.coverage


def manifold(
    real: torch.Tensor,
    synthetic: torch.Tensor,
    patients_real: Patients = None,
    patients_synthetic: Patients = None,
    *,
    k: int | None = None,
    convention: Literal["prdc", "kynkaanniemi"] = "prdc",
) -> Manifold:
    """Precision, recall, density and coverage as the package `prdc` defines them, without an n by n matrix.

    A row's ball reaches to its k-th nearest neighbour in its own set; a point is inside where its distance is strictly
    smaller.

    Args:
        real: Features [n, d].
        synthetic: Features [m, d].
        patients_real: Patient of each row; neighbours of the same patient do not count. None, as in `prdc`, leaves out
            the row itself alone.
        patients_synthetic: Likewise of the synthetic rows.
        k: Which neighbour sets the radius; None takes the convention's own, 5 for prdc and 3 for kynkaanniemi.
        convention: "prdc", or "kynkaanniemi", whose balls hold their border too.

    Raises:
        Insufficient: A row has fewer than k neighbours of other patients, a value is not finite, or every real ball has
            radius 0 because the real features are constant or duplicated. Synthetic duplicates are no such reason:
            their empty balls recall nothing.
        ValueError: The widths differ, or the convention is unknown.

    Reference:
        Kynkäänniemi et al. 2019, arXiv:1904.06991; Naeem et al. 2020, arXiv:2002.09797.
    """
    real, synthetic = _checked(real, synthetic)
    of_real, _ = groups(patients_real, len(real))
    of_synthetic, _ = groups(patients_synthetic, len(synthetic))
    if convention not in ("prdc", "kynkaanniemi"):
        raise ValueError(f"convention {convention!r} is unknown: use 'prdc' or 'kynkaanniemi'")
    closed = convention == "kynkaanniemi"
    return _shares(real, synthetic, of_real, of_synthetic, (k or (3 if closed else 5),), closed)[0]


def manifold_interval(
    real: torch.Tensor,
    synthetic: torch.Tensor,
    patients_real: Patients = None,
    patients_synthetic: Patients = None,
    *,
    k: int = 5,
    level: float = 0.95,
    seed: int = 0,
    splits: int = 16,
) -> Mapping[str, Inference]:
    """The four shares, each with an interval for its expectation at these sample sizes.

    The shares depend on the sample sizes through the radii, so there is no population value: compare them at equal
    sizes alone. Standard errors come from complementary halves of the patients, which lets the balls vary with the
    points inside them; the shares get a Clopper-Pearson interval at the effective sample size that this error implies,
    density one of Student's t.

    Args:
        real: Features [n, d].
        synthetic: Features [m, d].
        patients_real: Patient of each row; None where each row is its own.
        patients_synthetic: Likewise of the synthetic rows.
        k: Which neighbour sets the radius.
        level: Confidence level.
        seed: Seed of the splits.
        splits: Number of random splits.

    Returns:
        One inference per name of `MANIFOLD_NAMES`.

    Raises:
        Insufficient: As `manifold`, of the sets or of half of them.
    """
    real, synthetic = _checked(real, synthetic)
    of_real, units_real = groups(patients_real, len(real))
    of_synthetic, units_synthetic = groups(patients_synthetic, len(synthetic))
    whole = _shares(real, synthetic, of_real, of_synthetic, (k,))[0]

    fewest = min(units_real, units_synthetic)
    if fewest < 2 * (k + 1):
        raise Insufficient(f"needs {2 * (k + 1)} patients in each set to resample them in halves, a set has {fewest}")

    def on_rows(i: torch.Tensor, j: torch.Tensor) -> tuple[float, ...]:
        # Density varies with the share of the data that a ball holds; half the data hold that share at half of k.
        at_k, at_half = _shares(real[i], synthetic[j], of_real[i], of_synthetic[j], (k, (k + 1) // 2))
        return at_k.precision, at_k.recall, at_half.density, at_k.coverage

    _, errors = half_sampling(
        on_rows, patients_real, patients_synthetic, (len(real), len(synthetic)), splits=splits, seed=seed
    )
    counted = {"precision": units_synthetic, "recall": units_real, "density": units_synthetic, "coverage": units_real}
    results = {}
    for name, value, se in zip(MANIFOLD_NAMES, whole.as_tuple(), errors.tolist(), strict=True):
        units = counted[name]
        if name == "density":
            reach = t_quantile(level, splits) * se
            # No synthetic image in any ball has no spread: bound its share, and let one within count as in ideal data.
            lo, hi = (
                (max(0.0, value - reach), value + reach) if value > 0 else korn_graubard(0.0, 0.0, units, level, splits)
            )
            method = "delete-half t"
        else:
            lo, hi = korn_graubard(value, se, units, level, splits)
            method = "delete-half Korn-Graubard"
        interval = Interval(lo, hi, level, method, units, "patient")
        results[name] = Inference(value=value, plug_in=value, se=se, interval=interval, dof=splits)
    return results


def _checked(real: torch.Tensor, synthetic: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    real, synthetic = real.double(), synthetic.double()
    if real.shape[1] != synthetic.shape[1]:
        raise ValueError(
            f"features of width {real.shape[1]} cannot be compared with features of width {synthetic.shape[1]}"
        )
    if not bool(real.isfinite().all() and synthetic.isfinite().all()):
        raise Insufficient(
            "the features hold values that are not finite: look for broken images or a failing extractor"
        )
    return real, synthetic


def _shares(
    real: torch.Tensor,
    synthetic: torch.Tensor,
    of_real: torch.Tensor,
    of_synthetic: torch.Tensor,
    ks: Sequence[int],
    closed: bool = False,
) -> list[Manifold]:
    """The shares for each k, from one search of neighbours."""
    radii_real = _squared_radii(real, of_real, max(ks), "real")
    if not bool((radii_real > 0).any()):
        raise Insufficient(
            f"the {max(ks)} nearest neighbours of every real image are identical to it, so its ball is empty: the "
            "features are constant or all images are duplicates"
        )
    radii_synthetic = _squared_radii(synthetic, of_synthetic, max(ks), "synthetic")
    found = []
    for k in ks:
        balls_around, recalled, covered = torch.ops.medtrust.balls(
            synthetic, real, radii_synthetic[:, k - 1].contiguous(), radii_real[:, k - 1].contiguous(), closed
        )
        found.append(
            Manifold(
                precision=float((balls_around > 0).double().mean()),
                recall=float(recalled.double().mean()),
                density=float(balls_around.double().mean() / k),
                coverage=float(covered.double().mean()),
            )
        )
    return found


def _squared_radii(x: torch.Tensor, of_row: torch.Tensor, k: int, name: str) -> torch.Tensor:
    """Squared distance of each row to its nearest k rows of other patients, [n, k] ascending."""
    largest = int(torch.bincount(of_row).max()) if len(x) else 0
    if len(x) - largest < k:
        raise Insufficient(
            f"needs {k} neighbours of other patients for every {name} image; the largest patient of {len(x)} images "
            f"leaves {len(x) - largest}"
        )
    of_row = of_row.to(x.device)
    squared: torch.Tensor = torch.ops.medtrust.nearest(x, x, k, of_row, of_row)[0]
    return squared
