"""ops.nearest and ops.prdc against their float64 twins and the prdc package."""

from __future__ import annotations

import contextlib
import io

import pytest
import torch
from torch import Tensor

from medtrust import ops
from medtrust.errors import DataError, NativeError
from medtrust.ops import _native, _tiles, neighbours, reference

DTYPES = [torch.float32, torch.float64]


@pytest.fixture(autouse=True, params=["none", "avx512bf16", "amx"])
def unit(request, monkeypatch):
    """Every test on every matrix unit that is here, and without one."""
    monkeypatch.setenv("MEDTRUST_MATRIX", request.param)
    if _native.extension is not None:
        try:
            ops.info()
        except NativeError as error:
            pytest.skip(f"cannot be forced here: {error}")
    return request.param


def cloud(n: int, d: int, seed: int, dtype: torch.dtype = torch.float32, offset: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (offset + torch.randn((n, d), generator=generator, dtype=torch.float64)).to(dtype)


def assert_equal_to_twin(queries: Tensor, points: Tensor, k: int, groups: tuple[Tensor, Tensor] | None = None) -> None:
    got = ops.nearest(queries, points, k, groups)
    squared, indices = reference.nearest(queries, points, k, *(groups or (None, None)))
    assert torch.equal(got.indices, indices)
    torch.testing.assert_close(got.distances, squared.sqrt(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "m", "d", "k"), [(1, 1, 1, 1), (3, 7, 5, 7), (257, 301, 33, 4), (50, 5000, 17, 3), (1030, 90, 130, 1)]
)
def test_nearest_equals_twin(n, m, d, k, dtype):
    """Every size, one row and tile crossings included, gives the twin's indices and distances."""
    assert_equal_to_twin(cloud(n, d, 1, dtype), cloud(m, d, 2, dtype), k)


def test_small_distances_survive():
    """Copies 1e-7 apart and far from the origin keep their true distance, where the expanded form gives 0."""
    points = cloud(400, 64, 3, torch.float64, offset=1000.0)
    queries = points[:5].clone()
    queries[:, 0] += torch.tensor([0, 1e-7, 1e-6, 1e-5, 1e-4], dtype=torch.float64)
    got = ops.nearest(queries, points, 1)
    assert got.indices[:, 0].tolist() == [0, 1, 2, 3, 4]
    torch.testing.assert_close(got.distances[:, 0], (queries - points[:5]).norm(dim=1), rtol=1e-12, atol=0)
    expanded = (queries**2).sum(1) + (points[:5] ** 2).sum(1) - 2 * (queries * points[:5]).sum(1)
    assert float((expanded.clamp_min(0).sqrt()[1] - 1e-7).abs()) > 1e-8, "the trap that this test is about must exist"


@pytest.mark.parametrize("copies", [3, 60])
def test_ties_are_in_order_of_index(copies):
    """Equal distances, more of them than the spare candidates too, are reported in order of index."""
    base = cloud(20, 8, 4)
    points = base.repeat(copies, 1)
    assert_equal_to_twin(base, points, 2)
    lattice = torch.randint(0, 3, (200, 4), generator=torch.Generator().manual_seed(5)).float()
    assert_equal_to_twin(lattice, lattice, 6)


def test_constant_features():
    """Features that do not vary have neighbours at distance 0, the first ones by index."""
    flat = torch.full((50, 6), 7.0)
    got = ops.nearest(flat, flat, 2, (torch.arange(50), torch.arange(50)))
    assert float(got.distances.abs().max()) == 0
    assert got.indices[0].tolist() == [1, 2]
    assert got.indices[9].tolist() == [0, 1]


def test_patients_are_excluded():
    """Rows of the same group are never reported, even when they are the nearest."""
    points = cloud(300, 12, 6)
    groups = torch.arange(300) // 4
    queries = points + 1e-3
    assert_equal_to_twin(queries, points, 5, (groups, groups))
    got = ops.nearest(queries, points, 5, (groups, groups))
    assert not bool((groups[got.indices] == groups[:, None]).any())
    with pytest.raises(DataError, match="query 0 has 0 reference rows outside its own group"):
        ops.nearest(queries[:2], points[:4], 1, (groups[:2], groups[:4]))


@pytest.mark.parametrize("factor", [1e-25, 1e25, 1e-12])
def test_extreme_scales(factor):
    """Features whose squares leave float32's range keep their neighbours."""
    queries, points = cloud(40, 9, 7, offset=0.0) * factor, cloud(90, 9, 8, offset=0.0) * factor
    assert_equal_to_twin(queries, points, 3)


def test_outliers_do_not_hide_neighbours():
    """One row a million times larger than the rest costs accuracy nowhere."""
    points = cloud(500, 30, 9)
    points[77] *= 1e6
    assert_equal_to_twin(cloud(60, 30, 10), points, 4)


def test_low_precision_matmul_changes_nothing():
    """Neither a caller's reduced float32 precision nor autocast reaches the certified search."""
    queries, points = cloud(100, 256, 11), cloud(2000, 256, 12)
    expected = ops.nearest(queries, points, 3)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = ops.nearest(queries, points, 3)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(got.indices, expected.indices)
    assert torch.equal(got.distances, expected.distances)


def test_same_bits_at_any_thread_count_and_split():
    """Neither threads nor the batch of queries changes a bit."""
    queries, points = cloud(1100, 40, 13), cloud(4200, 40, 14)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = ops.nearest(queries, points, 5)
        torch.set_num_threads(3)
        together = ops.nearest(queries, points, 5)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone.distances, together.distances)
    assert torch.equal(alone.indices, together.indices)
    parts = [ops.nearest(part, points, 5) for part in queries.split(400)]
    assert torch.equal(torch.cat([p.distances for p in parts]), alone.distances)
    assert torch.equal(torch.cat([p.indices for p in parts]), alone.indices)


def test_non_contiguous_and_empty():
    """Strided features equal their copies; no query gives no row."""
    queries, points = cloud(30, 20, 15).T.contiguous().T, cloud(80, 40, 16)[:, ::2]
    got, expected = ops.nearest(queries, points, 2), ops.nearest(queries.contiguous(), points.contiguous(), 2)
    assert torch.equal(got.distances, expected.distances)
    assert ops.nearest(torch.zeros(0, 4), torch.zeros(3, 4), 2).indices.shape == (0, 2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"queries": torch.zeros(4, 3, dtype=torch.float16)}, "convert it"),
        ({"queries": torch.zeros(4, 3, dtype=torch.float64)}, "differ in dtype"),
        ({"queries": torch.zeros(4, 2)}, "differ in width"),
        ({"queries": torch.zeros(4)}, "shape"),
        ({"queries": [[0.0]]}, "pass a torch tensor"),
        ({"reference": torch.zeros(5, 3, device="meta"), "queries": torch.zeros(4, 3, device="meta")}, "device"),
        ({"k": 0}, "k=0"),
        ({"k": 6}, "k=6"),
        ({"exclude": (torch.zeros(4), torch.zeros(5))}, "integers"),
        ({"exclude": (torch.arange(3), torch.arange(5))}, "one per row"),
    ],
)
def test_refusals(change, words):
    """What cannot be searched is refused with a sentence that says what to do."""
    arguments = {"queries": torch.ones(4, 3), "reference": torch.ones(5, 3), "k": 1} | change
    with pytest.raises(DataError, match=words):
        ops.nearest(**arguments)


def test_non_finite_rows_are_named():
    """A NaN or an infinity is an error that names the row and the matrix; a sum that only overflows is none."""
    points = cloud(9, 3, 17)
    points[4, 1] = torch.inf
    with pytest.raises(DataError, match="row 4 of reference"):
        ops.nearest(cloud(2, 3, 18), points, 1)
    big = torch.full((4, 3), 3e38)
    assert ops.nearest(big, big, 1).indices[:, 0].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("convention", ["prdc", "kynkaanniemi"])
@pytest.mark.parametrize(("n", "m", "d", "k"), [(60, 41, 3, 5), (301, 110, 20, 3), (30, 450, 8, 1)])
def test_balls_equal_twin(n, m, d, k, convention, dtype, monkeypatch):
    """All four measures equal the float64 twin's, on lattice points with exact ties at the radius too."""
    monkeypatch.setattr(_tiles, "ROWS", 64)
    monkeypatch.setattr(_tiles, "COLS", 100)
    inputs = [(cloud(n, d, 19, dtype), 0.9 * cloud(m, d, 20, dtype) + 0.3)]
    generator = torch.Generator().manual_seed(21)
    inputs.append(tuple(torch.randint(0, 4, (rows, d), generator=generator).to(dtype) for rows in (n, m)))
    native = [ops.prdc(real, fake, k, convention) for real, fake in inputs]
    monkeypatch.setattr(neighbours, "_kernels", lambda op, tensor: None)
    assert native == [ops.prdc(real, fake, k, convention) for real, fake in inputs]


def test_prdc_package_parity():
    """The prdc package gives the same four numbers."""
    package = pytest.importorskip("prdc", reason="prdc is not installed")
    real, fake = cloud(400, 16, 22), 0.8 * cloud(350, 16, 23) + 0.5
    with contextlib.redirect_stdout(io.StringIO()):
        expected = package.compute_prdc(real.numpy(), fake.numpy(), nearest_k=5)
    got = ops.prdc(real, fake, 5)
    for name, value in expected.items():
        assert getattr(got, name) == pytest.approx(float(value), abs=1e-12)
        assert value > 0


def test_prdc_of_known_sets():
    """The same set has full marks, a far one none, and one mode of two has half the recall."""
    generator = torch.Generator().manual_seed(24)
    one, two = torch.randn((200, 4), generator=generator), torch.randn((200, 4), generator=generator) + 100
    both = torch.cat([one, two])
    same = ops.prdc(both, both.clone())
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    away = ops.prdc(one, two)
    assert (away.precision, away.recall, away.density, away.coverage) == (0, 0, 0, 0)
    half = ops.prdc(both, one + 1e-3)
    assert half.precision == 1
    assert half.recall == 0.5
    assert half.coverage == 0.5


def test_prdc_refusals():
    """Too few rows, an unknown convention and features without variation are refused, saying why."""
    with pytest.raises(DataError, match="real has 5 rows"):
        ops.prdc(cloud(5, 2, 25), cloud(9, 2, 26), 5)
    with pytest.raises(DataError, match="convention"):
        ops.prdc(cloud(9, 2, 25), cloud(9, 2, 26), 2, "naeem")
    with pytest.raises(DataError, match="every ball is empty"):
        ops.prdc(torch.ones(9, 2), cloud(9, 2, 26), 2)


def test_registered_ops_are_sound():
    """torch's own checks of schema and fake tensors pass."""
    queries, points = cloud(7, 3, 27), cloud(9, 3, 28)
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.medtrust.nearest, (queries, points, 2, None, None), test_utils=tests)
    groups = (torch.arange(7), torch.arange(9))
    torch.library.opcheck(torch.ops.medtrust.nearest, (queries, points, 2, *groups), test_utils=tests)
    radii = (torch.ones(7, dtype=torch.float64), torch.ones(9, dtype=torch.float64))
    torch.library.opcheck(torch.ops.medtrust.balls, (queries, points, *radii, False), test_utils=tests)


def test_twin_serves_without_the_extension(monkeypatch):
    """Without the extension the values stay, and a warning says what is slower."""
    queries, points = cloud(50, 6, 29), cloud(70, 6, 30)
    expected = ops.nearest(queries, points, 3)
    monkeypatch.setattr(_native, "extension", None)
    monkeypatch.setattr(_native, "_warned", set())
    with pytest.warns(RuntimeWarning, match=r"ops\.nearest runs on its float64 torch twin"):
        got = ops.nearest(queries, points, 3)
    assert torch.equal(got.indices, expected.indices)
    torch.testing.assert_close(got.distances, expected.distances, rtol=1e-12, atol=0)


@pytest.mark.parametrize("gap", [0.0, 1e-7, 1e-3])
def test_planted_copies_are_found(gap):
    """A copy at any distance is the nearest row, at its true distance, among many alike."""
    points = cloud(3000, 200, 31, torch.float64)
    queries = points[100:140].clone()
    queries[:, 5] += gap
    got = ops.nearest(queries, points, 3)
    assert got.indices[:, 0].tolist() == list(range(100, 140))
    torch.testing.assert_close(got.distances[:, 0], (queries - points[100:140]).norm(dim=1), rtol=1e-12, atol=0)


def test_coarse_bounds_that_prove_nothing():
    """Tight clusters far apart, which bfloat16 cannot tell apart, keep exact neighbours and balls."""
    generator = torch.Generator().manual_seed(32)
    centres = 100 * torch.randn((3, 50), generator=generator)
    points = centres.repeat_interleave(400, 0) + 1e-3 * torch.randn((1200, 50), generator=generator)
    queries = centres.repeat_interleave(90, 0) + 1e-3 * torch.randn((270, 50), generator=generator)
    assert_equal_to_twin(queries, points, 4)
    radii = 1.001 * reference.nearest(queries, points, 4, None, None)[0][:, 3]
    others = torch.full((1200,), float(radii.median()), dtype=torch.float64)
    for inclusive in (False, True):
        native = neighbours._balls_op(queries, points, radii, others, inclusive)
        for one, other in zip(native, reference.balls(queries, points, radii, others, inclusive), strict=True):
            assert torch.equal(one, other)
