"""ops.Moments against the definition."""

from __future__ import annotations

import pytest
import torch

from medtrust import ops
from medtrust.errors import DataError
from medtrust.ops import moments


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Chunks and blocks small enough for quick tests to cross them."""
    monkeypatch.setattr(moments, "CHUNK", 64)
    monkeypatch.setattr(moments, "BLOCK", 8)


def rows(n: int, d: int, seed: int, dtype: torch.dtype = torch.float32, offset: float = 5.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn((n, d), generator=generator, dtype=torch.float64)
    return (offset + mixed @ torch.randn((d, d), generator=generator, dtype=torch.float64)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "d"), [(2, 1), (63, 5), (64, 8), (65, 9), (300, 21)])
def test_equals_definition(n, d, dtype):
    """Mean and covariance equal torch's own on all rows at once."""
    x = rows(n, d, n, dtype)
    got = ops.Moments(d).update(x)
    assert got.n == n
    torch.testing.assert_close(got.mean, x.double().mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(got.cov, torch.cov(x.double().T).reshape(d, d), rtol=1e-10, atol=1e-12)
    assert torch.equal(got.cov, got.cov.T)


def test_same_bits_in_any_batches():
    """How the rows are cut into batches changes no bit, and reading in between neither."""
    x = rows(333, 13, 1)
    whole = ops.Moments(13).update(x)
    parts = ops.Moments(13)
    for part in x.split([1, 0, 62, 100, 170]):
        parts.update(part)
        _ = parts.mean
    assert torch.equal(whole.mean, parts.mean)
    assert torch.equal(whole.cov, parts.cov)


@pytest.mark.parametrize(("a", "b"), [(0, 40), (40, 0), (1, 1), (30, 200), (200, 70)])
def test_merge_equals_union(a, b):
    """Merging equals seeing all rows, from empty and one-row parts too, and leaves the other part alone."""
    x = rows(a + b, 6, 2)
    other = ops.Moments(6).update(x[a:])
    before = other.n
    merged = ops.Moments(6).update(x[:a]).merge(other)
    assert (merged.n, other.n) == (a + b, before)
    torch.testing.assert_close(merged.mean, x.double().mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(merged.cov, torch.cov(x.double().T), rtol=1e-10, atol=1e-12)
    more = rows(150, 6, 3)
    merged.update(more)
    torch.testing.assert_close(merged.cov, torch.cov(torch.cat([x, more]).double().T), rtol=1e-10, atol=1e-12)


def test_variance_survives_a_large_offset():
    """A spread of 1 around 1e8 keeps its variance, which E[x^2] - E[x]^2 loses in float64."""
    x = rows(200, 4, 4, torch.float64, offset=1e8)
    expected = torch.cov((x - 1e8).T)
    torch.testing.assert_close(ops.Moments(4).update(x).cov, expected, rtol=1e-9, atol=1e-9)
    naive = (x.T @ x - 200 * torch.outer(x.mean(0), x.mean(0))) / 199
    assert float((naive - expected).abs().max()) > 1e-3, "the trap that this test is about must exist"


def test_callers_buffer_may_be_reused():
    """Rows are taken in, not referred to."""
    buffer = rows(10, 3, 5)
    expected = buffer.double().mean(0)
    got = ops.Moments(3).update(buffer)
    buffer.zero_()
    torch.testing.assert_close(got.mean, expected, rtol=1e-12, atol=0)


def test_refusals():
    """What cannot be summed, or asked for, is refused with a sentence that says what to do."""
    with pytest.raises(DataError, match="width is 0"):
        ops.Moments(0)
    with pytest.raises(DataError, match="0 rows were seen"):
        _ = ops.Moments(3).mean
    with pytest.raises(DataError, match="1 rows were seen, at least 2"):
        _ = ops.Moments(3).update(torch.zeros(1, 3)).cov
    with pytest.raises(DataError, match="have 4 features"):
        ops.Moments(3).update(torch.zeros(2, 4))
    with pytest.raises(DataError, match="cannot merge width 2"):
        ops.Moments(3).merge(ops.Moments(2))
    with pytest.raises(DataError, match="row 1 of rows holds a NaN"):
        ops.Moments(1).update(torch.tensor([[0.0], [float("nan")]]))
