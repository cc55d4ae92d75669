"""Likeness of synthetic images to the real images that they were made to equal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from medtrust import Estimate, Insufficient, Interval, MetricInput, Null, Resolution, Result, ops, stats
from medtrust.errors import DataError
from medtrust.seeding import derive_seed
from medtrust.types import SetData
from medtrust_fidelity.pairing import Pairs, body, find_pairs, same_kind, tensors

__all__ = ["PairedLikeness", "measure_pair"]

_POWER = 0.8
_WINDOW = 11
_MULTI_SCALE = 161  # pixels per side that five scales of an 11-pixel window need
_SHARPEST = 100.0  # dB that identical images count as
_LEAST = 3
MEASURES = {
    "ssim": ("SSIM of pairs", "SSIM", "higher"),
    "ms_ssim": ("MS-SSIM of pairs", "MS-SSIM", "higher"),
    "psnr": ("PSNR of pairs", "dB", "higher"),
    "ncc": ("Normalised cross-correlation of pairs", "correlation", "higher"),
    "mae": ("Mean absolute error of pairs", "", "lower"),
}


class PairedLikeness:
    """How like its real partner is each synthetic image, in a declared range, inside the body if asked?"""

    def compute(self, data: MetricInput) -> Mapping[str, Result]:
        """Compare the pairs that the options `pair_by` and `pair_with` declare; `body_above` leaves the air out.

        The null compares each real image with one of another patient.
        """
        if not data.intensity.hi > data.intensity.lo:
            raise DataError(
                f"the declared range {data.intensity.lo} to {data.intensity.hi} is empty: declare the true one"
            )
        pairs = find_pairs(data)
        patients = [pairs.real.patients[row] for row in pairs.left]
        count = len(set(patients))
        if count < _LEAST:
            raise Insufficient(f"the pairs are of {count} patients; an interval by patient needs {_LEAST}")
        values = _table([measure_pair(data, x, y) for x, y in tensors(pairs, data.synthetic)])
        null_values, null_patients = _strangers(data, pairs.real)
        results = {}
        for name, (title, unit, _) in MEASURES.items():
            absent = values[name] if isinstance(values[name], str) else null_values[name]
            if isinstance(absent, str):
                results[f"fidelity.paired_{name}"] = Result(status="insufficient", reason=absent, title=title)
                continue
            results[f"fidelity.paired_{name}"] = _result(
                data, pairs, name, unit or data.intensity.unit, np.asarray(values[name]), patients,
                np.asarray(null_values[name]), null_patients,
            )  # fmt: skip
        return results


def measure_pair(data: MetricInput, x: torch.Tensor, y: torch.Tensor) -> dict[str, float | str]:
    """The five measures of one pair; a sentence instead of a number that does not exist.

    Args:
        data: The metric's input, for its declared range and options.
        x: Real image [1, C, H, W] or [1, C, D, H, W].
        y: Synthetic image, of the same shape and type.
    """
    width = data.intensity.hi - data.intensity.lo
    inside = body(data, x[0].numpy())
    if inside is not None and not inside.any():
        raise Insufficient("a real image has nothing above body_above: lower it, or leave the image out")
    a, b = (image[0].double().numpy() for image in (x, y))
    if inside is not None:
        a, b = a[:, inside], b[:, inside]
    error = a - b
    square = float((error**2).mean())
    found: dict[str, float | str] = {
        "psnr": min(_SHARPEST, 10 * math.log10(width**2 / square)) if square > 0 else _SHARPEST,
        "ncc": _correlation(a.ravel(), b.ravel()),
        "mae": float(np.abs(error).mean()),
    }
    side = min(x.shape[2:])
    if side < _WINDOW:
        found["ssim"] = f"images of {side} pixels a side are smaller than the {_WINDOW}-pixel window of SSIM"
    elif inside is None:
        found["ssim"] = float(ops.ssim(x, y, data_range=width))
    else:
        edge = _WINDOW // 2
        centres = inside[tuple(slice(edge, size - edge) for size in inside.shape)]
        shown = ops.ssim_map(x, y, data_range=width)[0].numpy()[:, centres]
        found["ssim"] = float(shown.mean()) if shown.size else "no window of SSIM has its centre in the body"
    if inside is not None:
        found["ms_ssim"] = "MS-SSIM has no form inside a mask: leave body_above out for it"
    elif side < _MULTI_SCALE:
        found["ms_ssim"] = f"five scales need {_MULTI_SCALE} pixels per side, an image has {side}"
    else:
        found["ms_ssim"] = float(ops.ms_ssim(x, y, data_range=width))
    return found


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation; of constant images 1 where they are equal, else 0."""
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(float(a @ a) * float(b @ b))
    if size == 0:
        return float(bool((a == b).all()))
    return max(-1.0, min(1.0, float(a @ b) / size))


def _table(rows: Sequence[Mapping[str, float | str]]) -> dict[str, list[float] | str]:
    """Per measure the values of all pairs, or the first sentence that says why one has none."""
    found: dict[str, list[float] | str] = {}
    for name in MEASURES:
        column = [row[name] for row in rows]
        sentence = next((value for value in column if isinstance(value, str)), None)
        found[name] = [float(value) for value in column] if sentence is None else sentence
    return found


def _strangers(data: MetricInput, real: SetData) -> tuple[dict[str, list[float] | str], list[tuple[str, str]]]:
    """The measures between real images of different patients, with the two patients of each pair."""
    first, second = stats.patient_pairs(real.patients, len(real), len(real), derive_seed(data.seed, "strangers"))
    rows, patients = [], []
    for i, j in zip(first.tolist(), second.tolist(), strict=True):
        one, other = real.images[i], real.images[j]
        if one.pixels.shape != other.pixels.shape:
            continue
        rows.append(measure_pair(data, *same_kind(one.name, one.pixels, other.name, other.pixels)))
        patients.append((real.patients[i], real.patients[j]))
    if not rows:
        raise Insufficient("no two real images of different patients have the same shape, so there is no null")
    return _table(rows), patients


def _result(
    data: MetricInput,
    pairs: Pairs,
    name: str,
    unit: str,
    values: np.ndarray,
    patients: Sequence[str],
    null_values: np.ndarray,
    null_patients: Sequence[tuple[str, str]],
) -> Result:
    title, _, direction = MEASURES[name]
    number, count = stats.groups(patients, len(values))
    sums = torch.zeros(count, dtype=torch.float64).index_add_(0, number, torch.from_numpy(values))
    sizes = torch.bincount(number, minlength=count)
    se = stats.jackknife_se((values.sum() - sums) / (len(values) - sizes))
    interval = _interval(float(values.mean()), se, count, data.level, name, "delete-one-patient jackknife, t")
    codes, _ = stats.groups([p for pair in null_patients for p in pair], 2 * len(null_patients))
    null_mean, null_se, null_count = stats.pair_mean(torch.from_numpy(null_values), codes[::2], codes[1::2])
    method = "delete-one-patient jackknife over pairs, t"
    null = _interval(null_mean, null_se, null_count, data.level, name, method)
    smallest = stats.min_detectable(se, data.level, count - 1, _POWER)
    sentence = (
        f"With pairs of {count} patients, a change of the mean by less than {smallest:.3g} {unit} could not have been "
        f"shown (power {_POWER:.0%}, jackknife standard error of the pairs)."
    )
    notes: tuple[str, ...] = ()
    if pairs.alone:
        notes += (f"{pairs.alone} synthetic images have no partner and are left out",)
    if name == "psnr" and (values >= _SHARPEST).any():
        notes += (f"{int((values >= _SHARPEST).sum())} pairs are identical and count as {_SHARPEST:.0f} dB",)
    return Result(
        estimate=Estimate(float(values.mean()), unit, direction),  # type: ignore[arg-type]
        interval=interval,
        null=Null("real images of different patients", null_mean, null),
        resolution=Resolution(smallest, _POWER, sentence),
        facts={
            "pairs": len(values),
            "paired_by": pairs.by,
            "lowest": float(values.min()),
            "median": float(np.median(values)),
            "highest": float(values.max()),
            "data_range": data.intensity.hi - data.intensity.lo,
        },
        notes=notes,
        title=title,
    )


def _interval(mean: float, se: float, count: int, level: float, name: str, method: str) -> Interval:
    reach = stats.t_quantile(level, count - 1) * se
    lowest, highest = {"mae": (0.0, math.inf), "psnr": (-math.inf, _SHARPEST)}.get(name, (-1.0, 1.0))
    return Interval(max(lowest, mean - reach), min(highest, mean + reach), level, method, count)
