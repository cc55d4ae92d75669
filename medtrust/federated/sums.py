"""The sums of one real set, with or without noise."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medtrust.federated.layout import public_folds, write_fourier, write_histograms, write_moments
from medtrust.federated.noise import Privacy, secret_normal
from medtrust.federated.study import PublicSpace, Study
from medtrust.stats import groups
from medtrust.stats.sufficient import BallCounts, FourierSums, Histogram, Moments, fourier_features, merged_bins
from medtrust.types import FeatureMatrix

__all__ = ["SetSums", "ball_arrays", "blocks_of", "clipped", "intensity_arrays", "space_arrays"]


@dataclass(frozen=True, slots=True)
class SetSums:
    """How one set is cut up.

    Args:
        name: train or holdout.
        patients: Patient of each image.
        fold: [n] fold of each image.
    """

    name: str
    patients: tuple[str, ...]
    fold: npt.NDArray[np.int64]

    def members(self) -> list[torch.Tensor]:
        """Rows of each fold."""
        return [torch.from_numpy(np.flatnonzero(self.fold == f)) for f in range(int(self.fold.max()) + 1)]

    def of(self, rows: torch.Tensor) -> list[str]:
        """Patients of some rows."""
        return [self.patients[i] for i in rows.tolist()]


def blocks_of(study: Study) -> int:
    """Vectors of length at most 1 that each patient adds to: mean and square per space, Fourier features, histogram."""
    per_space = 3 if study.asks("fidelity.mmd") else 2
    return per_space * len(study.spaces) + int(study.asks("fidelity.intensity"))


def clipped(rows: torch.Tensor, privacy: Privacy | None) -> torch.Tensor:
    """Shorten rows that are longer than the clip."""
    if privacy is None:
        return rows
    shorter: torch.Tensor = rows * (privacy.clip / rows.norm(dim=1, keepdim=True).clamp_min(1e-300)).clamp_max(1.0)
    return shorter


def space_arrays(
    study: Study, space: PublicSpace, sums: SetSums, features: torch.Tensor, secret: bytes
) -> dict[str, npt.NDArray[Any]]:
    """Moments and Fourier sums of a set by fold."""
    rows = clipped(space.project(features), study.privacy)
    waves = fourier_features(rows, torch.from_numpy(space.frequencies)) if study.asks("fidelity.mmd") else None
    moments, fourier = [], []
    for f, at in enumerate(sums.members()):
        patients = sums.of(at)
        own = hashlib.sha256(secret + f"{space.name}/{sums.name}/{f}".encode()).digest()
        part = Moments.of(rows[at], patients)
        moments.append(part if study.privacy is None else _noisy_moments(part, study, own))
        if waves is not None:
            total = FourierSums.of(waves[at], patients)
            fourier.append(total if study.privacy is None else _noisy_fourier(total, study, own))
    arrays = write_moments(f"{space.name}/{sums.name}", moments)
    return arrays | write_fourier(f"{space.name}/{sums.name}", fourier) if fourier else arrays


def ball_arrays(
    study: Study, space: PublicSpace, train: FeatureMatrix, holdout: torch.Tensor, holdout_fold: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[Any]]:
    """How many synthetic images, and how many of holdout, lie in the balls around train: images, inside, balls."""
    rows = space.project(train.values)
    made, real = space.project(torch.from_numpy(space.synthetic.copy())), space.project(holdout)
    own = [real[torch.from_numpy(np.flatnonzero(holdout_fold == f))] for f in range(int(holdout_fold.max()) + 1)]
    parts = {"synthetic": [made[at] for at in public_folds(len(made))], "holdout": own}
    counts = {name: BallCounts.of(rows, train.patients, folds) for name, folds in parts.items()}
    return {
        f"{space.name}/balls.{name}": torch.stack([each.n, each.inside, each.balls]).numpy()
        for name, each in counts.items()
    }


def intensity_arrays(
    study: Study, sums: SetSums, histograms: torch.Tensor, secret: bytes
) -> dict[str, npt.NDArray[Any]]:
    """Histograms of a set by fold; bins that too few patients reach are merged into their neighbours."""
    of_row, count = groups(sums.patients, len(histograms))
    sizes = torch.bincount(of_row, minlength=count).double()
    shares = histograms.new_zeros(count, histograms.shape[1]).index_add_(0, of_row, histograms) / sizes[:, None]
    fold_of = torch.zeros(count, dtype=torch.int64)
    fold_of[of_row] = torch.from_numpy(sums.fold)
    moved = 0.0
    if study.privacy is None:
        target = merged_bins((shares > 0).sum(0), study.rules.cell)
        width = (study.intensity.hi - study.intensity.lo) / study.bins
        moved = float((shares.sum(0) * (target - torch.arange(len(target))).abs()).sum()) * width
        shares = torch.zeros_like(shares).index_add_(1, target, shares)
    folds = []
    for f in range(int(sums.fold.max()) + 1):
        part = Histogram(int((fold_of == f).sum()), shares[fold_of == f].sum(0))
        if study.privacy is not None:
            own = hashlib.sha256(secret + f"intensity/{sums.name}/{f}".encode()).digest()
            noise = secret_normal(own, study.bins) * study.privacy.sigma(blocks_of(study))
            part = Histogram(part.units, part.shares + torch.from_numpy(noise))
        folds.append(part)
    return write_histograms(f"intensity/{sums.name}", folds, moved)


def _noisy_moments(part: Moments, study: Study, secret: bytes) -> Moments:
    """Noise on Σx/c and Σxxᵀ/c², each of whose terms has length at most 1."""
    privacy = study.privacy
    assert privacy is not None
    n, total, outer = part.sums()
    d = len(total)
    draws = torch.from_numpy(secret_normal(secret + b"moments", d + d * d) * privacy.sigma(blocks_of(study)))
    square = draws[d:].reshape(d, d)
    # symmetric, with noise of the full size on the diagonal and of 1/√2 of it off the diagonal, where xxᵀ counts twice
    symmetric = square.triu(1) / 2**0.5
    symmetric = symmetric + symmetric.T + torch.diag(square.diagonal())
    return Moments.from_sums(
        n, part.units, total + draws[:d] * privacy.clip, outer + symmetric * privacy.clip**2
    )  # fmt: skip


def _noisy_fourier(part: FourierSums, study: Study, secret: bytes) -> FourierSums:
    """Noise on Σφ, whose terms have length 1; how long each term is, is known."""
    privacy = study.privacy
    assert privacy is not None
    sigma = privacy.sigma(blocks_of(study))
    noise = torch.from_numpy(secret_normal(secret + b"fourier", len(part.total)) * sigma)
    # what the noise adds to ‖Σφ‖² is known on average, and counts like the kernel of a row with itself
    own = part.n + len(part.total) * sigma**2
    return FourierSums(part.n, part.units, part.total + noise, own, float(part.n))
