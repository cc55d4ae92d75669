"""Is an explanation any good? Removal of what it points at, and agreement with artefacts whose place is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import spsolve
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional

__all__ = [
    "average_precision",
    "centre_map",
    "edge_map",
    "impute",
    "mass_inside",
    "pointing_hit",
    "random_maps",
    "rank_correlation",
    "road_gap",
]

_NEIGHBOURS = ((-1, -1, 1 / 12), (-1, 0, 1 / 6), (-1, 1, 1 / 12), (0, -1, 1 / 6), (0, 1, 1 / 6), (1, -1, 1 / 12),
               (1, 0, 1 / 6), (1, 1, 1 / 12))  # fmt: skip
_NOISE = 0.01
SHARES = (0.2, 0.5, 0.8)


def impute(image: Tensor, removed: Tensor, rng: np.random.Generator) -> Tensor:
    """Fill removed pixels so that each is the weighted mean of its neighbours, plus a little noise.

    A filled hole keeps no trace of its shape, so that a network cannot read the mask where pixels are gone.

    Args:
        image: [C, H, W].
        removed: [H, W] bool; at least one pixel must stay.
        rng: Source of the noise, whose standard deviation is 0.01.

    Returns:
        [C, H, W] of the image's type.

    Reference:
        Rong et al. 2022, arXiv:2202.00449 (noisy linear imputation; weights 1/6 and 1/12).
    """
    gone = removed.numpy()
    if not gone.any():
        return image.clone()
    height, width = gone.shape
    number = np.full(gone.shape, -1)
    ys, xs = np.nonzero(gone)
    number[ys, xs] = np.arange(len(ys))
    known = image.double().numpy()
    rows, cols, weights = [np.arange(len(ys))], [np.arange(len(ys))], [np.zeros(len(ys))]
    right = np.zeros((len(ys), len(known)))
    for dy, dx, weight in _NEIGHBOURS:
        y, x = ys + dy, xs + dx
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        weights[0] += np.where(inside, weight, 0.0)  # at the border the remaining weights are all there is
        at = np.flatnonzero(inside)
        other = number[y[at], x[at]]
        free = other >= 0
        rows.append(at[free])
        cols.append(other[free])
        weights.append(np.full(int(free.sum()), -weight))
        right[at[~free]] += weight * known[:, y[at[~free]], x[at[~free]]].T
    size = (len(ys), len(ys))
    matrix = csr_matrix((np.concatenate(weights), (np.concatenate(rows), np.concatenate(cols))), size)
    solved = spsolve(matrix.tocsc(), right).reshape(len(ys), -1)
    filled = image.clone()
    filled[:, ys, xs] = torch.from_numpy((solved + rng.normal(0, _NOISE, solved.shape)).T).to(image.dtype)
    return filled


def road_gap(
    score: Callable[[Tensor], Tensor],
    images: Tensor,
    maps: Tensor,
    seed: int,
    shares: tuple[float, ...] = SHARES,
) -> npt.NDArray[np.float64]:
    """How much more the score drops when the most relevant pixels go than when the least relevant ones do.

    Args:
        score: Maps [N, C, H, W] to [N].
        images: [N, C, H, W].
        maps: [N, H, W], higher is more relevant; ties are broken at random.
        seed: Seed of noise and ties.
        shares: Shares of pixels to remove.

    Returns:
        [N] float64: score after removing the least relevant, less that after removing the most relevant, averaged over
        `shares`. Above 0 the map points at what the score uses.

    Reference:
        Rong et al. 2022, arXiv:2202.00449 (ROAD).
    """
    rng = np.random.default_rng(seed)
    n, pixels = len(images), maps[0].numel()
    gap = np.zeros(n)
    for share in shares:
        count = min(pixels - 1, max(1, round(share * pixels)))
        most: list[Tensor] = []
        least: list[Tensor] = []
        for image, heat in zip(images, maps, strict=True):
            values = heat.double().numpy().ravel()
            order = np.lexsort((rng.random(pixels), values))
            for rows, store in ((order[-count:], most), (order[:count], least)):
                removed = torch.zeros(pixels, dtype=torch.bool)
                removed[torch.from_numpy(rows.copy())] = True
                store.append(impute(image, removed.view(maps.shape[1:]), rng))
        with torch.no_grad():
            gap += (score(torch.stack(least)) - score(torch.stack(most))).double().numpy()
    return gap / len(shares)


def mass_inside(maps: Tensor, masks: Tensor) -> npt.NDArray[np.float64]:
    """Share of each map that lies inside the mask, [N]; a map that is zero everywhere has the mask's share of the area.

    Args:
        maps: [N, H, W], at least 0.
        masks: [N, H, W] bool.
    """
    total = maps.double().sum((1, 2))
    inside = (maps.double() * masks).sum((1, 2))
    area = masks.double().mean((1, 2))
    return torch.where(total > 0, inside / total.clamp_min(1e-300), area).numpy()


def pointing_hit(maps: Tensor, masks: Tensor) -> npt.NDArray[np.float64]:
    """Pointing game [N]: share of each map's highest pixels that lie inside the mask (one pixel, or all of a tie).

    Reference:
        Zhang et al. 2018, arXiv:1608.00507.
    """
    flat, inside = maps.double().flatten(1), masks.flatten(1)
    highest = flat == flat.amax(1, keepdim=True)
    return ((highest & inside).sum(1).double() / highest.sum(1)).numpy()


def average_precision(maps: Tensor, masks: Tensor) -> npt.NDArray[np.float64]:
    """Area under the precision-recall curve of each map as a detector of the mask's pixels, [N]; ties are one step."""
    out = np.empty(len(maps))
    for i, (heat, mask) in enumerate(zip(maps.double().flatten(1).numpy(), masks.flatten(1).numpy(), strict=True)):
        order = np.argsort(-heat, kind="stable")
        values, hits = heat[order], mask[order]
        last = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)
        found = np.cumsum(hits)[last]
        out[i] = float((np.diff(found, prepend=0) / max(found[-1], 1) * found / (last + 1)).sum())
    return out


def rank_correlation(one: Tensor, other: Tensor) -> npt.NDArray[np.float64]:
    """Spearman correlation of each pair of maps [N, H, W], [N]; 0 where either is constant."""
    out = np.zeros(len(one))
    for i, (a, b) in enumerate(zip(one.flatten(1).numpy(), other.flatten(1).numpy(), strict=True)):
        x, y = rankdata(a) - (len(a) + 1) / 2, rankdata(b) - (len(b) + 1) / 2
        norm = float(np.sqrt((x @ x) * (y @ y)))
        out[i] = float(x @ y) / norm if norm > 0 else 0.0
    return out


def random_maps(maps: Tensor, seed: int) -> Tensor:
    """Maps of the same values and smoothness whose place says nothing: each is moved around its edges at random."""
    rng = np.random.default_rng(seed)
    height, width = maps.shape[1:]
    moved = [
        torch.roll(m, (int(rng.integers(height)), int(rng.integers(width))), (0, 1)) for m in maps
    ]  # fmt: skip
    return torch.stack(moved)


def centre_map(height: int, width: int) -> Tensor:
    """A Gaussian around the centre, a quarter of the sides wide, [H, W]: where photographers put things."""
    y, x = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)[None]
    return torch.exp(-(y**2 + x**2) / (2 * 0.5**2))


def edge_map(images: Tensor) -> Tensor:
    """Magnitude of the Sobel gradient of the mean channel, [N, H, W]: what an edge detector would point at.

    Reference:
        Adebayo et al. 2018, arXiv:1810.03292, for edges as the baseline an explanation must beat.
    """
    grey = functional.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=grey.dtype)
    both = functional.conv2d(grey, torch.stack([kernel, kernel.T])[:, None])
    return both.square().sum(1).sqrt()
