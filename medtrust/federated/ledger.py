"""What a site has already revealed, so that two queries cannot be subtracted to leave a few patients."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from medtrust.errors import DataError, SafetyError
from medtrust.federated.rules import Rules
from medtrust.writing import write_atomically

__all__ = ["Ledger"]

_FORMAT = "medtrust.ledger/1"
Groups = Mapping[str, Sequence[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Ledger:
    """A file that stays at the site; patients are in it as keyed fingerprints.

    Args:
        path: Where it lies; it is made with the first statement.
    """

    path: Path

    def refuse_repetition(self, study: str, groups: Groups, rules: Rules, *, numbers: int, held: int) -> None:
        """Hold a statement against all earlier ones before it leaves.

        Args:
            study: Digest of the study that asks.
            groups: Fingerprints of the patients by set and fold, see `fingerprints`.
            rules: Rules of the study.
            numbers: Numbers that the statement would reveal.
            held: Numbers in the features that all statements speak of.

        Raises:
            SafetyError: A set or fold differs from an earlier one by some patients, but fewer than the rule allows, or
                the statements together reveal more than half as many numbers as the features hold.
        """
        revealed = numbers
        for entry in self.entries():
            if entry["study"] == study and entry["groups"] == {
                name: [list(f) for f in g] for name, g in groups.items()
            }:
                continue  # the same question about the same patients: the same answer
            revealed += int(entry["numbers"])
            for name, folds in groups.items():
                self._compare(name, folds, entry, rules)
        if revealed > held / 2 and revealed > numbers:
            raise SafetyError(
                f"this statement was refused: with it the site would have revealed {revealed} numbers about "
                f"features that "
                f"hold {held}, more than half; too many studies have asked about these patients ({self.path} "
                f"lists them)"
            )

    def _compare(self, name: str, folds: Sequence[Sequence[str]], entry: Mapping[str, Any], rules: Rules) -> None:
        earlier = entry["groups"].get(name, [])
        now, before = ([set().union(*map(set, each)), *map(set, each)] for each in (folds, earlier))
        for a, b in product(now, before):
            differ = len(a ^ b)
            if 0 < differ < rules.difference:
                raise SafetyError(
                    f"this statement was refused: {name} or a fold of it differs from what study "
                    f"{entry['study'][:12]}… "
                    f"was told by {differ} patients, and the rule `difference` asks for 0 or at least "
                    f"{rules.difference}: "
                    "subtracting the two would reveal those few. Send the same data again, or wait for more patients"
                )

    def record(self, study: str, groups: Groups, *, numbers: int, sha256: str) -> None:
        """Write down what has been revealed; the same statement twice is one entry."""
        entries = self.entries()
        entry = {
            "study": study, "sha256": sha256, "numbers": numbers,
            "groups": {name: [list(fold) for fold in folds] for name, folds in groups.items()},
        }  # fmt: skip
        if entry not in entries:
            content = {"format": _FORMAT, "statements": [*entries, entry]}
            write_atomically(self.path, (json.dumps(content, indent=1) + "\n").encode())

    def entries(self) -> list[dict[str, Any]]:
        """Earlier statements.

        Raises:
            DataError: The file is damaged; nothing may be revealed until it is mended.
        """
        if not self.path.exists():
            return []
        try:
            content = json.loads(self.path.read_text("utf-8"))
            if content["format"] != _FORMAT:
                raise ValueError(f"format {content['format']!r}")
            entries: list[dict[str, Any]] = content["statements"]
            for entry in entries:
                int(entry["numbers"]), entry["study"][:12], entry["groups"].items()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"the ledger {self.path} cannot be read ({error}); without it nobody knows what this site has "
                f"revealed: "
                "restore it from a copy"
            ) from error
        return entries
