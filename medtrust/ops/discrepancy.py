"""Maximum mean discrepancy, whose kernel matrices are never held."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from medtrust.errors import DataError
from medtrust.ops import _native, reference
from medtrust.ops._check import features, kernel_input, threads

__all__ = ["mmd"]

ROWS = 256  # rows of a tile: of a set with itself, tiles below the diagonal are not computed


def mmd(real: Tensor, fake: Tensor, kernel: str = "poly3") -> float:
    """Unbiased squared maximum mean discrepancy, the statistic behind the Kernel Inception Distance.

    All sums are in float64: the result is a small difference of large means.

    Args:
        real: Features `[n, d]`, n at least 2, float32 or float64, finite.
        fake: Features `[m, d]`, m at least 2, same dtype and device.
        kernel: "poly3", (x.y / d + 1)^3.

    Returns:
        MMD^2; around 0 for equal distributions (negative values occur), larger is further apart.

    Raises:
        DataError: Shapes, dtypes or devices do not fit, a set has fewer than 2 rows, or values are not finite.

    Reference:
        Bińkowski et al. 2018, arXiv:1801.01401; Gretton et al. 2012, JMLR 13:723, lemma 6
    """
    if kernel != "poly3":
        raise DataError(f"ops.mmd: kernel {kernel!r} is not one of poly3")
    features("mmd", real=real, fake=fake)
    n, m = len(real), len(fake)
    if min(n, m) < 2:
        raise DataError(f"ops.mmd: the sets have {n} and {m} rows; the unbiased estimate needs at least 2 in each")
    within_real, within_fake, across = torch.ops.medtrust.poly3_sums(real, fake).tolist()
    return float(within_real / (n * (n - 1)) + within_fake / (m * (m - 1)) - 2 * across / (n * m))


@torch.library.custom_op("medtrust::poly3_sums", mutates_args=())
def _poly3_sums_op(real: Tensor, fake: Tensor) -> Tensor:
    if real.is_cuda:
        return reference.poly3_sums(real, fake)  # a float64 GEMM by cuBLAS and one reduction a tile
    lib = _native.kernels("mmd")
    if lib is None:
        return reference.poly3_sums(real, fake)
    real, fake = kernel_input("mmd", "real", real), kernel_input("mmd", "fake", fake)
    sums = [_kernel_sum(lib, real, None), _kernel_sum(lib, fake, None), _kernel_sum(lib, real, fake)]
    return torch.tensor(sums, dtype=torch.float64)


@_poly3_sums_op.register_fake
def _(real: Tensor, fake: Tensor) -> Tensor:
    return real.new_empty((3,), dtype=torch.float64)


def _kernel_sum(lib: Any, rows: Tensor, cols: Tensor | None) -> float:
    """Sum of the kernel over all pairs; without `cols`, over all ordered pairs of different rows."""
    rows = rows.to(torch.float64)
    others = rows if cols is None else cols.to(torch.float64)
    scale, total = 1 / rows.shape[1], 0.0
    for a in range(0, len(rows), ROWS):
        left = rows[a : a + ROWS]
        for b in range(0 if cols is not None else a, len(others), ROWS):
            dots = left @ others[b : b + ROWS].T
            diagonal = cols is None and a == b
            twice = 2 if cols is None and a != b else 1  # the tile below the diagonal is this one transposed
            total += twice * lib.poly3_sum(dots.data_ptr(), *dots.shape, scale, diagonal, threads())
    return total
