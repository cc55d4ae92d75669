"""Differential privacy of sums: clipping, the analytic Gaussian mechanism, and noise that repeats for one question."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from medtrust.errors import ConfigError

__all__ = ["Privacy", "gaussian_sigma", "secret_normal"]


@dataclass(frozen=True, slots=True)
class Privacy:
    """(ε, δ)-differential privacy of everything one site reveals in a study.

    Two data sets are neighbours if one patient is exchanged for another; the numbers of patients are public. Each
    patient counts with one image.

    Args:
        epsilon: ε > 0.
        delta: δ in (0, 1).
        clip: Largest length of a projected row; longer ones are shortened, real and synthetic alike.
    """

    epsilon: float
    delta: float
    clip: float

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Privacy:
        """Read the settings.

        Raises:
            ConfigError: One is missing or impossible.
        """
        if set(given) != {"epsilon", "delta", "clip"} or not all(
            isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) and v > 0
            for v in given.values()
        ):
            raise ConfigError(f"privacy = {dict(given)!r}: give epsilon, delta and clip, each above 0")
        if not given["delta"] < 1:
            raise ConfigError(f"privacy.delta = {given['delta']}: a probability below 1, such as 1e-6")
        return cls(**{name: float(value) for name, value in given.items()})

    def as_dict(self) -> dict[str, float]:
        """Plain data."""
        return asdict(self)

    def sigma(self, blocks: int) -> float:
        """Standard deviation of the noise on sums of `blocks` vectors per patient, each of length at most 1."""
        return gaussian_sigma(self.epsilon, self.delta, 2 * math.sqrt(blocks))


def gaussian_sigma(epsilon: float, delta: float, sensitivity: float) -> float:
    """Smallest noise that makes a sum (ε, δ)-private: the analytic Gaussian mechanism.

    Solves Φ(Δ/2σ - εσ/Δ) - e^ε Φ(-Δ/2σ - εσ/Δ) = δ for σ.

    Args:
        epsilon: ε > 0.
        delta: δ in (0, 1).
        sensitivity: Largest Euclidean distance Δ between the sums of neighbouring data sets.

    Returns:
        σ, in the unit of the sums.

    Reference: Balle and Wang 2018, arXiv:1805.06530, theorem 8.
    """

    def lost(log_ratio: float) -> float:  # of σ/Δ
        ratio = math.exp(log_ratio)
        a, b = 1 / (2 * ratio), epsilon * ratio
        return float(ndtr(a - b) - math.exp(epsilon) * ndtr(-a - b)) - delta

    return sensitivity * math.exp(float(brentq(lost, math.log(1e-3), math.log(1e6), xtol=1e-14)))


def secret_normal(secret: bytes, count: int) -> npt.NDArray[np.float64]:
    """Normal draws that only the holder of a secret can tell, the same for the same secret.

    The same question on the same data thus gets the same noise, and nothing is learned by asking twice.
    """
    stream = hmac.new(secret, b"noise", "sha256").digest()
    words = np.frombuffer(hashlib.shake_256(stream).digest(8 * count), "<u8")
    normal: npt.NDArray[np.float64] = ndtri(((words >> np.uint64(11)) + 0.5) * 2.0**-53)
    return normal
