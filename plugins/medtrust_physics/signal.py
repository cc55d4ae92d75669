"""The spin-echo and inversion-recovery equations: several contrasts of one slice follow from three maps."""

from __future__ import annotations

from typing import Any

import numpy as np

from medtrust import Insufficient, MetricInput, Result
from medtrust.errors import ConfigError
from medtrust.types import ImageRecord
from medtrust_physics.compare import compare

__all__ = ["SignalResidual", "dictionary", "inversion_recovery", "signal_residual", "spin_echo"]

_T1 = np.geomspace(100, 5000, 64)
_T2 = np.geomspace(10, 1000, 64)
_MOST_PIXELS = 4096


def spin_echo(pd: Any, t1: Any, t2: Any, tr: Any, te: Any) -> Any:
    """Signal of a spin-echo sequence; any mix of numbers, arrays and tensors that broadcasts, differentiable.

    Args:
        pd: Proton density, in the unit of the signal.
        t1: Longitudinal relaxation time in ms, above 0.
        t2: Transverse relaxation time in ms, above 0.
        tr: Repetition time in ms.
        te: Echo time in ms.

    Returns:
        pd (1 - exp(-tr/t1)) exp(-te/t2).

    Reference:
        Bernstein, King and Zhou 2004, Handbook of MRI Pulse Sequences, section 14.3.
    """
    return pd * (1 - _exp(-tr / t1)) * _exp(-te / t2)


def inversion_recovery(pd: Any, t1: Any, t2: Any, tr: Any, te: Any, ti: Any) -> Any:
    """Signal of an inversion-recovery spin echo, signed; arguments as for `spin_echo`, and the inversion time in ms.

    Returns:
        pd (1 - 2 exp(-ti/t1) + exp(-tr/t1)) exp(-te/t2).

    Reference:
        Bernstein, King and Zhou 2004, Handbook of MRI Pulse Sequences, section 14.2.
    """
    return pd * (1 - 2 * _exp(-ti / t1) + _exp(-tr / t1)) * _exp(-te / t2)


def _exp(x: Any) -> Any:
    return x.exp() if hasattr(x, "exp") else np.exp(x)


class SignalResidual:
    """Share of the signal that no map of proton density, T1 and T2 explains, of synthetic images against real ones."""

    def compute(self, data: MetricInput) -> Result:
        """Fit each pixel's contrasts; `tr` and `te` of the channels come from [plugins.physics] in medtrust.toml."""
        tr, te = (np.asarray(data.options.get(name, ()), np.float64) for name in ("tr", "te"))
        if tr.ndim != 1 or tr.shape != te.shape:
            raise ConfigError("plugins.physics: tr and te must be lists of one length, in ms, one number per channel")
        if len(tr) < 4:
            raise Insufficient(
                "needs at least 4 contrasts as channels of one image, and their times in medtrust.toml: "
                "[plugins.physics] tr = [500, 4000, …], te = [15, 15, …]"
            )
        entries = dictionary(tr, te)
        return compare(
            data,
            lambda r: signal_residual(r, entries),
            "share",
            "the residual of the signal equation",
            ("residual",),
        )


def dictionary(tr: np.ndarray[Any, Any], te: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Signals of spin echoes at the times [C] in ms, for every T1 and T2 <= T1 of a grid: [entries, C], unit length."""
    t1, t2 = np.meshgrid(_T1, _T2, indexing="ij")
    possible = t2 <= t1
    signals = spin_echo(1.0, t1[possible][:, None], t2[possible][:, None], tr, te)
    unit: np.ndarray[Any, Any] = signals / np.linalg.norm(signals, axis=1, keepdims=True)
    return unit


def signal_residual(record: ImageRecord, entries: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """Fit the contrasts of each pixel by the best entry of a dictionary.

    Args:
        record: An image [C, H, W], one channel per contrast.
        entries: [entries, C] of unit length.

    Returns:
        [1] median over the brighter half of the pixels of |signal - fit| / |signal|; None where the channels are
        others, or the image is empty.
    """
    image = np.asarray(record.pixels, np.float64)
    if image.ndim != 3 or len(image) != entries.shape[1]:
        return None
    pixels = image.reshape(len(image), -1).T
    size = np.linalg.norm(pixels, axis=1)
    bright = np.flatnonzero(size > np.median(size))
    if not len(bright):
        return None
    bright = bright[:: -(-len(bright) // _MOST_PIXELS)]
    unit = pixels[bright] / size[bright, None]
    fitted = np.clip((unit @ entries.T).max(1), 0.0, 1.0)
    return np.array([np.median(np.sqrt(1 - fitted**2))])
