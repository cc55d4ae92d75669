"""Disclosure rules: what a site must be before it may reveal sums, and the refusals that name the rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from medtrust.errors import ConfigError, SafetyError

__all__ = ["Rules"]


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a study; the defaults are the least that a study may ask without saying why.

    Args:
        patients: Real patients a site must have.
        rows_per_dimension: Images per dimension that every group must have whose covariance is revealed.
        fold_patients: Patients that every fold must have.
        cell: Patients that a count must be of before it is revealed.
        difference: Patients by which two queries about one site must differ, unless they ask for the same.
        lowered: Why rules are below their defaults; empty where none is.
    """

    patients: int = 100
    rows_per_dimension: int = 2
    fold_patients: int = 20
    cell: int = 5
    difference: int = 20
    lowered: str = ""

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Rules:
        """Read rules from a study.

        Raises:
            ConfigError: An unknown rule, or one below its default without a reason in `lowered`.
        """
        known = {field.name for field in fields(cls)}
        for name, value in given.items():
            kind = str if name == "lowered" else int
            if name not in known or type(value) is not kind or (isinstance(value, int) and value < 1):
                raise ConfigError(
                    f"rules.{name} = {value!r}: the rules are {', '.join(sorted(known))}, whole numbers from 1"
                )
        rules = cls(**given)
        if rules.below() and not rules.lowered.strip():
            raise ConfigError(
                f"the rules {', '.join(rules.below())} are below medtrust's own; a study that lowers a rule says why, "
                'for every site to read: lowered = "…"'
            )
        return rules

    def below(self) -> tuple[str, ...]:
        """Rules that this study has lowered."""
        mine: dict[str, Any] = asdict(self)
        least: dict[str, Any] = asdict(Rules())
        return tuple(name for name in mine if name != "lowered" and mine[name] < least[name])

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def refuse_small_site(self, site: str, patients: int) -> None:
        """Hold a site to the rule `patients`.

        Raises:
            SafetyError: It has fewer.
        """
        if patients < self.patients:
            raise SafetyError(
                f"site {site} reveals nothing: it has {patients} patients, and the rule `patients` asks for "
                f"{self.patients}. Join with another site, or wait for more patients"
            )

    def refuse_few_rows(self, site: str, name: str, rows: int, dim: int, space: str) -> None:
        """Hold a set to the rule `rows_per_dimension`.

        Raises:
            SafetyError: It has fewer images.
        """
        needed = self.rows_per_dimension * dim
        if rows < needed:
            raise SafetyError(
                f"site {site} reveals no covariance of {name}: it has {rows} images, and the rule `rows_per_dimension` "
                f"asks for {self.rows_per_dimension} x {dim} = {needed} in the space {space}, since from fewer a "
                "covariance tells too much of each. Bring more images, or agree on a study with a smaller dimension"
            )

    def folds(self, patients: int, rows: int, dim: int, most: int) -> int:
        """Number of folds of a set in which every fold keeps the rules, at least one."""
        by_rows = rows // (self.rows_per_dimension * dim) if dim else most
        return max(1, min(most, patients // self.fold_patients, by_rows))
