"""Distance between the average power spectra of train and synthetic, of the images or of their noise."""

from __future__ import annotations

import math

import numpy as np
import torch

from medtrust import Estimate, Insufficient, Interval, MetricInput, Null, Resolution, Result, stats
from medtrust.errors import DataError
from medtrust_fidelity.comparison import Comparison, Rows, compare_rows
from medtrust_fidelity.kernel import POWER, detectable
from medtrust_fidelity.options import whole
from medtrust_fidelity.spectral import FLOOR_DB, on_common_grid, spectra_of

__all__ = ["NoiseSpectrum", "PowerSpectrum"]

_LEAST = 3
_PATCH = 16


class PowerSpectrum:
    """By how many decibels do the average power spectra of the images differ?"""

    def compute(self, data: MetricInput) -> Result:
        """Compare average spectra in dB at 32 frequencies from one cycle per image to half a cycle per pixel."""
        return _compare(data, None)


class NoiseSpectrum:
    """By how many decibels do the average spectra of the images' noise differ?"""

    def compute(self, data: MetricInput) -> Result:
        """Compare what is left of the flattest patches without their trend.

        The option `patch` sets the pixels per side of a patch (16).
        """
        return _compare(data, whole(data, "noise_spectrum", "patch", _PATCH))


def _compare(data: MetricInput, patch: int | None) -> Result:
    if not data.intensity.hi > data.intensity.lo:
        raise DataError(f"the declared range {data.intensity.lo} to {data.intensity.hi} is empty: declare the true one")
    given = [one for one in (data.train, data.synthetic, data.holdout) if one is not None]
    spectra = {one.name: spectra_of(one, data.intensity, patch) for one in given}
    if patch is not None and not any(spectra["train"]):
        raise Insufficient(
            "no train image has noise: every patch is constant, so there is nothing to compare; were the images "
            "denoised, or rounded to few levels?"
        )
    grid, levels = on_common_grid(spectra)
    rows = {one.name: Rows(torch.from_numpy(levels[one.name]), one.patients) for one in given}
    sets = compare_rows(rows["train"], rows["synthetic"], rows.get("holdout"), data.seed, _LEAST)
    equal = sets.at_equal_size(data.seed)

    def infer(real: Rows, other: Rows) -> stats.Inference:
        return stats.mmd_interval(
            real.values, other.values, real.patients, other.patients, kernel=stats.linear, level=data.level
        )

    found, null = infer(sets.train, sets.synthetic), infer(equal.null_train, equal.null_other)
    smallest = math.sqrt(detectable(null, equal, infer, data.level))
    sentence = (
        f"With {len(equal.null_train)} train and {len(equal.null_other)} other images, average spectra that differ by "
        f"less than {smallest:.3g} dB, all frequencies taken together, could not have been told from those of real "
        f"images (power {POWER:.0%}, jackknife standard error of real against real and of a planted shift)."
    )
    return Result(
        estimate=Estimate(_root(found.value), "dB", "lower"),
        interval=_root_interval(found.interval),
        null=Null(sets.reference, _root(null.value), _root_interval(null.interval)),
        resolution=Resolution(smallest, POWER, sentence),
        facts=_facts(sets, grid, spectra if patch is not None else None),
        notes=sets.notes,
    )


def _root(squared: float) -> float:
    return math.sqrt(max(0.0, squared))


def _root_interval(squared: Interval) -> Interval:
    method = f"root of the unbiased square, {squared.method}"
    return Interval(_root(squared.lo), _root(squared.hi), squared.level, method, squared.n_units)


def _facts(
    sets: Comparison, grid: np.ndarray[tuple[int], np.dtype[np.float64]], noise: dict[str, list[object]] | None
) -> dict[str, float | int | str | bool]:
    gap = sets.synthetic.values.mean(0) - sets.train.values.mean(0)
    third = len(grid) // 3
    facts: dict[str, float | int | str | bool] = {
        "n_train": len(sets.train),
        "n_synthetic": len(sets.synthetic),
        "low_frequencies_db": float(gap[:third].mean()),
        "middle_frequencies_db": float(gap[third:-third].mean()),
        "high_frequencies_db": float(gap[-third:].mean()),
    }
    if noise is not None:
        silent = {name: sum(one is None for one in of_set) / len(of_set) for name, of_set in noise.items()}
        facts |= {f"without_noise_{name}": share for name, share in silent.items()}
        facts["floor_db"] = FLOOR_DB
    return facts
