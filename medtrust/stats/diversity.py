"""How many different things are in one set: the Vendi score, and the Inception Score of class probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch

from medtrust.errors import Insufficient
from medtrust.stats.intervals import t_quantile
from medtrust.stats.resampling import Inference, Patients, groups, half_sampling_of
from medtrust.types import Interval

__all__ = ["inception_score", "inception_score_interval", "vendi_interval", "vendi_score"]


def vendi_score(features: torch.Tensor) -> float:
    """Effective number of different rows: the exponential of the entropy of the eigenvalues of K/n, with K the cosines.

    Args:
        features: [n, d] of any float type. Rows of length 0 count as alike, and as unlike all others.

    Returns:
        From 1, all rows point the same way, to n, all are orthogonal; higher is more diverse.

    Raises:
        Insufficient: No row, or a value that is not finite.

    Reference:
        Friedman and Dieng 2023, arXiv:2210.02410 (order 1, cosine kernel).
    """
    x = _finite(features)
    norms = x.norm(dim=1, keepdim=True)
    unit = torch.cat([x / torch.where(norms > 0, norms, 1), (norms == 0).double()], dim=1)
    gram = unit @ unit.T if len(unit) <= unit.shape[1] else unit.T @ unit
    shares = torch.linalg.eigvalsh(gram / len(unit)).clamp_min(0)
    shares = shares / shares.sum()
    return math.exp(float(torch.special.entr(shares).sum()))


def vendi_interval(
    features: torch.Tensor, patients: Patients = None, *, level: float = 0.95, seed: int = 0, splits: int = 24
) -> Inference:
    """Vendi score with an interval for its expectation at this sample size, on which it depends.

    Args:
        features: [n, d].
        patients: Patient of each row; None where each row is its own.
        level: Confidence level.
        seed: Seed of the splits.
        splits: Number of random splits into halves by patient; the degrees of freedom of t.

    Raises:
        Insufficient: Fewer than four patients, or a value that is not finite.
    """
    x = _finite(features)
    return _on_log_scale(
        lambda rows: math.log(vendi_score(x[rows])), x, patients, "the Vendi score", level, seed, splits
    )


def inception_score(logits: torch.Tensor, *, splits: int = 1, shuffle_seed: int | None = None) -> float:
    """Inception Score: the exponential of the mean Kullback-Leibler divergence of p(class | image) from p(class).

    Args:
        logits: [n, classes], unnormalised log-probabilities.
        splits: Contiguous parts whose scores are averaged; 10 in the original and in torch-fidelity, 1 for all at once.
        shuffle_seed: Order the rows by `RandomState(seed).permutation(n)` first, as torch-fidelity does with 2020.

    Returns:
        From 1, the classes are alike for every image, to the number of classes; higher is sharper and more varied.

    Raises:
        Insufficient: Fewer rows than splits, or a value that is not finite.

    Reference:
        Salimans et al. 2016, arXiv:1606.03498.
    """
    x = _finite(logits)
    if len(x) < splits:
        raise Insufficient(f"needs {splits} images for {splits} splits, there are {len(x)}")
    if shuffle_seed is not None:
        x = x[torch.from_numpy(np.random.RandomState(shuffle_seed).permutation(len(x)))]
    edges = [i * len(x) // splits for i in range(splits + 1)]
    return float(np.mean([math.exp(_information(x[i:j])) for i, j in pairwise(edges)]))


def inception_score_interval(
    logits: torch.Tensor, patients: Patients = None, *, level: float = 0.95, seed: int = 0, splits: int = 24
) -> Inference:
    """Inception Score of all rows with an interval for its expectation at this sample size, on which it depends.

    Args:
        logits: [n, classes].
        patients: Patient of each row; None where each row is its own.
        level: Confidence level.
        seed: Seed of the splits into halves by patient.
        splits: Number of those splits; the degrees of freedom of t.

    Raises:
        Insufficient: Fewer than four patients, or a value that is not finite.
    """
    x = _finite(logits)
    return _on_log_scale(lambda rows: _information(x[rows]), x, patients, "the Inception Score", level, seed, splits)


def _information(logits: torch.Tensor) -> float:
    """Mean Kullback-Leibler divergence from the marginal, in nats."""
    log_p = torch.log_softmax(logits, dim=1)
    p = log_p.exp()
    marginal = p.mean(0)
    return max(0.0, float((p * log_p).sum(1).mean() + torch.special.entr(marginal).sum()))


def _on_log_scale(
    log_score: Callable[[torch.Tensor], float],
    x: torch.Tensor,
    patients: Patients,
    name: str,
    level: float,
    seed: int,
    splits: int,
) -> Inference:
    """Interval of a score that is at least 1, symmetric in its logarithm."""
    units = groups(patients, len(x))[1]
    if units < 4:
        raise Insufficient(f"needs 4 patients in a set for an interval of {name}, a set has {units}")
    whole = log_score(torch.arange(len(x)))
    _, errors = half_sampling_of(lambda rows: (log_score(rows),), (patients,), (len(x),), splits=splits, seed=seed)
    reach = t_quantile(level, splits) * float(errors[0])
    value = math.exp(whole)
    interval = Interval(
        math.exp(max(0.0, whole - reach)), math.exp(whole + reach), level, "delete-half t of the logarithm", units
    )
    return Inference(value=value, plug_in=value, se=value * float(errors[0]), interval=interval, dof=splits)


def _finite(x: torch.Tensor) -> torch.Tensor:
    x = x.double()
    if len(x) == 0 or not bool(x.isfinite().all()):
        raise Insufficient(
            "the features are empty or hold values that are not finite: look for broken images or a failing extractor"
        )
    return x
