"""What each published SSIM implementation computes, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from medtrust.errors import DataError

__all__ = ["CONVENTIONS", "K1", "K2", "MS_WEIGHTS", "Convention", "Window", "window_of"]

K1, K2 = 0.01, 0.03  # Wang, Bovik, Sheikh & Simoncelli 2004, section III.C
MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli & Bovik 2003, section 3.2

Pool = Literal["drop", "zero", "replicate_first", "replicate_last"]


@dataclass(frozen=True)
class Convention:
    """How an implementation reads Wang et al. (2004, 2003).

    Args:
        window: Default window, "gaussian" or "uniform".
        sample_covariance: Scale variances by n / (n - 1) instead of n / n.
        reflect: Mirror the border and average a map as large as the image, instead of valid windows only.
        truncate: A Gaussian's default size is `2 * int(3.5 sigma + 0.5) + 1` instead of 11.
        pool: What MS-SSIM's 2x2 mean does with an odd edge: drop it, add zeros on both sides and count them, or
            repeat the edge before the first or after the last row and column.
        per_channel: MS-SSIM multiplies the scales per channel and then averages, instead of the reverse.
    """

    window: Literal["gaussian", "uniform"]
    sample_covariance: bool
    reflect: bool
    truncate: bool
    pool: Pool
    per_channel: bool


CONVENTIONS = {
    "wang": Convention("gaussian", False, False, False, "replicate_last", True),
    "skimage": Convention("uniform", True, False, True, "replicate_last", True),
    "torchmetrics": Convention("gaussian", False, True, True, "drop", False),
    "pytorch-msssim": Convention("gaussian", False, False, False, "zero", True),
    "monai": Convention("gaussian", False, False, False, "drop", False),
    "piq": Convention("gaussian", False, False, False, "replicate_first", True),
}


@dataclass(frozen=True)
class Window:
    """A separable window.

    Args:
        kind: "gaussian" or "uniform".
        taps: Weights along one axis, an odd number of them, summing to 1.
    """

    kind: str
    taps: tuple[float, ...]


def window_of(op: str, convention: str, kind: str | None, size: int | None, sigma: float) -> Window:
    """Complete a window from what the caller gave and the convention's defaults.

    Args:
        op: Public name of the op, for messages.
        convention: A key of CONVENTIONS.
        kind: "gaussian", "uniform", or None for the convention's own.
        size: Taps along each axis, odd, 1..63, or None for the convention's own (uniform: 7).
        sigma: Standard deviation of the Gaussian in pixels, above zero.

    Returns:
        The window.

    Raises:
        DataError: One of the arguments is out of its range.
    """
    if convention not in CONVENTIONS:
        raise DataError(f"ops.{op}: convention {convention!r} is not one of {', '.join(CONVENTIONS)}")
    rules = CONVENTIONS[convention]
    kind = rules.window if kind is None else kind
    if kind not in ("gaussian", "uniform"):
        raise DataError(f"ops.{op}: window {kind!r} is not one of gaussian, uniform")
    if not (math.isfinite(sigma) and sigma > 0):
        raise DataError(f"ops.{op}: sigma is {sigma}; give a finite number of pixels above zero")
    if size is None:
        size = 7 if kind == "uniform" else 2 * int(3.5 * sigma + 0.5) + 1 if rules.truncate else 11
    if not 1 <= size <= 63 or size % 2 == 0:
        raise DataError(f"ops.{op}: window size {size} is not an odd number from 1 to 63")
    if rules.sample_covariance and size == 1:
        raise DataError(f"ops.{op}: sample covariance needs a window of at least 3 pixels; give size=3 or more")
    weights = [1.0 if kind == "uniform" else math.exp(-((i - size // 2) ** 2) / (2 * sigma**2)) for i in range(size)]
    total = math.fsum(weights)
    return Window(kind, tuple(w / total for w in weights))
