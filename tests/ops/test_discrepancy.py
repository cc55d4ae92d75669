"""ops.mmd against its definition and torch-fidelity."""

from __future__ import annotations

import pytest
import torch

from medtrust import ops
from medtrust.errors import DataError
from medtrust.ops import reference


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
@pytest.mark.parametrize("unit", ["none", None])
def test_equals_definition(n, m, d, dtype, unit, monkeypatch):
    """Every size, block crossings included, gives the definition's value, by float64 and by digits."""
    if unit is not None:
        monkeypatch.setenv("MEDTRUST_MATRIX", unit)
    x, y = rows(n, d, 1, dtype), rows(m, d, 2, dtype, 0.3)
    assert ops.mmd(x, y) == pytest.approx(by_definition(x, y), rel=1e-10, abs=1e-12)


def test_twin_equals_definition():
    """The twin's sums give the definition's value in small tiles as well."""
    x, y = rows(70, 9, 3), rows(41, 9, 4)
    xx, yy, xy = reference.kernel_sums(x, y, "poly3", 1 / 9, rows=16).tolist()
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
    x, y = rows(301, 77, 7), rows(177, 77, 8)
    before = torch.get_num_threads()
    values = set()
    try:
        for count in (1, 2, 3, 5):
            torch.set_num_threads(count)
            values |= {(ops.mmd(x, y), ops.mmd(x, y, kernel="rbf", bandwidth=9.0))}
    finally:
        torch.set_num_threads(before)
    assert len(values) == 1


@pytest.mark.parametrize("unit", ["none", None])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_rbf_equals_definition(offset, unit, monkeypatch):
    """The Gaussian kernel gives its definition's value, far from the origin too."""
    if unit is not None:
        monkeypatch.setenv("MEDTRUST_MATRIX", unit)
    x, y = rows(71, 20, 12, torch.float64, offset), rows(100, 20, 13, torch.float64, offset + 0.3)
    kernel = [torch.exp(-((a[:, None] - b[None]) ** 2).sum(2) / (2 * 4.0**2)) for a, b in ((x, x), (y, y), (x, y))]
    parts = [(k.sum() - k.trace()) / (len(k) * (len(k) - 1)) for k in kernel[:2]]
    assert ops.mmd(x, y, kernel="rbf", bandwidth=4.0) == pytest.approx(
        float(parts[0] + parts[1] - 2 * kernel[2].mean()), abs=1e-9
    )
    within = [float(k.sum() - k.trace()) for k in kernel[:2]]
    twin = reference.kernel_sums(x, y, "rbf", 1 / 32, rows=16).tolist()
    assert twin == pytest.approx([*within, float(kernel[2].sum())], rel=1e-9)


@pytest.mark.parametrize("spread", [1.0, 30.0, 1e6])
def test_kernel_values_keep_nine_digits(spread):
    """Constant rows and outliers, whose rounding cannot average out, stay within 1e-9 of the kernel's scale."""
    generator = torch.Generator().manual_seed(14)
    base = 0.4 + torch.rand((1, 700), generator=generator)
    base[0, 3] *= spread
    x, y = base.repeat(40, 1), (1.1 * base).repeat(50, 1)
    scale = (float((x[0].double() @ x[0].double()) * 1.21 / 700) + 1) ** 3
    assert abs(ops.mmd(x, y) - by_definition(x, y)) < 4e-9 * scale


def test_extreme_magnitudes():
    """Rows of zeros, of tiny and of huge values are no exception."""
    x, y = rows(40, 5, 15, torch.float64), rows(30, 5, 16, torch.float64)
    x[3] = 0
    x[4] *= 1e-200
    assert ops.mmd(x, y) == pytest.approx(by_definition(x, y), rel=1e-8, abs=1e-10)
    x *= 1e30
    assert ops.mmd(x, y) == pytest.approx(by_definition(x, y), rel=1e-8)


def test_refusals():
    """Too few rows, other kernels and values that are not finite are refused."""
    with pytest.raises(DataError, match="1 and 3 rows"):
        ops.mmd(rows(1, 2, 8), rows(3, 2, 9))
    with pytest.raises(DataError, match="kernel 'linear' is not one of poly3, rbf"):
        ops.mmd(rows(3, 2, 8), rows(3, 2, 9), kernel="linear")
    with pytest.raises(DataError, match="needs a bandwidth"):
        ops.mmd(rows(3, 2, 8), rows(3, 2, 9), kernel="rbf")
    with pytest.raises(DataError, match="has no bandwidth"):
        ops.mmd(rows(3, 2, 8), rows(3, 2, 9), bandwidth=1.0)
    with pytest.raises(DataError, match="bandwidth is 0"):
        ops.mmd(rows(3, 2, 8), rows(3, 2, 9), kernel="rbf", bandwidth=0)
    bad = rows(3, 2, 9)
    bad[2, 0] = torch.nan
    with pytest.raises(DataError, match="row 2 of fake"):
        ops.mmd(rows(3, 2, 8), bad)


def test_registered_op_is_sound():
    """torch's own checks of schema and fake tensors pass."""
    tests = ("test_schema", "test_faketensor")
    arguments = (rows(5, 3, 10), rows(4, 3, 11), "poly3", 0.1)
    torch.library.opcheck(torch.ops.medtrust.kernel_sums, arguments, test_utils=tests)
