"""Reduced chi-squared of images against the generator's own scanner, with a map of where they do not fit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from medtrust import Estimate, Insufficient, Interval, MetricInput, Null, Resolution, Result, stats
from medtrust.errors import ConfigError
from medtrust.images import render
from medtrust.types import Evidence, Intensity, Picture

__all__ = ["ScanResidual", "scan_residuals"]

_LEAST, _MOST, _ROOM = 8, 32, 2e7
_SHOWN, _REACH = 3, 5.0


class ScanResidual:
    """Does each image differ from further scans of the same tissue as a scan does, or was it altered after it?"""

    def compute(self, data: MetricInput) -> Result:
        """Draw images, have their tissue scanned again and again, and hold each against the scans.

        The option `images` sets how many are drawn (at most 32, by default as many as fit).
        """
        generator = data.generator
        if not hasattr(generator, "rescan"):
            return Result(
                status="skipped",
                reason="this generator has no model of the scanner (no method `rescan`, see medtrust.types.Scanner), "
                "so its images cannot be held against one",
            )
        # an image is one more scan: of this many, its place is outside all others' with chance 1 - level at most
        repeats = math.ceil(2 / (1 - data.level)) - 1
        n = _count(data, generator, repeats)
        batch = generator.sample(n, seed=data.seed)
        scans = [generator.rescan(n, seed=data.seed, repeat=r + 1).pixels for r in range(repeats)]
        shapes = {scan.shape for scan in scans} | {batch.pixels.shape}
        if len(shapes) > 1:
            raise Insufficient(f"rescans differ from the samples in shape: {sorted(map(list, shapes))}")
        width = data.intensity.hi - data.intensity.lo
        step = 1.0 if batch.pixels.dtype.kind in "iu" else 1e-6 * width
        found, z = scan_residuals(np.stack([batch.pixels, *scans]).astype(np.float64), step)
        if not np.isfinite(found).all():
            raise Insufficient("the scans hold no noise at all, so no image can be told from them")
        mean, again = float(found[0].mean()), found[1:].mean(1)
        reach = stats.t_quantile(data.level, n - 1) * float(found[0].std(ddof=1)) / math.sqrt(n)
        null = Interval(
            float(again.min()), float(again.max()), 1 - 2 / (repeats + 1), "further scans, all", repeats, "scan"
        )
        smallest = null.hi - float(again.mean()) + 0.84 * float(again.std(ddof=1))
        return Result(
            estimate=Estimate(mean, "reduced χ²"),
            interval=Interval(max(0.0, mean - reach), mean + reach, data.level, "Student's t over images", n, "image"),
            null=Null("further scans of the same tissue", float(again.mean()), null),
            resolution=Resolution(
                smallest, 0.8,
                f"With {n} images and {repeats} scans of each, a χ² that is off by less than {smallest:.2g} could not "
                "have been told from that of a scan (power 80%).",
            ),
            facts={
                "images": n, "scans": repeats, "outside_null": bool(not null.lo <= mean <= null.hi),
                "highest": float(found[0].max()), "lowest": float(found[0].min()),
            },
            evidence=_evidence(found[0], z),
        )  # fmt: skip


def _count(data: MetricInput, generator: Any, repeats: int) -> int:
    room = int(_ROOM / ((repeats + 1) * math.prod(abs(side) for side in generator.spec.shape)))
    own = data.options.get("scan_residual", {})
    asked = own.get("images", min(_MOST, room)) if isinstance(own, dict) else own
    if not isinstance(asked, int) or not _LEAST <= asked <= _MOST:
        if "images" not in own:
            raise Insufficient(
                f"images {list(generator.spec.shape)} are too large to hold {repeats} scans of 8 of them"
            )
        raise ConfigError(
            f"plugins.physics.scan_residual: images = {asked!r} must be a whole number from {_LEAST} to {_MOST}"
        )
    return asked


def scan_residuals(scans: np.ndarray[Any, Any], step: float) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Hold each scan of an object against the others.

    Each is standardised by the mean and standard deviation of the others, pixel by pixel; a scan's z then has Student's
    t distribution, whose variance is divided out. All scans are treated alike, so that none can stand out by chance
    more often than its share.

    Args:
        scans: [R, N, C, H, W] float64, R scans of N objects, R >= 5.
        step: Smallest difference that a pixel can show; noise below it counts as this.

    Returns:
        Reduced chi-squared [R, N], about 1 for every scan of an object; and z [N, C, H, W] of the first scan. Pixels
        that never change are left out; NaN where none does.

    Reference:
        Bevington and Robinson 2003, Data Reduction and Error Analysis, section 4.4.
    """
    count = len(scans)
    others = count - 1
    centred = scans - scans.mean(0)
    total, squares = centred.sum(0), np.square(centred).sum(0)
    changing = scans.max(0) > scans.min(0)
    answers = []
    first = np.zeros(scans.shape[1:])
    for r, scan in enumerate(centred):
        mean = (total - scan) / others
        variance = (squares - scan**2 - others * mean**2) / (others - 1)
        z = (scan - mean) / np.sqrt(np.maximum(variance, step**2 / 12) * (1 + 1 / others))
        z *= math.sqrt((others - 3) / (others - 1))
        if r == 0:
            first = z
        pixels = changing.reshape(len(z), -1)
        sums = np.where(pixels, np.square(z).reshape(len(z), -1), 0).sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            answers.append(sums / pixels.sum(1))
    return np.stack(answers), np.where(changing, first, 0.0)


def _evidence(values: np.ndarray[Any, Any], z: np.ndarray[Any, Any]) -> tuple[Evidence, ...]:
    """The images that fit worst, and where: grey is as expected, white above, black below."""
    shown = []
    for rank, i in enumerate(np.argsort(-values, kind="stable")[:_SHOWN], 1):
        picture = Picture(
            "z-map",
            f"z of sample {i} against further scans: 0 grey, {_REACH:g} or more white, {-_REACH:g} or less black",
            png=render(z[i][:1], Intensity(-_REACH, _REACH, "z")),
        )
        facts: dict[str, float | int | str | bool] = {"reduced_chi_squared": float(values[i])}
        facts |= {"largest_z": float(np.abs(z[i]).max())}
        shown.append(Evidence("z-map", f"sample {i} against its own scanner", rank, facts, (picture,)))
    return tuple(shown)
