"""Parallel-beam tomography: the Radon transform, its adjoint, filtered back-projection, and a test of the counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from medtrust.errors import DataError

__all__ = ["WATER", "ChiSquared", "ParallelBeam", "reduced_chi_squared"]

WATER = 0.0193  # attenuation of water per mm at 70 keV, about the mean energy of a 120 kV beam (NIST XCOM)


class ParallelBeam:
    """Line integrals of square images over a half turn.

    A ray is summed at unit steps, between pixels by bilinear interpolation. Projection and back-projection are one
    sparse matrix and its transpose, so they are adjoint to the last bit of rounding, and autograd goes through both.

    Args:
        size: Pixels along each side.
        angles: [A] in degrees, or how many, spread evenly over the half turn.
        dtype: torch.float64 or torch.float32.

    Reference:
        Kak and Slaney 1988, Principles of Computerized Tomographic Imaging, chapter 3; the geometry (detector of `size`
        bins, centre at size // 2, angles counter-clockwise) is that of scikit-image's `radon` and `iradon`.
    """

    def __init__(self, size: int, angles: int | Tensor, dtype: torch.dtype = torch.float64) -> None:
        if size < 2:
            raise DataError(f"an image of {size} pixels a side has no projections; give at least 2")
        degrees = torch.arange(angles) * (180.0 / angles) if isinstance(angles, int) else torch.as_tensor(angles)
        if degrees.ndim != 1 or not len(degrees):
            raise DataError("angles is a number of angles, or a list of degrees")
        self.size, self.angles = size, degrees.double()
        self.matrix = _rays(size, self.angles.deg2rad()).to(dtype)
        self._transposed = self.matrix.t().coalesce()
        self._spread = _pixels(size, self.angles.deg2rad()).to(dtype)
        self._gather = self._spread.t().coalesce()

    def project(self, images: Tensor) -> Tensor:
        """Integrate along the lines.

        Args:
            images: [N, H, W], attenuation per pixel.

        Returns:
            [N, A, size].
        """
        if images.shape[1:] != (self.size, self.size):
            raise DataError(f"these are images {list(images.shape)}; this geometry has {self.size} pixels a side")
        flat = _Product.apply(images.reshape(len(images), -1).T, self.matrix, self._transposed)
        return flat.T.reshape(len(images), len(self.angles), self.size)

    def back_project(self, sinograms: Tensor) -> Tensor:
        """Smear sinograms [N, A, size] back along the lines, the adjoint of `project`: [N, H, W]."""
        if sinograms.shape[1:] != (len(self.angles), self.size):
            wanted = [len(self.angles), self.size]
            raise DataError(f"these are sinograms {list(sinograms.shape)}; this geometry has {wanted}")
        flat = _Product.apply(sinograms.reshape(len(sinograms), -1).T, self._transposed, self.matrix)
        return flat.T.reshape(len(sinograms), self.size, self.size)

    def reconstruct(self, sinograms: Tensor, kernel: Tensor | None = None) -> Tensor:
        """Reconstruct by filtered back-projection with the ramp filter, interpolating linearly on the detector.

        Args:
            sinograms: [N, A, size].
            kernel: [length] gain on top of the ramp, at evenly spaced frequencies from 0 to half a cycle per pixel;
                None for 1 everywhere.

        Returns:
            [N, H, W]; inside the circle what scikit-image's `iradon` gives with its default filter.
        """
        length = max(64, 2 ** math.ceil(math.log2(2 * self.size)))
        n = torch.cat([torch.arange(1, length // 2 + 1, 2), torch.arange(length // 2 - 1, 0, -2)]).double()
        response = torch.zeros(length, dtype=torch.float64)
        response[0] = 0.25
        response[1::2] = -1 / (math.pi * n) ** 2
        ramp = (2 * torch.fft.fft(response).real).to(sinograms.dtype)
        if kernel is not None:
            place = torch.fft.fftfreq(length, dtype=torch.float64).abs() * 2 * (len(kernel) - 1)
            low = place.long().clamp(max=len(kernel) - 2)
            gain = torch.lerp(kernel.double()[low], kernel.double()[low + 1], place - low)
            ramp = ramp * gain.to(ramp.dtype)
        spectrum = torch.fft.fft(sinograms, length, dim=-1) * ramp
        filtered = torch.fft.ifft(spectrum, dim=-1).real[..., : self.size]
        flat = _Product.apply(filtered.reshape(len(filtered), -1).T, self._gather, self._spread)
        return flat.T.reshape(len(filtered), self.size, self.size) * (math.pi / (2 * len(self.angles)))


class _Product(torch.autograd.Function):
    """matrix @ x, whose gradient is transposed @ g; torch's own would build a gradient for the matrix too."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
        ctx.matrices = matrix, transposed  # type: ignore[attr-defined]
        return torch.sparse.mm(matrix, x.to(matrix.dtype))

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        matrix, transposed = ctx.matrices  # type: ignore[attr-defined]
        return _Product.apply(gradient, transposed, matrix), None, None


def _rays(size: int, angles: Tensor) -> Tensor:
    """The sparse matrix [A * size, size * size] of ray sums."""
    centre = size // 2
    axis = torch.arange(size, dtype=torch.float64) - centre
    step, place = (a.ravel() for a in torch.meshgrid(axis, axis, indexing="ij"))
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    x, y = cos * place + sin * step + centre, cos * step - sin * place + centre  # [A, steps * bins]
    left, top = x.floor(), y.floor()
    row = torch.arange(len(angles))[:, None] * size + (place + centre).long()
    entries = []
    for column, across in ((left, 1 - (x - left)), (left + 1, x - left)):
        for line, down in ((top, 1 - (y - top)), (top + 1, y - top)):
            kept = (column >= 0) & (column < size) & (line >= 0) & (line < size) & (across * down > 0)
            pixel = (line * size + column).long()
            entries.append((torch.stack([row[kept], pixel[kept]]), (across * down)[kept]))
    return _sparse(entries, (len(angles) * size, size * size))


def _pixels(size: int, angles: Tensor) -> Tensor:
    """The sparse matrix [A * size, size * size] that shares each pixel between the two bins around its centre."""
    centre = size // 2
    axis = torch.arange(size, dtype=torch.float64) - centre
    y, x = (a.ravel() for a in torch.meshgrid(axis, axis, indexing="ij"))
    place = x * angles.cos()[:, None] - y * angles.sin()[:, None] + centre  # [A, pixels]
    low = place.floor()
    share = place - low
    pixel = torch.arange(size * size).expand_as(place)
    row = torch.arange(len(angles))[:, None] * size
    entries = []
    for bins, weight in ((low.long(), 1 - share), (low.long() + 1, share)):
        kept = (bins >= 0) & (bins < size) & (weight > 0)
        entries.append((torch.stack([(row + bins)[kept], pixel[kept]]), weight[kept]))
    return _sparse(entries, (len(angles) * size, size * size))


def _sparse(entries: list[tuple[Tensor, Tensor]], shape: tuple[int, int]) -> Tensor:
    places, weights = torch.cat([e[0] for e in entries], 1), torch.cat([e[1] for e in entries])
    return torch.sparse_coo_tensor(places, weights, shape, check_invariants=False).coalesce()


@dataclass(frozen=True, slots=True)
class ChiSquared:
    """How well an image explains the counts that were measured.

    Args:
        value: Mean of z² over the rays; 1 where nothing but counting noise separates them.
        null: Where `value` lies with the stated level if the image is right.
        p: Chance of a value as high if the image is right.
        z_map: [H, W] z-scores smeared back along their rays, each of variance 1 if the image is right; positive where
            the image attenuates too much.
    """

    value: float
    null: tuple[float, float]
    p: float
    z_map: Tensor


def reduced_chi_squared(
    image: Tensor, counts: Tensor, beam: ParallelBeam, *, photons: float, level: float = 0.95
) -> ChiSquared:
    """Hold an image against the photon counts of a scan.

    Args:
        image: [H, W], attenuation per pixel; not fitted to these counts.
        counts: [A, size], measured photons.
        beam: The geometry.
        photons: Photons per ray without an object.
        level: Level of the null's interval.

    Raises:
        DataError: Rays so dark that counts are not near normal (below 10 expected photons), or shapes that do not fit.

    Reference:
        Bevington and Robinson 2003, Data Reduction and Error Analysis, section 4.3.
    """
    from scipy.stats import chi2

    expected = photons * torch.exp(-beam.project(image[None].double())[0])
    if counts.shape != expected.shape:
        raise DataError(f"counts are {list(counts.shape)}; this geometry has {list(expected.shape)}")
    if float(expected.min()) < 10:
        raise DataError(f"a ray expects {float(expected.min()):.1f} photons; below 10, chi-squared does not hold")
    z = (counts - expected) / expected.sqrt()
    total, rays = float(z.square().sum()), z.numel()
    lo, hi = (float(q) / rays for q in chi2.ppf([(1 - level) / 2, (1 + level) / 2], rays))
    weights = beam.matrix.double()
    squares = torch.sparse_coo_tensor(
        weights.indices(), weights.values().square(), weights.shape, check_invariants=False
    ).t()
    scale = torch.sparse.mm(squares, torch.ones(rays, 1, dtype=torch.float64)).sqrt().reshape(image.shape)
    smeared = beam.back_project(z[None])[0] / scale.clamp_min(1e-12)
    return ChiSquared(total / rays, (lo, hi), float(chi2.sf(total, rays)), smeared)
