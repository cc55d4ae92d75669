"""What is compared with what: synthetic with train, and real with real at the same size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from medtrust import Insufficient, MetricInput, stats
from medtrust.errors import ConfigError
from medtrust.seeding import derive_seed

__all__ = ["Comparison", "Rows", "compare_features", "compare_rows", "dominance_note", "effect_se"]

_DOMINATED = 0.5  # share of the variance in 1 % of the patients; Gaussians have 0.1 to 0.2

_CONSTANT = 1e-6  # share of its magnitude below which a feature's spread is rounding


@dataclass(frozen=True, slots=True)
class Rows:
    """Numbers describing each image of a set, with the image's patient.

    Args:
        values: [n, d] float64.
        patients: Patient of each row.
    """

    values: torch.Tensor
    patients: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.patients)

    def take(self, rows: torch.Tensor) -> Rows:
        """The rows with these numbers."""
        return Rows(self.values[rows], tuple(self.patients[i] for i in rows.tolist()))

    def first(self, n: int, seed: int) -> Rows:
        """At most n rows, drawn patient by patient."""
        return self if n >= len(self) else self.take(stats.subsample(self.patients, n, len(self), seed))


@dataclass(frozen=True, slots=True)
class Comparison:
    """The sets of one comparison.

    Args:
        train: Real rows, all of them.
        synthetic: Synthetic rows, all of them.
        null_train: Real rows in the role of train when real is compared with real.
        null_other: Real rows of other patients in the role of synthetic.
        reference: Which sets those two are, in words.
        notes: What a reader must know of the comparison.
    """

    train: Rows
    synthetic: Rows
    null_train: Rows
    null_other: Rows
    reference: str
    notes: tuple[str, ...]

    def at_equal_size(self, seed: int) -> Comparison:
        """The same comparison with as many synthetic images as other real ones, and one train set for both."""
        size = min(len(self.synthetic), len(self.null_other))
        return Comparison(
            train=self.null_train,
            synthetic=self.synthetic.first(size, derive_seed(seed, "synthetic")),
            null_train=self.null_train,
            null_other=self.null_other.first(size, derive_seed(seed, "null")),
            reference=self.reference,
            notes=self.notes,
        )


def compare_rows(train: Rows, synthetic: Rows, holdout: Rows | None, seed: int, least: int) -> Comparison:
    """Pair the sets up: with the holdout as the other real set, or with train split by patients where there is none.

    Args:
        train: Real rows.
        synthetic: Synthetic rows.
        holdout: Real rows of other patients, or None.
        seed: Seed of the split.
        least: Patients that a set must have.

    Raises:
        Insufficient: There is no holdout, and half of train has fewer patients than that.
    """
    if holdout is not None:
        notes: tuple[str, ...] = ()
        shared = set(train.patients) & set(holdout.patients)
        if shared:
            notes = (f"{len(shared)} patients are in train and in holdout: the null is too small",)
        return Comparison(train, synthetic, train, holdout, "train against holdout", notes)
    patients = len(set(train.patients))
    if patients < 2 * least:
        raise Insufficient(
            f"without a holdout half of train stands in, so train needs {2 * least} patients; it has {patients}"
        )
    one, other = stats.split_patients(train.patients, len(train), derive_seed(seed, "halves"))
    note = "there is no holdout: the null compares two halves of train, split by patients"
    return Comparison(train, synthetic, train.take(one), train.take(other), "half of train against the other", (note,))


def compare_features(data: MetricInput, least: int) -> Comparison:
    """Compare in a feature space, after putting measured features on a common scale.

    Columns that have names are measurements in units of their own; each is divided by its standard deviation in train,
    so that no unit decides. Columns without names belong to one embedding and stay as they are. The metric's option
    `standardise` (true or false) overrides this.

    Args:
        data: The metric's input, with features.
        least: Patients that a set must have.

    Raises:
        Insufficient: A feature is not finite, or the null cannot be formed.
        ConfigError: The option is neither true nor false.
    """
    sets = {"train": data.train, "synthetic": data.synthetic}
    if data.holdout is not None:
        sets["holdout"] = data.holdout
    for name, one in sets.items():
        broken = int((~one.matrix.isfinite().all(dim=1)).sum())
        if broken:
            raise Insufficient(f"{broken} images of {name} have features that are not finite: look for broken images")
    rows = {name: Rows(one.matrix, one.patients) for name, one in sets.items()}
    features = data.train.features
    standardise = _flag(data.options, "standardise", default=features is not None and bool(features.names))
    notes: tuple[str, ...] = ()
    if standardise:
        scale = _scale([one.values for one in rows.values()])
        rows = {name: Rows(one.values / scale, one.patients) for name, one in rows.items()}
        notes = ("each feature is divided by its standard deviation in train",)
    found = compare_rows(rows["train"], rows["synthetic"], rows.get("holdout"), data.seed, least)
    return Comparison(
        found.train, found.synthetic, found.null_train, found.null_other, found.reference, notes + found.notes
    )


def dominance_note(found: stats.Inference) -> tuple[str, ...]:
    """What a reader must know where a few patients decide how certain a number is."""
    if found.dominance is None or found.dominance < _DOMINATED:
        return ()
    return (
        f"the most influential 1 % of the patients carry {found.dominance:.0%} of the variance of this distance, which "
        f"leaves {found.dof:.0f} degrees of freedom: look at the outlying images, and compare in a feature space with "
        "lighter tails before trusting a bound",
    )


def effect_se(inference: stats.Inference, level: float) -> float:
    """Standard error that an interval stands for, also where the resampled one is 0 at the edge of the possible."""
    half = (inference.interval.hi - inference.interval.lo) / 2
    return max(inference.se, half / stats.t_quantile(level, inference.dof))


def _scale(sets: Sequence[torch.Tensor]) -> torch.Tensor:
    """Standard deviation of each feature in train; of all sets together where train is constant; else 1."""
    scale = _spread(sets[0])
    scale = torch.where(scale > 0, scale, _spread(torch.cat(list(sets))))
    return torch.where(scale > 0, scale, 1.0)


def _spread(x: torch.Tensor) -> torch.Tensor:
    spread = x.std(0)
    return torch.where(spread > _CONSTANT * x.abs().amax(0), spread, 0.0)


def _flag(options: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = options.get(name, default)
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    raise ConfigError(f"the option {name} is {value!r}: give true or false")
