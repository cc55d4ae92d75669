"""The kernel distance: definition, peers, patients, and intervals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medtrust.errors import Insufficient
from medtrust.stats import kid, kid_interval, mmd


def rows(seed: int, n: int, d: int, shift: float = 0.0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, d)) + shift)


def by_definition(a: torch.Tensor, b: torch.Tensor, pa: list[int], pb: list[int]) -> float:
    """The sum over pairs, written out."""

    def kernel(x: torch.Tensor, y: torch.Tensor) -> float:
        return (float(x @ y) / len(x) + 1) ** 3

    def within(x: torch.Tensor, p: list[int]) -> float:
        pairs = [kernel(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if p[i] != p[j]]
        return sum(pairs) / len(pairs)

    cross = [kernel(x, y) for x in a for y in b]
    return within(a, pa) + within(b, pb) - 2 * sum(cross) / len(cross)


@pytest.mark.parametrize(("n", "m", "d"), [(2, 3, 4), (17, 12, 5), (9, 23, 1)])
def test_is_the_sum_over_pairs(n: int, m: int, d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tile by tile, with or without patients, the estimate is the mean over pairs of different patients."""
    monkeypatch.setattr(mmd, "TILE", 5)
    a, b = rows(n, n, d), rows(m + 50, m, d, 0.3)
    assert kid(a, b) == pytest.approx(by_definition(a, b, list(range(n)), list(range(m))), rel=1e-10)
    pa, pb = [i // 2 for i in range(n + 1)][1:], [i % 3 for i in range(m)]
    assert kid(a, b, pa, pb) == pytest.approx(by_definition(a, b, pa, pb), rel=1e-10)


@pytest.mark.parametrize("size", [50, 200])
def test_agrees_with_torch_fidelity(size: int) -> None:
    """Under its convention the number is torch-fidelity's."""
    peer = pytest.importorskip("torch_fidelity.metric_kid", reason="torch-fidelity is not installed (extra: peers)")
    a, b = rows(1, 260, 31), rows(2, 201, 31, 0.2)
    theirs = peer.kid_features_to_metric(a, b, kid_subset_size=size, verbose=False)
    ours = kid(a, b, convention="torch-fidelity", subset_size=size)
    assert ours == pytest.approx(theirs[peer.KEY_METRIC_KID_MEAN], rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("subsets", "size"), [(2, 40), (60, 40), (60, 2)])
def test_subsets_by_either_way(monkeypatch: pytest.MonkeyPatch, subsets: int, size: int, dtype: torch.dtype) -> None:
    """Pairs counted once and subsets gathered one by one give torch-fidelity's number, across tiles."""
    peer = pytest.importorskip("torch_fidelity.metric_kid", reason="torch-fidelity is not installed (extra: peers)")
    monkeypatch.setattr(mmd, "TILE", 17)
    a, b = rows(5, 150, 20).to(dtype), rows(6, 90, 20, 0.2).to(dtype)
    gathered = []
    whole = mmd.mmd
    monkeypatch.setattr(mmd, "mmd", lambda x, y: gathered.append(len(x)) or whole(x, y))
    theirs = peer.kid_features_to_metric(
        a.double(), b.double(), kid_subsets=subsets, kid_subset_size=size, verbose=False
    )
    ours = kid(a, b, convention="torch-fidelity", subsets=subsets, subset_size=size)
    assert ours == pytest.approx(theirs[peer.KEY_METRIC_KID_MEAN], rel=1e-9)
    assert gathered == ([] if (subsets, size) == (60, 40) else [size] * subsets)


def test_leave_one_out_is_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interval's standard error equals that of estimates recomputed without each patient."""
    monkeypatch.setattr(mmd, "TILE", 7)
    a, b = rows(3, 20, 4), rows(4, 9, 4, 0.5)
    pa = [i // 3 for i in range(20)]
    without_a = [
        kid(a[[p != g for p in pa]], b, [p for p in pa if p != g]) for g in range(7)
    ]  # fmt: skip
    without_b = [kid(a, torch.cat([b[:i], b[i + 1 :]]), pa) for i in range(9)]
    variance = 6 / 7 * 7 * np.var(without_a) + 8 / 9 * 9 * np.var(without_b)
    found = kid_interval(a, b, pa)
    assert found.se == pytest.approx(float(np.sqrt(variance)), rel=1e-9)
    assert found.interval.n_units == 7
    assert found.interval.lo < found.value < found.interval.hi


def test_equal_sets_and_constant_features() -> None:
    """Constant features are at distance zero with an interval of no width, or at the kernel's distance."""
    same = kid_interval(torch.ones(5, 3), torch.ones(6, 3))
    assert same.value == pytest.approx(0, abs=1e-12)
    assert same.interval.hi == pytest.approx(0, abs=1e-12)
    assert kid(torch.zeros(4, 3), torch.ones(4, 3)) == pytest.approx(1 + 8 - 2)


def test_refuses_with_a_reason() -> None:
    """Too few patients, unknown conventions, unequal widths and NaN are refused with a sentence."""
    a = rows(0, 8, 3)
    with pytest.raises(Insufficient, match="2 patients"):
        kid(a, a, [1] * 8)
    with pytest.raises(Insufficient, match="3 patients"):
        kid_interval(a, a, [1, 2] * 4)
    with pytest.raises(Insufficient, match="1000 samples"):
        kid(a, a, convention="torch-fidelity")
    with pytest.raises(ValueError, match="convention"):
        kid(a, a, convention="clean-fid")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="width"):
        kid(a, a[:, :2])
    with pytest.raises(Insufficient, match="not finite"):
        kid(a, a / 0)
