"""Ops on a CUDA device whose memory is planned here: float32 GEMMs by torch, the rest by the kernels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from medtrust.ops._check import log, on_device
from medtrust.ops._tiles import Centring, Prepared, Tile, feature_rows, full_float32

__all__ = ["balls", "kernel_sums", "nearest", "radiomics"]

ROWS, COLS = 4096, 16384  # 256 MiB of dots: enough blocks for every multiprocessor, far below any device's memory
SCRATCH = 1 << 30  # bytes of counts and labels that radiomics holds at a time
SWEPT = 1 << 26  # float64 distances held at a time while rows without a certificate are swept


def _prepared(matrix: Tensor, centring: Centring) -> Prepared:
    exact = (matrix.to(torch.float64) - centring.centre) * centring.scale
    return Prepared(exact.to(torch.float32), exact.square().sum(1))


def _dot_tiles(queries: Tensor, references: Tensor, centring: Centring) -> Iterator[Tile]:
    """Every tile of queries x references, one at a time; each is overwritten by the next."""
    size = min(ROWS, len(queries)) * min(COLS, len(references))
    buffer = torch.empty(size, dtype=torch.float32, device=queries.device)
    blocks = [_prepared(queries[row : row + ROWS], centring) for row in range(0, len(queries), ROWS)]
    for col in range(0, len(references), COLS):
        others = _prepared(references[col : col + COLS], centring)
        for i, block in enumerate(blocks):
            dots = buffer[: len(block.rows) * len(others.rows)].view(len(block.rows), len(others.rows))
            with full_float32(), torch.autocast(queries.device.type, enabled=False):
                torch.mm(block.rows, others.rows.T, out=dots)
            yield Tile(dots, [*dots.shape, i * ROWS, col, queries.shape[1]], block.squares, others.squares)


def _distances(lib: Any, queries: Tensor, references: Tensor, chosen: Tensor, others: Tensor | None) -> Tensor:
    """Squared float64 distances of chosen queries to the listed references, or to all."""
    each = len(references) if others is None else others.shape[1]
    squared = torch.empty((len(chosen), each), dtype=torch.float64, device=queries.device)
    listed = 0 if others is None else others.data_ptr()
    with on_device(queries) as stream:
        lib.neighbours_distances_cuda(
            feature_rows(queries), feature_rows(references), chosen.data_ptr(), len(chosen), listed, each,
            squared.data_ptr(), stream,
        )  # fmt: skip
    return squared


def _first(squared: Tensor, indices: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest in order of (distance, index), where the columns are in order of index already."""
    values, order = torch.sort(squared, dim=1, stable=True)
    values, order = values[:, :k].contiguous(), order[:, :k]
    return values, indices.gather(1, order).masked_fill(values.isinf(), -1)


def nearest(
    lib: Any, queries: Tensor, references: Tensor, k: int, keep: int, groups: tuple[Tensor | None, Tensor | None]
) -> tuple[Tensor, Tensor]:
    """The k nearest references of each query; arguments and result as `reference.nearest` has them.

    Args:
        lib: The extension.
        queries: Features `[n, d]` on the device, contiguous.
        references: Features `[m, d]`, contiguous.
        k: Neighbours wanted.
        keep: Candidates kept per row, k at least.
        groups: int64 groups of the queries `[n]` and the references `[m]`, or None twice.

    Returns:
        Squared distances `[n, k]` float64 and indices `[n, k]` int64.
    """
    device, count = queries.device, len(queries)
    bounds = torch.full((count, keep), torch.inf, dtype=torch.float32, device=device)
    candidates = torch.full((count, keep), -1, dtype=torch.int64, device=device)
    if count == 0:
        return bounds.double()[:, :k], candidates[:, :k]
    addresses = tuple(0 if g is None else g.data_ptr() for g in groups)
    centring = Centring.of(references, queries)
    scratch = torch.empty((2, min(COLS, len(references))), dtype=torch.float32, device=device)
    squares = torch.empty(count, dtype=torch.float64, device=device)
    for tile in _dot_tiles(queries, references, centring):
        squares[tile.shape[2] : tile.shape[2] + tile.shape[0]] = tile.row_squares
        with on_device(queries) as stream:
            lib.neighbours_scan_cuda(
                *tile.arguments(), *addresses, keep, scratch.data_ptr(), bounds.data_ptr(), candidates.data_ptr(),
                stream,
            )  # fmt: skip
    farthest = bounds[:, 0].double()  # the root of the heap: whatever was not kept has no smaller bound
    # A list as long as the references, or one that never filled, holds every admissible reference.
    full = (candidates >= 0).all(1) & (keep < len(references))
    candidates = candidates.sort(dim=1).values
    exact = _distances(lib, queries, references, torch.arange(count, device=device), candidates)
    squared, indices = _first(exact, candidates, k)
    proven = squares + farthest > squared[:, -1] * centring.scale**2
    open_rows = (full & ~proven).nonzero().flatten()
    if len(open_rows):
        log.info("ops.nearest sweeps %d of %d rows in float64: their bounds prove nothing", len(open_rows), count)
        _sweep(lib, queries, references, open_rows, groups, squared, indices)
    return squared, indices


def _sweep(
    lib: Any,
    queries: Tensor,
    references: Tensor,
    chosen: Tensor,
    groups: tuple[Tensor | None, Tensor | None],
    squared: Tensor,
    indices: Tensor,
) -> None:
    """Write the results of chosen queries again, from all references."""
    everyone = torch.arange(len(references), device=queries.device)
    count = max(1, SWEPT // len(references))
    for start in range(0, len(chosen), count):
        rows = chosen[start : start + count]
        exact = _distances(lib, queries, references, rows, None)
        if groups[0] is not None and groups[1] is not None:
            exact = exact.masked_fill(groups[0][rows, None] == groups[1][None], torch.inf)
        squared[rows], indices[rows] = _first(exact, everyone.expand(len(rows), -1), squared.shape[1])


def balls(
    lib: Any, queries: Tensor, references: Tensor, query_radii: Tensor, reference_radii: Tensor, inclusive: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Ball membership; arguments and result as `reference.balls` has them.

    Args:
        lib: The extension.
        queries: Generated features `[n, d]` on the device, contiguous.
        references: Real features `[m, d]`, contiguous.
        query_radii: Squared radii `[n]` float64, contiguous.
        reference_radii: Squared radii `[m]` float64, contiguous.
        inclusive: Count a distance equal to the radius as inside.

    Returns:
        Real balls around each generated row, and the flags of the real rows: in a generated ball, own ball not empty.
    """
    device = queries.device
    counts = torch.zeros(len(queries), dtype=torch.int64, device=device)
    recalled = torch.zeros(len(references), dtype=torch.bool, device=device)
    covered = torch.zeros_like(recalled)
    scratch = torch.empty((3, min(COLS, len(references))), dtype=torch.float32, device=device)
    centring = Centring.of(references, queries)
    radii = (query_radii.data_ptr(), reference_radii.data_ptr(), centring.scale**2, inclusive)
    results = (counts.data_ptr(), recalled.data_ptr(), covered.data_ptr())
    for tile in _dot_tiles(queries, references, centring):
        with on_device(queries) as stream:
            lib.neighbours_balls_cuda(
                *tile.arguments(), feature_rows(queries), feature_rows(references), *radii, scratch.data_ptr(),
                *results, stream,
            )  # fmt: skip
    return counts, recalled, covered


def kernel_sums(lib: Any, real: Tensor, fake: Tensor, kind: int, scale: float) -> Tensor:
    """Sums of a kernel over pairs of rows, as `reference.kernel_sums` has them.

    Args:
        lib: The extension.
        real: Features `[n, d]` on the device, contiguous.
        fake: Features `[m, d]`, contiguous.
        kind: Code of the kernel in csrc/mmd.h.
        scale: Factor in the kernel.

    Returns:
        `[3]` float64: over ordered pairs of different real rows, of different fake rows, and over real x fake.
    """
    sums = torch.empty(3, dtype=torch.float64, device=real.device)
    for i, (a, b) in enumerate(((real, real), (fake, fake), (real, fake))):
        scratch = torch.empty(lib.mmd_cuda_tiles(len(a), len(b)), dtype=torch.float64, device=real.device)
        rows, results = (feature_rows(a), feature_rows(b)), (scratch.data_ptr(), sums[i].data_ptr())
        with on_device(real) as stream:
            lib.mmd_cuda(*rows, a is b, kind, scale, *results, stream)
    return sums


def radiomics(
    lib: Any, images: Tensor, region: Tensor | None, rules: tuple[Any, ...], features: int
) -> tuple[Tensor, Tensor]:
    """Radiomics of each plane, as many images at a time as the scratch allows.

    Args:
        lib: The extension.
        images: `[N, C, H, W]` on the device, contiguous.
        region: `[N, H, W]` bool, contiguous, or None.
        rules: Codes of grey type, binning, levels, merging and families, as the extension takes them.
        features: Columns.

    Returns:
        Values `[N * C, features]` float64 and states `[N * C]` int64.
    """
    count, channels, height, width = images.shape
    values = torch.empty((count * channels, features), dtype=torch.float64, device=images.device)
    states = torch.empty(count * channels, dtype=torch.int64, device=images.device)
    if count == 0:
        return values, states
    each = lib.radiomics_cuda_scratch([channels, height, width, channels], *rules) * channels
    batch = min(count, max(1, SCRATCH // each))
    scratch = torch.empty(batch * each, dtype=torch.uint8, device=images.device)
    for first in range(0, count, batch):
        part = images[first : first + batch]
        planes, place = len(part) * channels, slice(first * channels, (first + batch) * channels)
        mask = 0 if region is None else region[first : first + batch].data_ptr()
        with on_device(images) as stream:
            lib.radiomics_cuda(
                part.data_ptr(), mask, [planes, height, width, channels], *rules, scratch.data_ptr(),
                values[place].data_ptr(), states[place].data_ptr(), stream,
            )  # fmt: skip
    return values, states
