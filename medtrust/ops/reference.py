"""Float64 torch twins: the plain definition of every op, on any device, differentiable where that makes sense."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["balls", "kernel_sums", "max_ncc", "nearest", "ssim_maps", "ssim_planes", "tile_l2"]


def _filtered(maps: Tensor, taps: Sequence[float], reflect: bool) -> Tensor:
    """Separable filter of `[P, 1, (D,) H, W]` float64 maps, valid or with a mirrored border."""
    weights = torch.tensor(taps, dtype=torch.float64, device=maps.device)
    axes = maps.ndim - 2
    convolve = functional.conv2d if axes == 2 else functional.conv3d
    if reflect:
        maps = functional.pad(maps, [len(taps) // 2] * (2 * axes), mode="reflect")
    for axis in range(axes):
        shape = [1, 1, *(len(taps) if a == axis else 1 for a in range(axes))]
        maps = convolve(maps, weights.reshape(shape))
    return maps


def ssim_planes(
    x: Tensor, y: Tensor, taps: Sequence[float], c1: float, c2: float, covariance: float, reflect: bool
) -> Tensor:
    """Mean SSIM and contrast-structure of each channel.

    Args:
        x: Images `[N, C, H, W]` or `[N, C, D, H, W]`, any real dtype.
        y: The same shape.
        taps: Weights of the separable window along one axis, summing to 1.
        c1: Luminance constant (k1 L)^2.
        c2: Contrast constant (k2 L)^2.
        covariance: n / (n - 1) for sample covariance, 1 for population covariance.
        reflect: Mirror the border instead of using valid windows only.

    Returns:
        `[2, N, C]` float64: SSIM, then its contrast-structure factor.
    """
    dims = tuple(range(2, x.ndim))
    return torch.stack([m.mean(dims) for m in ssim_maps(x, y, taps, c1, c2, covariance, reflect)])


def ssim_maps(
    x: Tensor, y: Tensor, taps: Sequence[float], c1: float, c2: float, covariance: float, reflect: bool
) -> tuple[Tensor, Tensor]:
    """SSIM and contrast-structure around each pixel; arguments as in `ssim_planes`.

    Returns:
        Two maps `[N, C, (D',) H', W']` float64: as large as the image where the border is mirrored, else one value for
        each window that lies inside.
    """
    shape = (-1, 1, *x.shape[2:])
    a, b = x.to(torch.float64).reshape(shape), y.to(torch.float64).reshape(shape)
    # Variance does not change with a constant; subtracting the plane's mean keeps float64 exact at any offset.
    dims = tuple(range(2, a.ndim))
    mean_a, mean_b = a.mean(dims, keepdim=True).detach(), b.mean(dims, keepdim=True).detach()
    a, b = a - mean_a, b - mean_b
    mu_a, mu_b = _filtered(a, taps, reflect), _filtered(b, taps, reflect)
    variances = covariance * (_filtered(a * a + b * b, taps, reflect) - mu_a**2 - mu_b**2)
    shared = covariance * (_filtered(a * b, taps, reflect) - mu_a * mu_b)
    mu_a, mu_b = mu_a + mean_a, mu_b + mean_b
    contrast = (2 * shared + c2) / (variances + c2)
    full = contrast * (2 * mu_a * mu_b + c1) / (mu_a**2 + mu_b**2 + c1)
    return full.reshape(*x.shape[:2], *full.shape[2:]), contrast.reshape(*x.shape[:2], *full.shape[2:])


def _squared_blocks(queries: Tensor, references: Tensor, rows: int = 256) -> Iterator[tuple[int, Tensor]]:
    """Squared distances of a block of queries to all references, as sum (x - y)^2 in float64."""
    exact = references.to(torch.float64)
    for start in range(0, len(queries), rows):
        block = queries[start : start + rows].to(torch.float64)
        # The other compute modes expand the square and lose small distances.
        yield start, torch.cdist(block, exact, compute_mode="donot_use_mm_for_euclid_dist").square()


def nearest(
    queries: Tensor, references: Tensor, k: int, query_groups: Tensor | None, reference_groups: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The k nearest references of each query.

    Args:
        queries: Features `[n, d]`.
        references: Features `[m, d]`.
        k: Neighbours wanted.
        query_groups: `[n]` int64 or None.
        reference_groups: `[m]` int64 or None; pairs of equal groups are excluded.

    Returns:
        Squared distances `[n, k]` float64 (infinite where there is no k-th) and indices `[n, k]` int64 (-1 there), in
        order of (distance, index).
    """
    squared = torch.full((len(queries), k), torch.inf, dtype=torch.float64, device=queries.device)
    indices = torch.full((len(queries), k), -1, dtype=torch.int64, device=queries.device)
    for start, block in _squared_blocks(queries, references):
        if query_groups is not None and reference_groups is not None:
            same = query_groups[start : start + len(block), None] == reference_groups[None]
            block = block.masked_fill(same, torch.inf)
        values, order = torch.sort(block, dim=1, stable=True)
        squared[start : start + len(block)] = values[:, :k]
        indices[start : start + len(block)] = order[:, :k].masked_fill(values[:, :k].isinf(), -1)
    return squared, indices


def balls(
    queries: Tensor, references: Tensor, query_radii: Tensor, reference_radii: Tensor, inclusive: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Which rows lie in whose ball.

    Args:
        queries: Generated features `[n, d]`.
        references: Real features `[m, d]`.
        query_radii: Squared radii `[n]` float64.
        reference_radii: Squared radii `[m]` float64.
        inclusive: Count a distance equal to the radius as inside.

    Returns:
        Number of real balls around each generated row `[n]` int64; whether each real row lies in a generated ball `[m]`
        bool; whether its own ball holds a generated row `[m]` bool.
    """
    inside = torch.le if inclusive else torch.lt
    counts = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    recalled = torch.zeros(len(references), dtype=torch.bool, device=queries.device)
    covered = torch.zeros_like(recalled)
    for start, block in _squared_blocks(queries, references):
        in_real = inside(block, reference_radii[None])
        counts[start : start + len(block)] = in_real.sum(1)
        covered |= in_real.any(0)
        recalled |= inside(block, query_radii[start : start + len(block), None]).any(0)
    return counts, recalled, covered


def kernel_sums(real: Tensor, fake: Tensor, kernel: str, scale: float, rows: int = 1024) -> Tensor:
    """Sums of a kernel over pairs of rows.

    Args:
        real: Features `[n, d]`.
        fake: Features `[m, d]`.
        kernel: "poly3", (scale x.y + 1)^3, or "rbf", exp(-scale |x - y|^2).
        scale: Factor in the kernel.
        rows: Rows of a tile.

    Returns:
        `[3]` float64: over ordered pairs of different real rows, of different fake rows, and over real x fake.
    """
    sums = []
    for a, b in ((real, real), (fake, fake), (real, fake)):
        total = torch.zeros((), dtype=torch.float64, device=real.device)
        others = b.to(torch.float64)
        for start in range(0, len(a), rows):
            block = a[start : start + rows].to(torch.float64)
            if kernel == "poly3":
                values = (scale * (block @ others.T) + 1) ** 3
            else:
                gaps = torch.cdist(block, others, compute_mode="donot_use_mm_for_euclid_dist")
                values = torch.exp(-scale * gaps.square())
            if a is b:
                values.diagonal(start).zero_()
            total += values.sum()
        sums.append(total)
    return torch.stack(sums)


def max_ncc(x: Tensor, y: Tensor, radius: int) -> Tensor:
    """Largest correlation of the overlapping parts of each pair over all shifts.

    Args:
        x: Images `[N, C, H, W]`.
        y: The same shape.
        radius: Largest shift along each axis.

    Returns:
        `[N]` float64; a part with no more than 1e-12 of its image's variation counts as flat and correlates 0.
    """
    x, y = (t.to(torch.float64) - t.to(torch.float64).mean((1, 2, 3), keepdim=True) for t in (x, y))
    height, width = x.shape[2:]
    whole_x, whole_y = (1e-12 * t.square().sum((1, 2, 3)) for t in (x, y))
    best = torch.full((len(x),), -1.0, dtype=torch.float64, device=x.device)
    for down in range(-radius, radius + 1):
        for right in range(-radius, radius + 1):
            a = x[:, :, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)].flatten(1)
            b = y[:, :, max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)].flatten(1)
            a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
            of_a, of_b = a.square().sum(1), b.square().sum(1)
            flat = (of_a <= whole_x) | (of_b <= whole_y)
            correlation = (a * b).sum(1) / (of_a * of_b).sqrt()
            best = torch.maximum(best, correlation.masked_fill(flat, 0.0))
    return best.clamp_max(1)


def tile_l2(x: Tensor, y: Tensor, tile: int) -> Tensor:
    """Largest Euclidean distance between corresponding tiles of each pair.

    Args:
        x: Images `[N, C, H, W]`.
        y: The same shape.
        tile: Side of the tiles.

    Returns:
        `[N]` float64.
    """
    gaps = (x.to(torch.float64) - y.to(torch.float64)).square().sum(1, keepdim=True)
    ends = -gaps.shape[2] % tile, -gaps.shape[3] % tile
    gaps = functional.pad(gaps, (0, ends[1], 0, ends[0]))
    return functional.avg_pool2d(gaps, tile).flatten(1).amax(1).mul(tile * tile).sqrt()
