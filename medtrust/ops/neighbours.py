"""Exact nearest neighbours, and the precision, recall, density and coverage built on them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from medtrust.errors import DataError
from medtrust.ops import _device, _elsewhere, _native, reference
from medtrust.ops._candidates import Lists, fill, mark_balls
from medtrust.ops._check import features, kernel_input, log, threads
from medtrust.ops._tiles import Centring, dot_tiles, feature_rows, prepare

__all__ = ["Neighbours", "Prdc", "nearest", "prdc"]

SPARE = 16  # candidates beyond k: what lets the bounds prove that nothing nearer was missed


class Neighbours(NamedTuple):
    """What `nearest` returns.

    Attributes:
        distances: `[n, k]` float64, Euclidean, ascending.
        indices: `[n, k]` int64, rows of the reference; equal distances are in order of index.
    """

    distances: Tensor
    indices: Tensor


class Prdc(NamedTuple):
    """What `prdc` returns; each is higher for better sets.

    Attributes:
        precision: Share of fake rows inside a real ball, 0..1.
        recall: Share of real rows inside a fake ball, 0..1.
        density: Mean number of real balls around a fake row, divided by k; 0 upwards, 1 for equal sets.
        coverage: Share of real rows whose own ball holds a fake row, 0..1.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def nearest(queries: Tensor, reference: Tensor, k: int, exclude: tuple[Tensor, Tensor] | None = None) -> Neighbours:
    """The k nearest reference rows of each query, exact in float64, in memory O(n * tile).

    Candidates come from bfloat16 products where the processor has a unit for them, else from a float32 GEMM; their
    distances are computed again as sum (x - y)^2 in float64, and a bound on the products' error certifies each row.
    Rows without a certificate go to the next finer pass, in the end a float64 sweep. So the result neither depends on
    how the products round nor loses the small distances where copies live.

    Args:
        queries: Features `[n, d]`, float32 or float64, finite.
        reference: Features `[m, d]`, same dtype and device.
        k: Neighbours wanted, at least 1.
        exclude: Integer groups of the queries `[n]` and of the reference `[m]`, such as patients; a pair of equal
            groups is never reported. For neighbours within one set give `(torch.arange(n), torch.arange(n))`.

    Returns:
        `Neighbours(distances, indices)`.

    Raises:
        DataError: Shapes, dtypes or devices do not fit, values are not finite, or a query has fewer than k references.

    Reference:
        The loss of small distances in the expanded form: https://github.com/pytorch/pytorch/issues/42479
    """
    squared, indices = _nearest_squared("nearest", queries, reference, k, exclude)
    return Neighbours(squared.sqrt(), indices)


def prdc(real: Tensor, fake: Tensor, k: int = 5, convention: str = "prdc") -> Prdc:
    """Precision, recall, density and coverage of a fake set against a real one.

    A row's ball reaches to its k-th nearest neighbour in its own set, itself not counted.

    Args:
        real: Features `[n, d]`, float32 or float64, finite.
        fake: Features `[m, d]`, same dtype and device.
        k: Neighbour that sets the radius, at least 1 and below both n and m.
        convention: "prdc" counts distances below the radius (Naeem et al., usually k = 5), "kynkaanniemi" also those
            equal to it (usually k = 3).

    Returns:
        `Prdc(precision, recall, density, coverage)`.

    Raises:
        DataError: As for `nearest`, or every real radius is 0, where all four measures lose their meaning.

    Reference:
        Kynkäänniemi et al. 2019, arXiv:1904.06991; Naeem et al. 2020, arXiv:2002.09797
    """
    if convention not in ("prdc", "kynkaanniemi"):
        raise DataError(f"ops.prdc: convention {convention!r} is not one of prdc, kynkaanniemi")
    features("prdc", real=real, fake=fake)
    radii = []
    for name, rows in (("real", real), ("fake", fake)):
        if len(rows) <= k:
            raise DataError(
                f"ops.prdc: {name} has {len(rows)} rows, which is not more than k={k}; give more or a smaller k"
            )
        itself = torch.arange(len(rows), device=rows.device)
        radii.append(_nearest_squared("prdc", rows, rows, k, (itself, itself))[0][:, -1].contiguous())
    if not bool(radii[0].any()):
        raise DataError(
            f"ops.prdc: every real row has {k} exact copies among the real rows, so every ball is empty; "
            "drop duplicates or use features that vary"
        )
    ops = _elsewhere.searcher() or torch.ops.medtrust
    counts, recalled, covered = ops.balls(fake, real, radii[1], radii[0], convention == "kynkaanniemi")
    return Prdc(
        precision=float((counts > 0).double().mean()),
        recall=float(recalled.double().mean()),
        density=float(counts.double().mean()) / k,
        coverage=float(covered.double().mean()),
    )


def _nearest_squared(
    op: str, queries: Tensor, reference: Tensor, k: int, exclude: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Checked call of the op: squared distances and indices, complete or an error."""
    features(op, queries=queries, reference=reference)
    if k < 1 or k > len(reference):
        raise DataError(f"ops.{op}: k={k} is not within 1..{len(reference)}, the number of reference rows")
    groups: list[Tensor | None] = [None, None]
    if exclude is not None:
        for i, (name, group, rows) in enumerate(
            zip(("queries", "reference"), exclude, (queries, reference), strict=True)
        ):
            if group.shape != (len(rows),) or group.is_floating_point() or group.dtype == torch.bool:
                given = f"{group.dtype} {list(group.shape)}"
                raise DataError(
                    f"ops.{op}: exclude for the {name} is {given}; give integers [{len(rows)}], one per row"
                )
            groups[i] = group.to(device=rows.device, dtype=torch.int64)
    ops = _elsewhere.searcher() or torch.ops.medtrust
    squared, indices = ops.nearest(queries, reference, k, *groups)
    short = (indices[:, -1] < 0).nonzero()
    if len(short):
        row = int(short[0])
        left = int((indices[row] >= 0).sum())
        raise DataError(f"ops.{op}: query {row} has {left} reference rows outside its own group, k={k} needs more")
    return squared, indices


@torch.library.custom_op("medtrust::nearest", mutates_args=())
def _nearest_op(
    queries: Tensor, references: Tensor, k: int, query_groups: Tensor | None, reference_groups: Tensor | None
) -> tuple[Tensor, Tensor]:
    lib = _kernels("nearest", queries)
    if lib is None:
        return reference.nearest(queries, references, k, query_groups, reference_groups)
    queries, references = kernel_input("nearest", "queries", queries), kernel_input("nearest", "reference", references)
    count = len(queries)
    squared = torch.empty((count, k), dtype=torch.float64, device=queries.device)
    indices = torch.empty((count, k), dtype=torch.int64, device=queries.device)
    if count == 0:
        return squared, indices
    groups: tuple[Tensor | None, Tensor | None] = (None, None)
    if query_groups is not None and reference_groups is not None:
        groups = query_groups.contiguous(), reference_groups.contiguous()
    if queries.is_cuda:
        return _device.nearest(lib, queries, references, k, min(k + SPARE, len(references)), groups)
    centring = Centring.of(references, queries)
    open_rows = torch.arange(count)
    # From coarse to fine: each pass answers what its bounds can prove, the next one takes the rest.
    for propose in (fill, _scan) if lib.matrix() else (_scan,):
        whole = len(open_rows) == count
        part = queries if whole else queries[open_rows]
        part_groups = groups[0] if whole or groups[0] is None else groups[0][open_rows]
        lists = propose(lib, part, references, k, _addresses(part_groups, groups[1]), centring)
        found, nearest_rows, certified = _refine(lib, part, references, k, lists, centring)
        squared[open_rows], indices[open_rows] = found, nearest_rows
        open_rows = open_rows[~certified]
        if not len(open_rows):
            return squared, indices
    log.info("ops.nearest sweeps %d of %d rows in float64: their bounds prove nothing", len(open_rows), count)
    rows, results = (feature_rows(queries), feature_rows(references)), (squared.data_ptr(), indices.data_ptr())
    lib.neighbours_sweep(*rows, open_rows.data_ptr(), len(open_rows), *_addresses(*groups), k, *results, threads())
    return squared, indices


def _addresses(query_groups: Tensor | None, reference_groups: Tensor | None) -> tuple[int, int]:
    """Both groups as the extension takes them."""
    if query_groups is None or reference_groups is None:
        return 0, 0
    return query_groups.data_ptr(), reference_groups.data_ptr()


def _scan(lib: Any, queries: Tensor, references: Tensor, k: int, groups: tuple[int, int], centring: Centring) -> Lists:
    """The references with the smallest lower bounds from a float32 GEMM, k and some spare ones."""
    keep = min(k + SPARE, len(references))
    bounds = torch.full((len(queries), keep), torch.inf, dtype=torch.float32)
    candidates = torch.full((len(queries), keep), -1, dtype=torch.int64)
    prepared = prepare(lib, queries, centring)
    for tile in dot_tiles(lib, prepared, references, centring):
        lib.neighbours_scan(*tile.arguments(), *groups, keep, bounds.data_ptr(), candidates.data_ptr(), threads())
    return Lists(bounds, candidates, None, prepared.squares)


def _refine(
    lib: Any, queries: Tensor, references: Tensor, k: int, lists: Lists, centring: Centring
) -> tuple[Tensor, Tensor, Tensor]:
    """Exact distances of the k nearest candidates, their indices, and which rows are proven."""
    squared = torch.empty((len(queries), k), dtype=torch.float64)
    indices = torch.empty((len(queries), k), dtype=torch.int64)
    certified = torch.zeros(len(queries), dtype=torch.bool)
    filled = 0 if lists.filled is None else lists.filled.data_ptr()
    lib.neighbours_refine(
        feature_rows(queries), feature_rows(references), lists.squares.data_ptr(), centring.scale**2,
        lists.bounds.shape[1], lists.bounds.data_ptr(), lists.indices.data_ptr(), filled, k,
        squared.data_ptr(), indices.data_ptr(), certified.data_ptr(), threads(),
    )  # fmt: skip
    return squared, indices, certified


@_nearest_op.register_fake
def _(
    queries: Tensor, references: Tensor, k: int, query_groups: Tensor | None, reference_groups: Tensor | None
) -> tuple[Tensor, Tensor]:
    shape = (queries.shape[0], k)
    return queries.new_empty(shape, dtype=torch.float64), queries.new_empty(shape, dtype=torch.int64)


@torch.library.custom_op("medtrust::balls", mutates_args=())
def _balls_op(
    queries: Tensor, references: Tensor, query_radii: Tensor, reference_radii: Tensor, inclusive: bool
) -> tuple[Tensor, Tensor, Tensor]:
    lib = _kernels("prdc", queries)
    if lib is None:
        return reference.balls(queries, references, query_radii, reference_radii, inclusive)
    queries, references = kernel_input("prdc", "fake", queries), kernel_input("prdc", "real", references)
    query_radii, reference_radii = query_radii.contiguous(), reference_radii.contiguous()
    if queries.is_cuda:
        return _device.balls(lib, queries, references, query_radii, reference_radii, inclusive)
    counts = torch.zeros(len(queries), dtype=torch.int64)
    recalled = torch.zeros(len(references), dtype=torch.bool)
    covered = torch.zeros(len(references), dtype=torch.bool)
    centring = Centring.of(references, queries)
    scales = (centring.scale**2, inclusive)
    results = (counts, recalled, covered)
    if lib.matrix():
        radii = (query_radii.data_ptr(), reference_radii.data_ptr(), *scales)
        rest = mark_balls(lib, queries, references, radii, results, centring).nonzero().flatten()
    else:
        rest = torch.arange(len(queries))
    if not len(rest):
        return results
    whole = len(rest) == len(queries)
    part, part_radii = (queries, query_radii) if whole else (queries[rest], query_radii[rest])
    part_counts = torch.zeros(len(rest), dtype=torch.int64)
    addresses = (part_counts.data_ptr(), recalled.data_ptr(), covered.data_ptr())
    radii = (part_radii.data_ptr(), reference_radii.data_ptr(), *scales)
    for tile in dot_tiles(lib, prepare(lib, part, centring), references, centring):
        lib.neighbours_balls(
            *tile.arguments(), feature_rows(part), feature_rows(references), *radii, *addresses, threads()
        )
    counts[rest] = part_counts
    return counts, recalled, covered


@_balls_op.register_fake
def _(
    queries: Tensor, references: Tensor, query_radii: Tensor, reference_radii: Tensor, inclusive: bool
) -> tuple[Tensor, Tensor, Tensor]:
    count, others = queries.shape[0], references.shape[0]
    flags = [queries.new_empty((others,), dtype=torch.bool) for _ in range(2)]
    return queries.new_empty((count,), dtype=torch.int64), flags[0], flags[1]


def _kernels(op: str, tensor: Tensor) -> Any:
    """The extension where it serves this device."""
    return _native.kernels(op, tensor.device.type)
