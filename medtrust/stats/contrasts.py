"""How much further is one set than another from a third: as a ratio of Fréchet distances, and as a difference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from medtrust.errors import Insufficient
from medtrust.stats.frechet import Factored, frechet_distance
from medtrust.stats.influence import dominance, frechet_influence, jackknife_influence, known_error
from medtrust.stats.intervals import t_quantile
from medtrust.stats.kernel_sums import KernelSums
from medtrust.stats.kernels import Kernel
from medtrust.stats.resampling import Inference, Patients, groups, half_sampling_of
from medtrust.types import Interval

__all__ = ["frechet_excess", "frechet_ratio", "mmd_excess"]

_TINY = 1e-12  # of the whole set's distance: what a half set's distance counts as, at least, in a logarithm
_WIDEST = 600.0  # logarithm that exp can still take
_SPLITS = 16
Three = Sequence[torch.Tensor]
Owners = Sequence[Patients]
Distance = Callable[[torch.Tensor, torch.Tensor, Patients, Patients], float]


def frechet_ratio(
    sets: Three, patients: Owners = (None, None, None), *, level: float = 0.95, seed: int = 0, splits: int = _SPLITS
) -> Inference:
    """FD(reference, first) / FD(reference, second), plug-ins at the sizes given.

    What the interval is for is the ratio that sets of these sizes have on average (in the logarithm, in which it is
    symmetric): the biases of both distances are part of it.

    Args:
        sets: Features of the reference, the first and the second set, [n, d] each.
        patients: Patient of each row of each set; None where each row is its own.
        level: Confidence level.
        seed: Seed of the splits.
        splits: Complementary halves; the degrees of freedom of t are fewer.

    Returns:
        `value` and `plug_in` are the ratio, `se` is that of its logarithm.

    Raises:
        Insufficient: A distance is 0, or a set has fewer than two patients.
    """
    reference, first, second = (x.double() for x in sets)
    whole = [frechet_distance(reference, one) for one in (first, second)]
    if min(whole) <= 0:
        raise Insufficient(
            "a set has exactly the mean and covariance of train, so the ratio of distances has no value: the features "
            "are constant, or images were copied"
        )

    def apart(i: torch.Tensor, j: torch.Tensor, k: torch.Tensor) -> tuple[float, float]:
        rows = Factored.of(reference[i])
        near, far = (
            max(frechet_distance(rows, one[half]) / distance, _TINY)
            for one, half, distance in zip((first, second), (j, k), whole, strict=True)
        )
        return math.log(near / far), near - far

    _, errors = half_sampling_of(apart, patients, [len(x) for x in sets], splits=splits, seed=seed)
    (of_ref, of_first), (of_ref_too, of_second) = (
        [part / distance for part in frechet_influence(reference, one, patients[0], own)]
        for one, own, distance in zip((first, second), patients[1:], whole, strict=True)
    )
    influences = (of_ref - of_ref_too, of_first, of_second)
    # Where the populations are equal, halves have twice the distance: their logarithm varies √2 too little, their share
    # of the whole √2 too much. Where they are far apart both are right; so the geometric mean is right at either end.
    se = math.sqrt(float(errors[0]) * float(errors[1]))
    _, dof = known_error(se, splits, *influences)
    value, reach = math.log(whole[0] / whole[1]), min(t_quantile(level, dof) * se, _WIDEST)
    method = "delete-half t of the logarithm, degrees of freedom from influences"
    interval = Interval(math.exp(value - reach), math.exp(value + reach), level, method, _units(sets, patients))
    ratio = math.exp(value)
    return Inference(
        value=ratio, plug_in=ratio, se=se, interval=interval, dof=dof, dominance=dominance(*influences)
    )  # fmt: skip


def frechet_excess(
    sets: Three, patients: Owners = (None, None, None), *, level: float = 0.95, seed: int = 0, splits: int = _SPLITS
) -> Inference:
    """FD(first, reference) - FD(second, reference), plug-ins, whose biases cancel where first and second are alike.

    Args:
        sets: Features of the reference, the first and the second set, [n, d] each.
        patients: Patient of each row of each set; None where each row is its own.
        level: Confidence level.
        seed: Seed of the splits.
        splits: Complementary halves; the degrees of freedom of t are fewer.

    Raises:
        Insufficient: A set has fewer than two patients.
    """
    reference, first, second = (x.double() for x in sets)
    (of_ref, of_first), (of_ref_too, of_second) = (
        frechet_influence(reference, one, patients[0], own)
        for one, own in zip((first, second), patients[1:], strict=True)
    )

    def distance(a: torch.Tensor, b: torch.Tensor, of_a: Patients, of_b: Patients) -> float:
        return frechet_distance(a, b)

    influences = (of_ref - of_ref_too, of_first, -of_second)
    return _difference((reference, first, second), patients, distance, influences, level, seed, splits)


def mmd_excess(
    sets: Three,
    patients: Owners = (None, None, None),
    *,
    kernel: Kernel,
    level: float = 0.95,
    seed: int = 0,
    splits: int = _SPLITS,
) -> Inference:
    """MMD²(first, reference) - MMD²(second, reference), both unbiased.

    Args:
        sets: Features of the reference, the first and the second set, [n, d] each.
        patients: Patient of each row of each set; None where each row is its own.
        kernel: Maps rows [n, d] and [m, d] to kernel values [n, m].
        level: Confidence level.
        seed: Seed of the splits.
        splits: Complementary halves; the degrees of freedom of t are fewer.

    Raises:
        Insufficient: A set has fewer than four patients.
    """
    reference, first, second = (x.double() for x in sets)
    least = _units(sets, patients)
    if least < 4:
        raise Insufficient(f"needs 4 patients in each set for a difference of kernel distances, a set has {least}")
    sums = [
        KernelSums.of(reference, one, patients[0], own, kernel)
        for one, own in zip((first, second), patients[1:], strict=True)
    ]
    of_ref = jackknife_influence(sums[0].without_each_of_a() - sums[1].without_each_of_a())
    influences = (of_ref, *(jackknife_influence(one.without_each_of_b()) for one in sums))

    def distance(a: torch.Tensor, b: torch.Tensor, of_a: Patients, of_b: Patients) -> float:
        return KernelSums.of(a, b, of_a, of_b, kernel).estimate()

    return _difference((reference, first, second), patients, distance, influences, level, seed, splits)


def _difference(
    sets: Three, patients: Owners, distance: Distance, influences: Sequence[torch.Tensor], level: float, seed: int,
    splits: int,
) -> Inference:  # fmt: skip
    def on_rows(*rows: torch.Tensor) -> tuple[float]:
        parts = [x[i] for x, i in zip(sets, rows, strict=True)]
        own = [None if p is None else [p[k] for k in i.tolist()] for p, i in zip(patients, rows, strict=True)]
        apart = [distance(parts[k], parts[0], own[k], own[0]) for k in (1, 2)]
        return (apart[0] - apart[1],)

    value = on_rows(*(torch.arange(len(x)) for x in sets))[0]
    _, errors = half_sampling_of(on_rows, patients, [len(x) for x in sets], splits=splits, seed=seed)
    se, dof = known_error(float(errors[0]), splits, *influences)
    reach = t_quantile(level, dof) * se
    interval = Interval(
        value - reach, value + reach, level, "delete-half and influence t", _units(sets, patients)
    )  # fmt: skip
    return Inference(
        value=value, plug_in=value, se=se, interval=interval, dof=dof, dominance=dominance(*influences)
    )  # fmt: skip


def _units(sets: Three, patients: Owners) -> int:
    return min(groups(own, len(x))[1] for x, own in zip(sets, patients, strict=True))
