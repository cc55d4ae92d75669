"""Fréchet distance between two sets of features."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from medtrust.errors import Insufficient

__all__ = [
    "CONVENTIONS",
    "Factored",
    "HasMoments",
    "frechet_distance",
    "frechet_distances",
]

# Divisor of the covariance is n less this, in each implementation that people compare with.
CONVENTIONS = {
    "ttur": 1,
    "pytorch-fid": 1,
    "clean-fid": 1,
    "torch-fidelity": 1,
    "torchmetrics": 1,
    "monai": 1,
    "stylegan": 0,
}

_BLOCK = 256  # columns of a product made at a time
_SQUARED = 512  # side of a product from which its square is worth a try
_EIGENVALUE_ULPS = 16  # error of a symmetric eigenvalue, of the largest one's
_NUCLEAR_TOLERANCE = 1e-9  # error allowed in the nuclear norm, as a share of the traces


@runtime_checkable
class HasMoments(Protocol):
    """Sufficient statistics of a set of features: count, mean [d] and covariance [d, d] with divisor n - 1."""

    @property
    def n(self) -> float:
        """Number of rows."""

    @property
    def mean(self) -> torch.Tensor:
        """Mean of each feature, [d] float64."""

    @property
    def cov(self) -> torch.Tensor:
        """Covariance with divisor n - 1, [d, d] float64."""


@dataclass(frozen=True, slots=True)
class Factored:
    """A set's mean and a root of its covariance: what comparing many sets with one reference need compute only once.

    Args:
        mean: Mean of each feature, [d] float64.
        root: R [min(n, d), d] float64 with covariance RᵀR.
    """

    mean: torch.Tensor
    root: torch.Tensor

    @classmethod
    def of(cls, features: torch.Tensor | HasMoments) -> Factored:
        """Factor features [n, d] of any float type with n ≥ 2, or their moments.

        Args:
            features: The set.

        Raises:
            Insufficient: Fewer than two rows, or a value that is not finite.
        """
        return cls(*_mean_and_root(features))


def frechet_distance(
    a: torch.Tensor | HasMoments | Factored, b: torch.Tensor | HasMoments | Factored, *, convention: str = "pytorch-fid"
) -> float:
    """Squared 2-Wasserstein distance between the Gaussians with the moments of two sets, the "FID" formula.

    ‖μ₁-μ₂‖² + tr Σ₁ + tr Σ₂ - 2‖R₁R₂ᵀ‖_* with Σ = RᵀR: singular values of a real matrix instead of the square root
    of a non-symmetric product, so singular covariances (n ≤ d, constant features) lose no digits and the result is
    neither complex nor negative.

    Args:
        a: Features [n, d] of any float type with n ≥ 2, their moments, or what `Factored.of` made of them.
        b: Features [m, d], their moments, or what `Factored.of` made of them.
        convention: Whose divisor of the covariance is used, a key of `CONVENTIONS`: n - 1, or n for "stylegan", which
            needs the features or their moments.

    Returns:
        Distance in squared feature units, ≥ 0.

    Raises:
        Insufficient: Fewer than two rows, or a value that is not finite.
        ValueError: The widths differ, or the convention is unknown or cannot be had from factors.

    Reference:
        Dowson and Landau 1982, doi:10.1016/0047-259X(82)90077-X; Heusel et al. 2017, arXiv:1706.08500.
    """
    mean_a, root_a = _by_convention(a, convention)
    mean_b, root_b = _by_convention(b, convention)
    if mean_a.shape != mean_b.shape:
        raise ValueError(f"features of width {len(mean_a)} cannot be compared with features of width {len(mean_b)}")
    traces = root_a.square().sum() + root_b.square().sum()
    spread = traces - 2 * _nuclear_norm(_product(root_a, root_b), float(traces))
    # Rounding can leave the difference of equal traces a few ulp below zero.
    return float((mean_a - mean_b).square().sum() + spread.clamp_min(0))


def frechet_distances(
    reference: torch.Tensor | HasMoments | Factored, groups: Iterable[torch.Tensor | HasMoments | Factored]
) -> list[float]:
    """Fréchet distance of each of several sets to one reference, whose covariance is factored once.

    For subgroups, classes, checkpoints or resamples; each number is what `frechet_distance` gives for the group alone.

    Args:
        reference: Features [n, d] of any float type with n ≥ 2, their moments, or what `Factored.of` made of them.
        groups: Sets of the same width, in any number; one is held at a time where they come from a generator.

    Returns:
        One distance per group, in squared feature units.

    Raises:
        Insufficient: A set has fewer than two rows or a value that is not finite; the message names the group.
        ValueError: The widths differ.
    """
    factored = reference if isinstance(reference, Factored) else Factored.of(reference)
    distances = []
    for number, group in enumerate(groups):
        try:
            distances.append(frechet_distance(factored, group))
        except Insufficient as error:
            raise Insufficient(f"group {number}: {error}") from error
    return distances


def _nuclear_norm(product: torch.Tensor, traces: float) -> torch.Tensor:
    """Sum of the singular values, from the eigenvalues of a square where these are well enough conditioned.

    An eigenvalue λ known to within δ gives a root within δ/√λ. Where the sum of these errors exceeds 1e-9 of the traces
    that the result is subtracted from, the singular values are computed themselves, at about four times the cost.
    """
    if min(product.shape) >= _SQUARED:
        values = torch.linalg.eigvalsh(_lower_gram(product if product.shape[0] <= product.shape[1] else product.T))
        roots = values.clamp_min(0).sqrt()
        error = _EIGENVALUE_ULPS * torch.finfo(values.dtype).eps * values[-1]
        if values[0] > error and float((error / roots).sum()) < _NUCLEAR_TOLERANCE * traces:
            total: torch.Tensor = roots.sum()
            return total
    norm: torch.Tensor = torch.linalg.svdvals(product).sum()
    return norm


def _by_convention(
    features: torch.Tensor | HasMoments | Factored, convention: str
) -> tuple[torch.Tensor, torch.Tensor]:
    if convention not in CONVENTIONS:
        raise ValueError(f"convention {convention!r} is unknown: use one of {', '.join(CONVENTIONS)}")
    if isinstance(features, Factored):
        if CONVENTIONS[convention] != 1:
            raise ValueError(f"convention {convention!r} needs the features: a factor does not say how many there are")
        return features.mean, features.root
    mean, root = _mean_and_root(features)
    n = len(features) if isinstance(features, torch.Tensor) else features.n
    return mean, root * math.sqrt((n - 1) / (n - CONVENTIONS[convention]))


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a bᵀ; where both are upper triangular, as Cholesky and QR leave them, without the two thirds that are zeros."""
    n = len(a)
    square = a.shape == b.shape == (n, n)
    if not square or n < _SQUARED or bool(a.tril(-1).any()) or bool(b.tril(-1).any()):
        return a @ b.T
    result = torch.empty_like(a)
    for i in range(0, n, _BLOCK):
        end = i + _BLOCK
        torch.matmul(a[i:end, i:], b[:end, i:].T, out=result[i:end, :end])
        torch.matmul(a[:i, i:], b[i:end, i:].T, out=result[:i, i:end])
    return result


def _lower_gram(x: torch.Tensor) -> torch.Tensor:
    """x xᵀ, of which eigvalsh reads the lower half, the only one that is made."""
    result = torch.zeros((len(x), len(x)), dtype=x.dtype, device=x.device)
    for i in range(0, len(x), _BLOCK):
        torch.matmul(x[i:], x[i : i + _BLOCK].T, out=result[i:, i : i + _BLOCK])
    return result


def _mean_and_root(features: torch.Tensor | HasMoments) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [d] and a root R [min(n, d), d] of the covariance, Σ = RᵀR."""
    if isinstance(features, torch.Tensor):
        mean, root = _root_of_rows(features.double())
    else:
        if features.n < 2:
            raise Insufficient(f"needs 2 samples for a covariance, there is {features.n}")
        mean, root = features.mean.double(), _root_of_cov(features.cov.double())
    if not bool(root.isfinite().all() and mean.isfinite().all()):
        raise Insufficient(
            "the features hold values that are not finite: look for broken images or a failing extractor"
        )
    return mean, root


def _root_of_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    n, d = x.shape
    if n < 2:
        raise Insufficient(f"needs 2 samples for a covariance, there is {n}")
    mean = x.mean(0)
    centred = (x - mean) / math.sqrt(n - 1)
    return mean, centred if n <= d else torch.linalg.qr(centred, mode="r").R


def _root_of_cov(cov: torch.Tensor) -> torch.Tensor:
    if not bool(cov.isfinite().all()):
        return cov
    factor: torch.Tensor
    factor, failed = torch.linalg.cholesky_ex(cov)
    if failed:
        values, vectors = torch.linalg.eigh(cov)
        rounding = values.max() * len(values) * torch.finfo(values.dtype).eps
        factor = vectors * torch.where(values > rounding, values, 0).sqrt()
    return factor.T
