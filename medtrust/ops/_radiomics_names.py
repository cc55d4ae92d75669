"""The columns of `ops.radiomics`, in the order in which the kernels write them, and its grey levels."""

from __future__ import annotations

import math
from collections.abc import Sequence

from medtrust.errors import DataError

__all__ = ["FAMILIES", "levels_of", "names_of"]

MOST_LEVELS = 256  # csrc/radiomics.h: kMaxLevels

_BY_SIZE = (
    "{small}_{size}_emphasis",
    "{large}_{size}_emphasis",
    "low_grey_level_emphasis",
    "high_grey_level_emphasis",
    "{small}_{size}_low_grey_level_emphasis",
    "{small}_{size}_high_grey_level_emphasis",
    "{large}_{size}_low_grey_level_emphasis",
    "{large}_{size}_high_grey_level_emphasis",
    "grey_level_non_uniformity",
    "normalised_grey_level_non_uniformity",
    "{size}_non_uniformity",
    "normalised_{size}_non_uniformity",
    "{thirteenth}",
    "grey_level_variance",
    "{size}_variance",
    "{size}_entropy",
)


def _by_size(small: str, large: str, size: str, thirteenth: str) -> tuple[str, ...]:
    return tuple(name.format(small=small, large=large, size=size, thirteenth=thirteenth) for name in _BY_SIZE)


FAMILIES: dict[str, tuple[str, ...]] = {
    "firstorder": (
        "mean",
        "variance",
        "skewness",
        "excess_kurtosis",
        "median",
        "minimum",
        "p10",
        "p90",
        "maximum",
        "interquartile_range",
        "range",
        "mean_absolute_deviation",
        "robust_mean_absolute_deviation",
        "median_absolute_deviation",
        "coefficient_of_variation",
        "quartile_coefficient_of_dispersion",
        "energy",
        "root_mean_square",
        "entropy",
        "uniformity",
    ),
    "glcm": (
        "joint_maximum",
        "joint_average",
        "joint_variance",
        "joint_entropy",
        "difference_average",
        "difference_variance",
        "difference_entropy",
        "sum_average",
        "sum_variance",
        "sum_entropy",
        "angular_second_moment",
        "contrast",
        "dissimilarity",
        "inverse_difference",
        "normalised_inverse_difference",
        "inverse_difference_moment",
        "normalised_inverse_difference_moment",
        "inverse_variance",
        "correlation",
        "autocorrelation",
        "cluster_tendency",
        "cluster_shade",
        "cluster_prominence",
        "information_correlation_1",
        "information_correlation_2",
    ),
    "glrlm": _by_size("short", "long", "run", "run_percentage"),
    "glszm": _by_size("small", "large", "zone", "zone_percentage"),
    "ngtdm": ("coarseness", "contrast", "busyness", "complexity", "strength"),
    "gldm": _by_size("low", "high", "dependence", "dependence_energy"),
}


def names_of(families: Sequence[str], channels: int) -> tuple[str, ...]:
    """Column names, such as `glcm.contrast`, or `channel1.glcm.contrast` where there are several channels.

    Args:
        families: Keys of FAMILIES, in its order.
        channels: Number of channels, at least 1.

    Returns:
        One name per column.
    """
    plain = tuple(f"{family}.{feature}" for family in families for feature in FAMILIES[family])
    if channels == 1:
        return plain
    return tuple(f"channel{channel}.{name}" for channel in range(channels) for name in plain)


def levels_of(lo: float, hi: float, bins: int | None, width: float | None) -> tuple[int, float, float]:
    """Number of levels, and the numbers by which x - lo is multiplied and divided to give a level.

    Args:
        lo: Lower end of the range.
        hi: Upper end, above lo.
        bins: Number of levels, or None.
        width: Size of a level, or None; without either there are 32 levels.

    Returns:
        Levels, factor and divisor.

    Raises:
        DataError: Both are given, or one is out of its range.
    """
    if bins is not None and width is not None:
        raise DataError("ops.radiomics: both bins and width are given; choose a bin number or a bin size")
    if width is None:
        count = 32 if bins is None else bins
        if not 1 <= count <= MOST_LEVELS:
            raise DataError(f"ops.radiomics: bins is {count}; give 1 to {MOST_LEVELS}")
        return count, float(count), float(hi) - float(lo)
    if not (math.isfinite(width) and width > 0):
        raise DataError(f"ops.radiomics: width is {width}; give a finite bin size above zero")
    count = max(1, math.ceil(round((hi - lo) / width, 9)))  # 0.3 / 0.1 is 3 bins, whatever the last bit says
    if count > MOST_LEVELS:
        raise DataError(
            f"ops.radiomics: width {width} cuts {lo} to {hi} into {count} levels; the most are {MOST_LEVELS}, "
            "give a larger width"
        )
    return count, 1.0, float(width)
