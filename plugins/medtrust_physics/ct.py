"""A flow over maps of Hounsfield units, and a scanner: projections, photon counts, filtered back-projection."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from medtrust.errors import ConfigError, DataError
from medtrust.seeding import derive_seed
from medtrust_generators.options import Options
from medtrust_physics.hybrid import HybridFactory, HybridGenerator, positive
from medtrust_physics.noise import BANDS, EDGES, flat_noise, noise_shape
from medtrust_physics.tomography import WATER, ParallelBeam

if TYPE_CHECKING:
    from medtrust.types import ImageRecord

__all__ = ["CtGenerator", "CtPhysics", "scan_ct"]

_FREQUENCIES = 33  # of the kernel, from 0 to half a cycle per pixel
_ROUNDS, _GAINS = 6, (0.02, 20.0)
_DESCENTS, _STEP = 60, 0.24  # of the total variation; a step below 1/4 converges
_TRIAL = 1e5
_CALIBRATION = 32  # images that dose and kernel are measured on
_LEAST = 0.5  # counts below one photon are taken as half a photon


@lru_cache(maxsize=2)
def _beam(size: int, angles: int) -> ParallelBeam:
    return ParallelBeam(size, angles, torch.float32)


def scan_ct(
    maps: Tensor,
    noise: Sequence[torch.Generator] | None,
    *,
    pixel_mm: float,
    photons: float,
    kernel: Sequence[float],
    angles: int,
) -> Tensor:
    """Scan slices once.

    Around the slice, its edge is repeated up to a circle, so that all that is in the beam is in every projection: a
    slice may be cut out of a larger one.

    Args:
        maps: [N, 1, H, W] float32 in HU, square.
        noise: Source of the photon noise of each; None for a scan without noise.
        pixel_mm: Side of a pixel.
        photons: Photons per ray without an object.
        kernel: Of the reconstruction, see `ParallelBeam.reconstruct`.
        angles: Projections over the half turn.

    Returns:
        [N, 1, H, W] float32 in HU.

    Reference:
        Kak and Slaney 1988, Principles of Computerized Tomographic Imaging, chapters 3 and 4.
    """
    sinograms, margin = _project(maps, pixel_mm, angles)
    if noise is not None:
        sinograms = _counted(sinograms, noise, photons)
    return _reconstruct(sinograms, margin, pixel_mm, kernel)


def _counted(sinograms: Tensor, noise: Sequence[torch.Generator], photons: float) -> Tensor:
    """Count photons along each ray, and take the line integrals from the counts."""
    rates = photons * torch.exp(-sinograms)
    counts = torch.stack([torch.poisson(rate, generator=source) for rate, source in zip(rates, noise, strict=True)])
    return -(counts.clamp(min=_LEAST) / photons).log()


def _reconstruct(sinograms: Tensor, margin: int, pixel_mm: float, kernel: Sequence[float]) -> Tensor:
    """Slices [N, 1, H, W] in HU."""
    images = _beam(sinograms.shape[2], sinograms.shape[1]).reconstruct(sinograms, torch.tensor(kernel))[:, None]
    return (images[..., margin:-margin, margin:-margin] / (WATER * pixel_mm) - 1) * 1000


def _project(maps: Tensor, pixel_mm: float, angles: int) -> tuple[Tensor, int]:
    """Line integrals [N, A, size] of the attenuation, and how far the slice lies inside the field of view."""
    size = maps.shape[2]
    margin = math.ceil(size * (math.sqrt(2) - 1) / 2) + 2
    padded = functional.pad(maps, (margin,) * 4, mode="replicate")[:, 0]
    axis = torch.arange(padded.shape[1]) - padded.shape[1] // 2
    circle = (axis[:, None] ** 2 + axis**2) < (padded.shape[1] // 2 - 1) ** 2
    attenuation = WATER * pixel_mm * (1 + padded / 1000).clamp(min=0) * circle
    return _beam(padded.shape[1], angles).project(attenuation), margin


class CtGenerator(HybridGenerator):
    """Draws maps and scans them."""

    def scan(self, maps: Tensor, noise: Sequence[torch.Generator], codes: Tensor) -> Tensor:
        """Project, count photons, reconstruct."""
        p = self.card["physics"]
        scanner = {name: p[name] for name in ("pixel_mm", "photons", "kernel", "angles")}
        return scan_ct(maps.clamp(*self.spec.range), noise, **scanner)


class CtPhysics(HybridFactory):
    """The `factory` of the spec `ct-physics`.

    The maps are the training slices without their noise: least total variation, weighed by `smooth` times the noise.
    The kernel and the number of photons are those with which scans of these maps have the noise of the training slices,
    unless they are stated.
    """

    kind = "ct-physics"
    generator = CtGenerator
    own: ClassVar[Mapping[str, str | int | float]] = {
        "photons": "measured", "kernel": "measured", "pixel_mm": "header", "angles": 0, "smooth": 1.5,
    }  # fmt: skip

    def prepare(self, pixels: Tensor, images: Sequence[ImageRecord], recipe: Options) -> tuple[Tensor, dict[str, Any]]:
        """Take the noise off the slices, and measure it."""
        size = pixels.shape[2]
        if pixels.shape[1] != 1 or pixels.shape[3] != size or size < 32:
            raise DataError(
                f"needs square slices of one channel and at least 32 pixels; these are {list(pixels.shape[1:])}"
            )
        header = images[0].header
        if header.intensity is not None and header.intensity.unit != "HU":
            raise DataError(f"needs slices in HU; these are in {header.intensity.unit}")
        angles = recipe.whole("angles", lo=0, hi=4096) or math.ceil(math.pi / 2 * size * math.sqrt(2))
        facts: dict[str, Any] = {"angles": angles, "pixel_mm": _pixel_mm(recipe, header.spacing_mm)}
        weight = recipe.number("smooth", lo=0, hi=100) * _noise(pixels)[1]
        maps = torch.cat([flattened(part, weight) for part in pixels.split(64)])
        fitted = recipe.choice("kernel", ("measured", "ramp")) == "measured"
        facts |= _calibrated(pixels, maps, positive(recipe, "photons", 1e12), fitted, facts)
        facts["maps"] = f"the slices without their noise: total variation, weight {weight:.4g} HU"
        return maps, facts


def _pixel_mm(recipe: Options, spacing: tuple[float, ...] | None) -> float:
    if recipe.values["pixel_mm"] != "header":
        return recipe.number("pixel_mm", lo=1e-3, hi=1e3)
    if not spacing:
        raise ConfigError("these slices state no spacing; state the side of a pixel by the option pixel_mm")
    return float(spacing[-1])


def flattened(images: Tensor, weight: float) -> Tensor:
    """Find the u with the least half squared distance to the images plus `weight` times total variation.

    Args:
        images: [N, 1, H, W] float32.
        weight: In the unit of the images; 0 leaves them as they are.

    Reference:
        Chambolle 2004, doi:10.1023/B:JMIV.0000011325.36760.1e (the dual, by gradient projection).
    """
    if weight == 0:
        return images
    dual = torch.zeros(2, *images.shape)
    for _ in range(_DESCENTS):
        u = images / weight - _gathered(dual)
        slope = torch.stack([torch.diff(u, dim=d, append=u.narrow(d, u.shape[d] - 1, 1)) for d in (2, 3)])
        dual = (dual + _STEP * slope) / (1 + _STEP * slope.square().sum(0).sqrt())
    return images - weight * _gathered(dual)


def _gathered(dual: Tensor) -> Tensor:
    """Adjoint of the forward differences."""
    down, across = dual
    down = torch.cat([-down[:, :, :1], -torch.diff(down[:, :, :-1], dim=2), down[:, :, -2:-1]], 2)
    across = torch.cat([-across[..., :1], -torch.diff(across[..., :-1], dim=3), across[..., -2:-1]], 3)
    return down + across


def _calibrated(
    pixels: Tensor, maps: Tensor, photons: float | None, fitted: bool, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Find the kernel and the dose whose noise is that of the slices.

    The power of the noise at a frequency goes with the square of the kernel there, and with one over the photons, so a
    few rounds of dividing what is wanted by what is found settle both.
    """
    kernel = [1.0] * _FREQUENCIES
    if photons is not None and not fitted:
        return {"photons": photons, "kernel": kernel}
    rows = torch.linspace(0, len(pixels) - 1, min(_CALIBRATION, len(pixels))).round().long().unique()
    wanted = _noise(pixels[rows])
    sinograms, margin = _project(maps[rows], facts["pixel_mm"], facts["angles"])
    sources = [torch.Generator().manual_seed(derive_seed(0, "calibration", i)) for i in range(len(rows))]
    dose = photons or _TRIAL
    counted = _counted(sinograms, sources, dose)
    gains = np.ones(BANDS)
    for _ in range(_ROUNDS):
        still = _reconstruct(sinograms, margin, facts["pixel_mm"], kernel)
        grain = _reconstruct(counted, margin, facts["pixel_mm"], kernel) - still
        # what is there without any noise is anatomy
        room = wanted[1] ** 2 - _noise(still)[1] ** 2
        factor = 1.0 if photons else math.sqrt(max(room, 1e-12)) / max(_noise(grain)[1], 1e-12)
        shape, level = _noise(still + factor * grain)
        if fitted:
            gains = (gains * np.sqrt(wanted[0] / shape)).clip(*_GAINS)
            gains = gains / gains[0]  # the kernel leaves coarse structure, and so the HU of large tissues, alone
            centres = [0.0, *((lo + hi) / 2 for lo, hi in itertools.pairwise(EDGES)), 0.5]
            kernel = np.interp(np.linspace(0, 0.5, _FREQUENCIES), centres, [1.0, *gains, gains[-1]]).tolist()
    if not photons and not 10 <= dose / factor**2 <= 1e9:
        raise DataError(
            f"the slices' noise of {wanted[1]:.3g} HU is not to be had by a dose of photons: it is too small beside "
            "the anatomy, or too large; state photons, or give slices that were not resampled"
        )
    return {"photons": dose / factor**2, "kernel": kernel, "noise_hu": level, "noise_hu_train": wanted[1]}


def _noise(slices: Tensor) -> tuple[np.ndarray[Any, Any], float]:
    """Mean shape of the noise spectrum [6] and root mean square of the noise, over flat tiles."""
    from medtrust.types import ImageHeader, ImageRecord

    shapes, squares = [], []
    for plane in slices.numpy():
        record = ImageRecord(plane, "", "", ImageHeader(plane.shape, str(plane.dtype)), "")
        shape, tiles = noise_shape(record), flat_noise(np.asarray(plane[0], np.float64))
        if shape is not None and tiles is not None:
            shapes.append(shape)
            squares.append(float(np.mean(tiles**2)))
    if not shapes:
        raise DataError("no slice has flat tiles with noise; state photons and cutoff")
    return np.mean(shapes, 0), math.sqrt(float(np.mean(squares)))
