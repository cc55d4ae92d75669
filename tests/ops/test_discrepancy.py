"""ops.mmd against its definition and torch-fidelity."""

from __future__ import annotations

import pytest
import torch

from medtrust import ops
from medtrust.errors import DataError
from medtrust.ops import _native, discrepancy, reference


def rows(n: int, d: int, seed: int, dtype: torch.dtype = torch.float32, shift: float = 0.0) -> torch.Tensor:
    return (shift + torch.randn((n, d), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)


def by_definition(x: torch.Tensor, y: torch.Tensor) -> float:
    """Lemma 6 of Gretton et al., written out."""
    x, y = x.double(), y.double()
    kernel = [(a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
    n, m = len(x), len(y)
    parts = [(k.sum() - k.trace()) / (s * (s - 1)) for k, s in zip(kernel[:2], (n, m), strict=True)]
    return float(parts[0] + parts[1] - 2 * kernel[2].mean())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "m", "d"), [(2, 2, 1), (33, 70, 7), (130, 64, 65), (64, 200, 3)])
def test_equals_definition(n, m, d, dtype, monkeypatch):
    """Every size, tile crossings included, gives the definition's value."""
    monkeypatch.setattr(discrepancy, "ROWS", 32)
    x, y = rows(n, d, 1, dtype), rows(m, d, 2, dtype, 0.3)
    assert ops.mmd(x, y) == pytest.approx(by_definition(x, y), rel=1e-10, abs=1e-12)


def test_twin_equals_definition():
    """The twin's sums give the definition's value in small tiles as well."""
    x, y = rows(70, 9, 3), rows(41, 9, 4)
    xx, yy, xy = reference.poly3_sums(x, y, rows=16).tolist()
    value = xx / (70 * 69) + yy / (41 * 40) - 2 * xy / (70 * 41)
    assert value == pytest.approx(by_definition(x, y), rel=1e-10)


def test_torch_fidelity_parity():
    """torch-fidelity's own function gives the same value."""
    kid = pytest.importorskip("torch_fidelity.metric_kid", reason="torch-fidelity is not installed")
    x, y = rows(60, 32, 5, torch.float64), rows(60, 32, 6, torch.float64, 0.2)
    options = {"kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1}
    expected = kid.kernel_mmd(x.numpy(), y.numpy(), kid_kernel="poly", **options)
    assert ops.mmd(x, y) == pytest.approx(float(expected), rel=1e-9)


def test_unbiased_around_zero():
    """Over many pairs of samples of one distribution the mean is 0 within its own error."""
    values = torch.tensor([ops.mmd(rows(20, 4, 2 * s), rows(25, 4, 2 * s + 1)) for s in range(200)])
    assert abs(float(values.mean())) < 4 * float(values.std()) / 200**0.5
    assert bool((values < 0).any())


def test_same_bits_at_any_thread_count():
    """The number of threads changes no bit of the native sums."""
    dots = rows(301, 77, 7, torch.float64)
    lib = _native.kernels("mmd")
    if lib is None:
        pytest.skip(f"no compiled kernels: {_native.absence}")
    sums = {lib.poly3_sum(dots.data_ptr(), 301, 77, 0.1, False, count) for count in (1, 2, 3, 5)}
    assert len(sums) == 1


def test_refusals():
    """Too few rows, other kernels and values that are not finite are refused."""
    with pytest.raises(DataError, match="1 and 3 rows"):
        ops.mmd(rows(1, 2, 8), rows(3, 2, 9))
    with pytest.raises(DataError, match="kernel 'rbf'"):
        ops.mmd(rows(3, 2, 8), rows(3, 2, 9), kernel="rbf")
    bad = rows(3, 2, 9)
    bad[2, 0] = torch.nan
    with pytest.raises(DataError, match="row 2 of fake"):
        ops.mmd(rows(3, 2, 8), bad)


def test_registered_op_is_sound():
    """torch's own checks of schema and fake tensors pass."""
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.medtrust.poly3_sums, (rows(5, 3, 10), rows(4, 3, 11)), test_utils=tests)
