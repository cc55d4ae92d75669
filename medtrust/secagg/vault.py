"""What a site keeps on its own disk during a secure sum, so that a killed process goes on where it was.

It also holds the one promise that a site makes across runs: its vector is unmasked in one group of sites only. Two sums
that differ by one site would give that site's vector away by subtraction.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from medtrust.errors import DataError
from medtrust.writing import write_atomically

__all__ = ["RunState", "Vault"]

_PRIVATE = 0o600


@dataclass
class RunState:
    """One run as one site sees it; bytes are kept as hexadecimal digits.

    Args:
        vector: Digest of the vector that the run began with.
        asked: Stage to digest of the coordinator's request.
        replies: Stage to the signed reply.
        secrets: Own private keys and seed; emptied when the unmasking shares have left.
        received: Site to the shares it entrusted to us; emptied likewise.
        participants: Sites that sent keys, sorted; a site's place is its share's abscissa.
        public: Site to its two public keys.
        sharing: Sites whose shares we hold, sorted.
        survivors: Sites whose vectors are in the sum, sorted.
    """

    vector: str
    asked: dict[str, str] = field(default_factory=dict)
    replies: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    received: dict[str, dict[str, str]] = field(default_factory=dict)
    participants: list[str] = field(default_factory=list)
    public: dict[str, dict[str, str]] = field(default_factory=dict)
    sharing: list[str] = field(default_factory=list)
    survivors: list[str] = field(default_factory=list)


class Vault:
    """The private folder of one site.

    Args:
        folder: Where to keep state; files are readable by the user alone.
        study: Digest of the study, hexadecimal.
    """

    def __init__(self, folder: Path, study: str) -> None:
        self.folder, self.study = folder, study

    def load(self, run: str) -> RunState | None:
        """State of a run, None when it has not begun here.

        Raises:
            DataError: The file is damaged.
        """
        path = self._run(run)
        if not path.exists():
            return None
        try:
            return RunState(**json.loads(path.read_bytes()))
        except (ValueError, TypeError) as error:
            raise DataError(f"{path} is damaged ({error}); the run cannot be resumed here: start a new one") from error

    def save(self, run: str, state: RunState) -> None:
        """Write the state of a run before the reply leaves."""
        write_atomically(self._run(run), json.dumps(asdict(state), sort_keys=True).encode(), mode=_PRIVATE)

    def promise(self, survivors: list[str], vector: str) -> str | None:
        """Record in which group this site's vector is unmasked.

        Args:
            survivors: Sites in the sum, sorted.
            vector: Digest of this site's vector.

        Returns:
            None, or why it must not be: another group was promised before.
        """
        path = self.folder / f"unmasked-{self.study[:16]}.json"
        wanted = {"study": self.study, "survivors": survivors, "vector": vector}
        if not path.exists():
            write_atomically(path, json.dumps(wanted, sort_keys=True).encode(), mode=_PRIVATE)
            return None
        try:
            before = json.loads(path.read_bytes())
            if before == wanted:
                return None
            group = ", ".join(before["survivors"])
        except (ValueError, TypeError, KeyError) as error:
            return f"the record {path} of what this site revealed is damaged ({error}); a new study is needed"
        return (
            f"in this study this site was already part of the sum over {group}; a second sum over another group, or of "
            "another vector, would give single sites away by subtraction. Agree on a new study (another name) instead"
        )

    def _run(self, run: str) -> Path:
        return self.folder / f"run-{run}.json"
