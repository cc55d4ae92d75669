"""What the coordinator wants from the sites, whoever carries it: their signed statements, or one secure sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from medtrust.errors import Insufficient, MedtrustError
from medtrust.secagg.wire import Message, Refused, pack

__all__ = ["Exchange", "Statements", "public_keys"]


class Exchange(Protocol):
    """Questions in stages; `medtrust.secagg.Summation` is one."""

    stage: str | None

    @property
    def waiting(self) -> list[str]:
        """Sites that still owe an answer in this stage."""
        ...

    @property
    def enough(self) -> bool:
        """Whether the stage could end now."""
        ...

    def requests(self) -> dict[str, bytes]:
        """What to ask each site that still owes an answer."""
        ...

    def accept(self, site: str, raw: bytes) -> None:
        """Take an answer, or raise `Refused`."""
        ...

    def advance(self) -> None:
        """End the stage, or raise `Insufficient`."""
        ...


class Statements:
    """Collects the sites' signed statements as opaque bytes.

    Args:
        study: Digest of the study, hexadecimal.
        sites: Names of the sites that the study lists.
        run: 32 hexadecimal digits.
        check: Reads a statement and returns the name of its site; raises a `MedtrustError` that says what is wrong.
        have: Statements that arrived before, by site; they are not asked for again.
        least: Statements without which there is no result.
    """

    def __init__(
        self,
        *,
        study: str,
        sites: list[str],
        run: str,
        check: Callable[[bytes], str],
        have: Mapping[str, bytes],
        least: int = 1,
    ) -> None:
        self.study, self.sites, self.run, self.check, self.least = study, sorted(sites), run, check, least
        self.received = dict(have)
        self.stage: str | None = "statement"

    @property
    def waiting(self) -> list[str]:
        """Sites whose statement has not come."""
        return [site for site in self.sites if self.stage and site not in self.received]

    @property
    def enough(self) -> bool:
        """Whether there could be a result now."""
        return len(self.received) >= self.least

    def requests(self) -> dict[str, bytes]:
        """The question for the statement."""
        return {
            site: pack(Message({"study": self.study, "run": self.run, "stage": "statement", "site": site}))
            for site in self.waiting
        }

    def accept(self, site: str, raw: bytes) -> None:
        """Take a statement.

        Raises:
            Refused: It is malformed, wrongly signed, of another study or of another site.
        """
        if site not in self.waiting:
            raise Refused(site, "sent a message that was not asked for")
        try:
            said = self.check(raw)
        except MedtrustError as error:
            raise Refused(site, str(error)) from error
        if said != site:
            raise Refused(site, f"sent the statement of another site, {said}")
        self.received[site] = raw

    def advance(self) -> None:
        """End the collection.

        Raises:
            Insufficient: No site's statement came.
        """
        if not self.enough:
            raise Insufficient(
                f"{len(self.received)} of at least {self.least} statements came (missing: {', '.join(self.waiting)}); "
                "start the run again when the sites are there: what came is kept"
            )
        self.stage = None


def public_keys(listed: Mapping[str, str]) -> dict[str, Ed25519PublicKey]:
    """Keys of a study as objects that verify.

    Args:
        listed: `ed25519:` and 64 hexadecimal digits, by site.
    """
    return {
        site: Ed25519PublicKey.from_public_bytes(bytes.fromhex(text.removeprefix("ed25519:")))
        for site, text in sorted(listed.items())
    }
