"""A statement: everything that one site reveals in a study, signed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medtrust.errors import ConfigError, SafetyError
from medtrust.federated.checking import complaint
from medtrust.federated.layout import Layout, expected_arrays, to_sums
from medtrust.federated.packing import Arrays, pack, unpack
from medtrust.federated.signing import SigningKey, open_envelope, seal
from medtrust.federated.study import Study

__all__ = ["MOST_BYTES", "Statement"]

MOST_BYTES = 256 << 20
_KIND = "statement"


@dataclass(frozen=True)
class Statement:
    """What a site says; made by `site_statement` or `from_bytes`.

    Args:
        study: Digest of the study.
        site: Name of the site.
        facts: Plain data: counts of patients and images, folds, version of medtrust.
        arrays: Sums by name, see `medtrust.federated.layout`.
        sealed: The signed file.
    """

    study: str
    site: str
    facts: Mapping[str, Any]
    arrays: Arrays
    sealed: bytes

    @classmethod
    def signed(cls, study: Study, site: str, facts: Mapping[str, Any], arrays: Arrays, key: SigningKey) -> Statement:
        """Sign what a site says.

        Raises:
            ConfigError: The key is not the one that the study names for this site.
        """
        if study.keys.get(site) != key.public:
            raise ConfigError(
                f"the study does not name this key for site {site!r}; it knows {', '.join(sorted(study.keys))}"
            )
        payload = pack({"study": study.digest, "site": site, "facts": facts}, arrays)
        return cls(study.digest, site, facts, arrays, seal(payload, kind=_KIND, site=site, study=study.digest, key=key))

    def to_bytes(self) -> bytes:
        """The signed file."""
        return self.sealed

    @classmethod
    def from_bytes(cls, content: bytes, study: Study) -> Statement:
        """Check the signature, then read, then hold what was read against the study.

        Raises:
            SafetyError: Not signed by a site of this study, changed, or not what a site of this study may say; the
                message names the site.
        """
        site, payload = open_envelope(content, kind=_KIND, study=study.digest, keys=study.keys, most=MOST_BYTES)
        header, arrays = unpack(payload, f"the statement of site {site}")
        facts = header.get("facts")
        if header.get("study") != study.digest or header.get("site") != site or not isinstance(facts, dict):
            raise SafetyError(f"the statement of site {site} was refused: its content contradicts its envelope")
        problem = _about_facts(facts) or complaint(
            arrays, expected_arrays(study, facts), noisy=study.privacy is not None
        )
        if problem:
            raise SafetyError(f"the statement of site {site} was refused: {problem}")
        return cls(study.digest, site, facts, arrays, content)

    @property
    def numbers(self) -> int:
        """How many numbers the site reveals."""
        return sum(array.size for array in self.arrays.values())

    def summable(self) -> tuple[Layout, npt.NDArray[np.float64]]:
        """Everything as plain sums around the study's public centre, so that sites can simply be added.

        Returns:
            Names and shapes, equal at all sites of the study, and one float64 vector.

        Raises:
            ConfigError: The study is not one of secure sums: its folds differ from site to site.
        """
        if self.facts["release"] != "sums":
            raise ConfigError('only a study with release = "sums" can be added up: its sites have equal folds')
        return to_sums(self.arrays)


def _about_facts(facts: Mapping[str, Any]) -> str:
    """What is wrong with the facts of a statement; empty if nothing is."""
    for kind in ("patients", "images", "folds"):
        table = facts.get(kind)
        if not isinstance(table, dict) or set(table) != {"train", "holdout"}:
            return f"it does not say how many {kind} train and holdout have"
        if not all(type(value) is int and 1 <= value < 2**53 for value in table.values()):
            return f"its numbers of {kind} are none"
    if not isinstance(facts.get("patients_known"), bool) or not isinstance(facts.get("validity"), dict):
        return "it does not say whether patients are known, or how its feature spaces did"
    for space, each in facts["validity"].items():
        if not (isinstance(each, list) and len(each) == 2 and all(isinstance(v, str) and len(v) < 1000 for v in each)):
            return f"what it says of the space {space[:40]!r} is no status and sentence"
        if each[0] not in ("ok", "failed", "not_run"):
            return f"the status of the space {space[:40]!r} is unknown"
    return ""
