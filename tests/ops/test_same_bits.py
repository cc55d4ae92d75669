"""What docs/performance.md promises of bits: any thread count and batch split, and where it says so any processor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from medtrust import ops
from medtrust.errors import NativeError
from medtrust.ops import _native

pytestmark = pytest.mark.skipif(_native.extension is None, reason=f"no compiled kernels: {_native.absence}")
COUNT = 6


def images(seed: int, dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = (1, 130, 141)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (128 + 40 * torch.randn((COUNT, *shape), generator=generator)).clamp(0, 255).to(dtype)


def features(n: int, seed: int) -> Tensor:
    return 3 + torch.randn((n, 70), generator=torch.Generator().manual_seed(seed))


def stepped(kind: str, items: slice) -> Tensor:
    schedule = ops.schedule(kind, 4)
    first = items.start or 0
    x, eps, memory = (ops.philox_normal((COUNT, 3, 40, 40), seed)[items] for seed in (1, 2, 3))
    options = {"schedule": schedule, "step": 1, "memory": memory, "seed": 7, "first": first, "clamp": (-1, 1)}
    return ops.diffusion_step(kind, x, eps, **options).x


@dataclass(frozen=True)
class Case:
    """An op.

    Args:
        call: Its result for some of the items, one row per item.
        splits: Items may be computed apart.
        anywhere: Every instruction set gives the same bits.
    """

    call: Callable[[slice], Tensor]
    splits: bool = True
    anywhere: bool = False


X, Y = images(1), images(2)
X8, Y8 = images(1, torch.uint8), images(2, torch.uint8)
QUERIES, POINTS = features(700, 3), features(1500, 4)
PATIENTS = torch.arange(700) % 50, torch.arange(1500) % 50
CASES = {
    "ssim": Case(lambda s: ops.ssim(X[s], Y[s], data_range=255)),
    "ssim uint8 uniform": Case(lambda s: ops.ssim(X8[s], Y8[s], data_range=255, convention="skimage")),
    "ms_ssim": Case(lambda s: ops.ms_ssim(X[s], Y[s], data_range=255, weights=(0.4, 0.6))),
    "max_ncc": Case(lambda s: ops.max_ncc(X[s], Y[s], 2)),
    "tile_l2": Case(lambda s: ops.tile_l2(X[s], Y[s], 16)),
    "radiomics": Case(lambda s: ops.radiomics(X[s], lo=0, hi=255, dtype=torch.float64).values),
    "nearest": Case(lambda s: ops.nearest(QUERIES[s], POINTS, 4, (PATIENTS[0][s], PATIENTS[1])).distances),
    "nearest indices": Case(lambda s: ops.nearest(QUERIES[s], POINTS, 4).indices, anywhere=True),
    "prdc": Case(lambda s: torch.tensor(ops.prdc(QUERIES, POINTS[:800], 5)), splits=False, anywhere=True),
    "mmd": Case(lambda s: torch.tensor(ops.mmd(QUERIES, POINTS), dtype=torch.float64), splits=False),
    "noise": Case(
        lambda s: ops.philox_normal((len(range(COUNT)[s]), 999), 5, first=s.start or 0), splits=True, anywhere=True
    ),
    "latents": Case(
        lambda s: ops.reparameterise(X[s] / 255, Y[s] / 255, 5, first=s.start or 0), splits=True, anywhere=True
    ),
    "ddim": Case(lambda s: stepped("ddim", s), anywhere=True),
    "dpmpp2m_sde": Case(lambda s: stepped("dpmpp2m_sde", s), anywhere=True),
}


@pytest.mark.parametrize("name", CASES)
def test_threads(name):
    """One, two and five threads give the same bits."""
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(CASES[name].call(slice(None)))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert torch.equal(found[0], other)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.splits])
def test_batch_splits(name):
    """Items computed apart have the bits that they have together."""
    call = CASES[name].call
    whole = call(slice(0, COUNT))
    parts = [call(slice(0, 1)), call(slice(1, 4)), call(slice(4, COUNT))]
    assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize("choice", ["scalar", "avx2"])
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.anywhere])
def test_instruction_sets(name, choice, monkeypatch):
    """Where it is promised, every instruction set, with and without a matrix unit, gives the same bits."""
    best = CASES[name].call(slice(None))
    monkeypatch.setenv("MEDTRUST_CPU", choice)
    monkeypatch.setenv("MEDTRUST_MATRIX", "none")
    try:
        ops.info()
    except NativeError as error:
        pytest.skip(f"cannot be forced here: {error}")
    assert torch.equal(CASES[name].call(slice(None)), best)


def test_excluded_patients_are_never_reported():
    """With patients given, each neighbour is the nearest of another patient, for every query."""
    found = ops.nearest(QUERIES, POINTS, 4, PATIENTS)
    assert not bool((PATIENTS[1][found.indices] == PATIENTS[0][:, None]).any())
    distances = (QUERIES.double()[:, None] - POINTS.double()[None]).square().sum(2)
    distances[PATIENTS[0][:, None] == PATIENTS[1][None]] = torch.inf
    expected = distances.topk(4, largest=False)
    assert torch.equal(found.indices, expected.indices)
    torch.testing.assert_close(found.distances, expected.values.sqrt(), rtol=1e-13, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_planted_copies_keep_their_distance(dtype):
    """Copies at distance 0, 1e-7 and 1e-3 are found at it, to the rounding of a root."""
    points = features(3000, 5).to(dtype)
    queries = points[[10, 20, 30]].clone()
    for row, gap in ((1, 1e-7), (2, 1e-3)):
        queries[row, 0] = torch.nextafter(queries[row, 0] + gap, queries[row, 0] + 1)
    exact = (queries.double() - points[[10, 20, 30]].double()).norm(dim=1)
    assert exact[0] == 0
    assert exact[1] < 1e-6
    found = ops.nearest(queries, points, 1)
    assert found.indices[:, 0].tolist() == [10, 20, 30]
    torch.testing.assert_close(found.distances[:, 0], exact, rtol=1e-15, atol=0)
