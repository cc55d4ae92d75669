"""Maximum mean discrepancy, whose kernel matrices are never held."""

from __future__ import annotations

import torch
from torch import Tensor

from medtrust.errors import DataError
from medtrust.ops import _device, _native, reference
from medtrust.ops._check import features, kernel_input, positive, threads
from medtrust.ops._tiles import feature_rows

__all__ = ["mmd"]

KINDS = {"poly3": 0, "rbf": 1}  # codes of csrc/mmd.h


def mmd(real: Tensor, fake: Tensor, kernel: str = "poly3", bandwidth: float | None = None) -> float:
    """Unbiased squared maximum mean discrepancy: KID's statistic with "poly3", CMMD's with "rbf".

    The result is a small difference of large means. Each kernel value is within 1e-9 of the float64 one, relative to
    the kernel of two parallel rows of the same lengths, and all sums are in float64. The same rows give the same bits
    at any number of threads.

    Args:
        real: Features `[n, d]`, n at least 2, float32 or float64, finite.
        fake: Features `[m, d]`, m at least 2, same dtype and device.
        kernel: "poly3", (x.y / d + 1)^3, or "rbf", exp(-|x - y|^2 / (2 bandwidth^2)).
        bandwidth: Width of the second kernel in units of the features, above 0 (CMMD: 10); only for "rbf".

    Returns:
        MMD^2; around 0 for equal distributions (negative values occur), larger is further apart.

    Raises:
        DataError: Shapes, dtypes or devices do not fit, a set has fewer than 2 rows, values are not finite, or the
            bandwidth is missing or has no use.

    Reference:
        Bińkowski et al. 2018, arXiv:1801.01401; Gretton et al. 2012, JMLR 13:723, lemma 6; Jayasumana et al. 2024,
        arXiv:2401.09603
    """
    if kernel not in KINDS:
        raise DataError(f"ops.mmd: kernel {kernel!r} is not one of {', '.join(KINDS)}")
    features("mmd", real=real, fake=fake)
    n, m = len(real), len(fake)
    if min(n, m) < 2:
        raise DataError(f"ops.mmd: the sets have {n} and {m} rows; the unbiased estimate needs at least 2 in each")
    if kernel == "rbf":
        if bandwidth is None:
            raise DataError("ops.mmd: kernel 'rbf' needs a bandwidth; CMMD uses 10 on CLIP embeddings of unit length")
        scale = 0.5 / positive("mmd", "bandwidth", bandwidth) ** 2
    else:
        if bandwidth is not None:
            raise DataError(f"ops.mmd: kernel {kernel!r} has no bandwidth; leave it out or use kernel 'rbf'")
        scale = 1 / real.shape[1]
    within_real, within_fake, across = torch.ops.medtrust.kernel_sums(real, fake, kernel, scale).tolist()
    return float(within_real / (n * (n - 1)) + within_fake / (m * (m - 1)) - 2 * across / (n * m))


@torch.library.custom_op("medtrust::kernel_sums", mutates_args=())
def _kernel_sums_op(real: Tensor, fake: Tensor, kernel: str, scale: float) -> Tensor:
    lib = _native.kernels("mmd", real.device.type)
    if lib is None:
        return reference.kernel_sums(real, fake, kernel, scale)
    real, fake = kernel_input("mmd", "real", real), kernel_input("mmd", "fake", fake)
    if real.is_cuda:
        return _device.kernel_sums(lib, real, fake, KINDS[kernel], scale)
    # Distances do not change with a shift, and lose nothing near it; dot products do change.
    centre = real[:256].double().mean(0) if kernel == "rbf" else torch.zeros(real.shape[1], dtype=torch.float64)
    sums = torch.empty(3, dtype=torch.float64)
    rows = feature_rows(real), feature_rows(fake)
    lib.mmd_sums(*rows, centre.data_ptr(), KINDS[kernel], scale, sums.data_ptr(), threads())
    return sums


@_kernel_sums_op.register_fake
def _(real: Tensor, fake: Tensor, kernel: str, scale: float) -> Tensor:
    return real.new_empty((3,), dtype=torch.float64)
