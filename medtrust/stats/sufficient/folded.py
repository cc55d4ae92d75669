"""Inference from sums alone: leave out one fold of patients at a time, site by site."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

import torch

from medtrust.errors import Insufficient

__all__ = ["FEWEST_SITES", "Folds", "Jackknifed", "jackknife"]

FEWEST_SITES = 5  # that can stand in for folds


class Counted(Protocol):
    """A statistic that says of how many patients it is, and can count more or less than once."""

    @property
    def units(self) -> float:
        """Patients."""

    def weighted(self, weight: float) -> Self:
        """The same as if each patient were there `weight` times."""


Part = TypeVar("Part", bound=Counted)


@dataclass(frozen=True, slots=True)
class Folds(Generic[Part]):
    """One set's statistics by site and, within a site, by folds that share no patient.

    Args:
        sites: Per site in a fixed order, its folds.
        names: Name of each site.
    """

    sites: tuple[tuple[Part, ...], ...]
    names: tuple[str, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """All folds of all sites, in order."""
        return tuple(part for site in self.sites for part in site)

    @property
    def units(self) -> int:
        """Patients."""
        return round(sum(part.units for part in self.parts))

    def only(self, name: str) -> Folds[Part]:
        """One site."""
        return Folds((self.sites[self.names.index(name)],), (name,))

    def without(self, name: str) -> Folds[Part]:
        """All sites but one."""
        kept = [i for i, each in enumerate(self.names) if each != name]
        return Folds(tuple(self.sites[i] for i in kept), tuple(self.names[i] for i in kept))

    def strata(self) -> tuple[str, list[list[frozenset[int]]]]:
        """What can be left out, by number of part: folds within each site that has two, else whole sites.

        Raises:
            Insufficient: No site has two folds, and there are fewer than five sites.
        """
        numbers: list[list[int]] = []
        for site in self.sites:
            start = sum(map(len, numbers))
            numbers.append(list(range(start, start + len(site))))
        if any(len(site) > 1 for site in numbers):
            return "fold", [[frozenset([i]) for i in site] for site in numbers if len(site) > 1]
        if len(numbers) < FEWEST_SITES:
            raise Insufficient(
                f"no site has two folds of patients, and {len(numbers)} are too few sites to stand in for folds (it "
                f"takes {FEWEST_SITES}): let sites bring more patients, or agree on a smaller dimension"
            )
        return "site", [[frozenset(site) for site in numbers]]


@dataclass(frozen=True, slots=True)
class Jackknifed:
    """What leaving out folds says of S statistics.

    Args:
        value: [S] the statistics of everything.
        bias: [S] estimated bias, as of a statistic whose bias falls like one over the number of patients; by site, the
            differences between sites are in it too.
        se: [S] standard errors.
        dof: Degrees of freedom behind that of the first.
        by: "fold", or "site" where whole sites were left out of a set.
    """

    value: torch.Tensor
    bias: torch.Tensor
    se: torch.Tensor
    dof: float
    by: str


def jackknife(sets: Sequence[Folds[Part]], statistic: Callable[..., Sequence[float]]) -> Jackknifed:
    """Leave out each fold of each set in turn.

    Sites are strata: when a fold is left out, the other folds of its site stand in for it, so that differences between
    sites, which another draw of patients would show again, pass neither for sampling error nor for bias. A site with
    one fold borrows from the others, patient for patient. Where every site of a set has one fold, whole sites are left
    out: that counts the differences between sites as error and so errs on the safe side.

    Args:
        sets: Independent sets.
        statistic: Maps one list of parts per set to one or more numbers.

    Raises:
        Insufficient: A set has neither a site of two folds nor five sites.

    Reference:
        Jones 1974, doi:10.1093/biomet/61.2.343 (stratified jackknife); Satterthwaite 1946, doi:10.2307/3002019.
    """
    everything = [list(each.parts) for each in sets]
    value = _vector(statistic(*everything))
    bias, variance, spent = torch.zeros_like(value), torch.zeros_like(value), torch.zeros_like(value)
    modes = []
    for k, folds in enumerate(sets):
        mode, strata = folds.strata()
        modes.append(mode)
        total = folds.units
        seen = sum(everything[k][i].units for stratum in strata for out in stratum for i in out)
        for stratum in strata:
            sizes = [sum(everything[k][i].units for i in out) for out in stratum]
            whole = sum(sizes)
            left = torch.stack(
                [_vector(statistic(*kept)) for kept in _left_out(everything, k, stratum, mode == "fold")]
            )
            dof = len(stratum) - 1
            part = dof / len(stratum) * (left - left.mean(0)).square().sum(0) * (total / seen)
            variance, spent = variance + part, spent + part.square() / dof
            share = sum(size / (whole - size) for size in sizes)
            bias = bias + (left - value).sum(0) / share * (total / seen)
    first, of_first = float(variance[0]), float(spent[0])
    spread_dof = max(1.0, first**2 / of_first) if of_first > 0 else 1.0
    return Jackknifed(value, bias, variance.sqrt(), spread_dof, "site" if "site" in modes else "fold")


def _left_out(
    everything: list[list[Part]], k: int, stratum: Sequence[frozenset[int]], replaced: bool
) -> Iterator[list[list[Part]]]:
    """Everything without each member of a stratum in turn, whose others are raised to its weight where `replaced`."""
    members = frozenset().union(*stratum)
    whole = sum(everything[k][i].units for i in members)
    for out in stratum:
        weight = whole / (whole - sum(everything[k][i].units for i in out)) if replaced else 1.0
        kept = [
            part.weighted(weight) if replaced and i in members else part
            for i, part in enumerate(everything[k])
            if i not in out
        ]
        yield [*everything[:k], kept, *everything[k + 1 :]]


def _vector(values: Sequence[float]) -> torch.Tensor:
    return torch.tensor([float(v) for v in values], dtype=torch.float64)
