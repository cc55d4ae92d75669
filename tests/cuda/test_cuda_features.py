"""Neighbours, PRDC, MMD and moments on a device against the float64 twins."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medtrust import ops
from medtrust.ops import discrepancy, reference

pytestmark = pytest.mark.cuda
DTYPES = [torch.float32, torch.float64]


def cloud(n: int, d: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 + torch.randn((n, d), generator=generator, dtype=torch.float64)).to(dtype).cuda()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "m", "d", "k"),
    [
        (1, 1, 1, 1),
        (0, 3, 4, 2),
        (3, 7, 5, 7),
        (257, 301, 33, 4),
        (50, 40001, 17, 3),
        (5000, 90, 130, 1),
        (9, 900, 8, 700),
    ],
)
def test_nearest(on_side_stream, n, m, d, k, dtype):
    """Every size, none, one row and tile crossings included, gives the twin's neighbours."""
    queries, points = cloud(n, d, 1, dtype), cloud(m, d, 2, dtype)
    got = on_side_stream(lambda: ops.nearest(queries, points, k))
    squared, indices = reference.nearest(queries, points, k, None, None)
    assert torch.equal(got.indices, indices)
    torch.testing.assert_close(got.distances, squared.sqrt(), rtol=1e-12, atol=0)


def test_nearest_groups_ties_and_splits(on_side_stream):
    """Groups are left out, copies stay in order of index, and a query has the same bits in any batch."""
    base = cloud(60, 8, 3)
    points = base.repeat(40, 1)
    groups = torch.arange(60).cuda(), (torch.arange(2400) % 600).cuda()
    got = on_side_stream(lambda: ops.nearest(base, points, 5, groups))
    squared, indices = reference.nearest(base, points, 5, *groups)
    assert torch.equal(got.indices, indices)
    torch.testing.assert_close(got.distances, squared.sqrt(), rtol=1e-12, atol=0)
    queries, others = cloud(300, 40, 4), cloud(20000, 40, 5)
    whole, parts = ops.nearest(queries, others, 5), [ops.nearest(q, others, 5) for q in queries.split(77)]
    for i in range(2):
        assert torch.equal(torch.cat([part[i] for part in parts]), whole[i])


def test_nearest_of_strided_rows_under_tf32(on_side_stream):
    """Strided features equal their copies, and neither TF32 nor autocast reaches the certified search."""
    queries, points = cloud(30, 128, 6).T.contiguous().T, cloud(5000, 256, 7)[:, ::2]
    expected = ops.nearest(queries.contiguous(), points.contiguous(), 2)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            got = on_side_stream(lambda: ops.nearest(queries, points, 2))
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(got.distances, expected.distances)
    assert torch.equal(got.indices, expected.indices)


def test_small_distances_survive():
    """Copies 1e-7 apart and far from the origin keep their true distance."""
    points = cloud(4000, 64, 8, torch.float64) + 1000
    queries = points[:5].clone()
    queries[:, 0] += torch.tensor([0, 1e-7, 1e-6, 1e-5, 1e-4], dtype=torch.float64, device="cuda")
    got = ops.nearest(queries, points, 1)
    assert got.indices[:, 0].tolist() == [0, 1, 2, 3, 4]
    torch.testing.assert_close(got.distances[:, 0], (queries - points[:5]).norm(dim=1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize(("n", "m", "d"), [(1, 1, 2), (77, 17001, 5), (4100, 333, 20)])
def test_balls(on_side_stream, n, m, d, inclusive, dtype):
    """Counts and flags equal those of exact distances, on lattice points that tie with the radius too."""
    lattice = [torch.randint(0, 3, (rows, d), generator=torch.Generator().manual_seed(rows)) for rows in (n, m)]
    for queries, points in ((cloud(n, d, 9, dtype), cloud(m, d, 10, dtype)), [t.to(dtype).cuda() for t in lattice]):
        radii = [torch.randint(1, 2 * d, (len(rows),)).double().cuda() for rows in (queries, points)]
        got = on_side_stream(lambda q=queries, p=points, r=radii: torch.ops.medtrust.balls(q, p, *r, inclusive))
        counts, recalled, covered = [], torch.zeros(m, dtype=torch.bool).cuda(), torch.zeros(m, dtype=torch.bool).cuda()
        inside = torch.le if inclusive else torch.lt
        for query, radius in zip(queries.double().split(64), radii[0].split(64), strict=True):
            squared = (query[:, None] - points.double()[None]).square().sum(2)
            in_real = inside(squared, radii[1][None])
            counts.append(in_real.sum(1))
            covered |= in_real.any(0)
            recalled |= inside(squared, radius[:, None]).any(0)
        for one, other in zip(got, (torch.cat(counts), recalled, covered), strict=True):
            assert torch.equal(one, other)


def test_prdc_equals_the_cpu():
    """All four measures are those of the CPU."""
    real, fake = cloud(700, 20, 11), 0.9 * cloud(500, 20, 12) + 0.3
    assert ops.prdc(real, fake) == ops.prdc(real.cpu(), fake.cpu())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kernel", "scale"), [("poly3", 0.1), ("rbf", 0.001)])
@pytest.mark.parametrize(("n", "m", "d"), [(2, 2, 1), (64, 65, 16), (1000, 333, 2047)])
def test_mmd(on_side_stream, n, m, d, kernel, scale, dtype):
    """The sums equal the twin's, twice with the same bits; strided rows equal their copies."""
    real, fake = cloud(n, d, 13, dtype), cloud(m, d, 14, dtype)
    got = on_side_stream(lambda: discrepancy._kernel_sums_op(real, fake, kernel, scale))
    torch.testing.assert_close(got, reference.kernel_sums(real, fake, kernel, scale), rtol=1e-12, atol=0)
    assert torch.equal(got, discrepancy._kernel_sums_op(real.T.contiguous().T, fake, kernel, scale))


def test_moments(on_side_stream):
    """Mean and covariance equal torch's in float64, and the batches do not matter."""
    rows = cloud(5000, 70, 15)
    parts = rows[:9], rows[9:]
    streams = on_side_stream(lambda: [ops.Moments(70).update(rows), ops.Moments(70).update(parts[0]).update(parts[1])])
    torch.testing.assert_close(streams[0].cov, torch.cov(rows.double().T), rtol=1e-10, atol=1e-12)
    assert torch.equal(streams[0].cov, streams[1].cov)
    assert torch.equal(streams[0].mean, streams[1].mean)
