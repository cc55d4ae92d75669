"""The coordinator's side of a secure sum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from numpy.typing import NDArray

from medtrust.errors import DataError, Insufficient
from medtrust.secagg import crypto, fixed
from medtrust.secagg.participant import commitment, pair_purpose
from medtrust.secagg.rules import MINIMUM_SITES, STAGES, threshold
from medtrust.secagg.wire import Message, Refused, pack, unpack

__all__ = ["Summation"]


class Summation:
    """Asks the sites stage by stage and ends with the sum of those that stayed.

    Use: while `stage` is not None, send `requests()`, give each reply to `accept`, then `advance()`.

    Args:
        study: Digest of the study, hexadecimal.
        keys: Every site's public key, as the study lists them.
        run: 32 hexadecimal digits, never used before.
        minimum: Least number of sites in a sum, at least 3; more than two thirds of the study's when not given.

    Raises:
        Insufficient: The study lists fewer sites than that.
    """

    def __init__(
        self, *, study: str, keys: Mapping[str, Ed25519PublicKey], run: str, minimum: int | None = None
    ) -> None:
        self.minimum = max(threshold(len(keys)) if minimum is None else minimum, MINIMUM_SITES)
        if len(keys) < self.minimum:
            raise Insufficient(f"a secure sum needs {self.minimum} sites; the study lists {len(keys)}")
        self.study, self.keys, self.run = study, dict(keys), run
        self.stage: str | None = STAGES[0]
        self.expected = sorted(keys)
        self.needed = self.minimum
        self.replies: dict[str, dict[str, Message]] = {stage: {} for stage in STAGES}
        self.raw: dict[str, dict[str, bytes]] = {stage: {} for stage in STAGES}
        self.vector: NDArray[np.float64] | None = None

    @property
    def waiting(self) -> list[str]:
        """Sites that still owe an answer in this stage."""
        return [site for site in self.expected if self.stage and site not in self.replies[self.stage]]

    @property
    def enough(self) -> bool:
        """Whether the stage could end now without losing the sum."""
        return self.stage is not None and len(self.replies[self.stage]) >= self.needed

    @property
    def sites(self) -> list[str]:
        """Sites whose vectors are in the sum."""
        return sorted(self.replies["masked"])

    @property
    def layout(self) -> bytes:
        """What the entries of the sum mean."""
        return next(iter(self.replies["keys"].values())).body

    def requests(self) -> dict[str, bytes]:
        """What to send to each site that still owes an answer."""
        return {site: self._request(site) for site in self.waiting}

    def accept(self, site: str, raw: bytes) -> None:
        """Take one reply.

        Args:
            site: Who sent it.
            raw: The bytes.

        Raises:
            Refused: Not asked, malformed, wrongly signed, or not an answer to this stage's question.
        """
        if self.stage is None or site not in self.waiting:
            raise Refused(site, f"sent a message that was not asked for at the stage {self.stage}")
        message = unpack(raw, site, self.keys[site])
        expected = {"study": self.study, "run": self.run, "stage": self.stage, "site": site}
        if {name: message.header.get(name) for name in expected} != expected:
            raise Refused(site, f"answers another question than {self.stage} of this run")
        try:
            self._check(site, message)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Refused(site, f"malformed answer to {self.stage} ({error!r})") from error
        self.replies[self.stage][site], self.raw[self.stage][site] = message, raw

    def advance(self) -> None:
        """End the stage with the answers that came.

        Raises:
            Insufficient: Too few sites are left for a sum that hides each of them.
            DataError: The sites disagree on what they add, or a site's shares are wrong.
        """
        if self.stage is None:
            return
        answered = sorted(self.replies[self.stage])
        if len(answered) < self.needed:
            gone = ", ".join(self.waiting)
            raise Insufficient(
                f"{len(answered)} of the {self.needed} sites that a secure sum needs answered the stage {self.stage} "
                f"(missing: {gone}); nothing was revealed. Start the run again when they are there"
            )
        if self.stage == "keys":
            self._same_layout()
            self.needed = threshold(len(answered), self.minimum)
            if len(answered) < self.needed:
                raise Insufficient(f"{len(answered)} sites sent keys; a secure sum needs {self.needed}")
        elif self.stage == "unmask":
            self.vector = self._sum()
        self.expected = answered
        after = STAGES.index(self.stage) + 1
        self.stage = STAGES[after] if after < len(STAGES) else None

    def _request(self, site: str) -> bytes:
        header: dict[str, Any] = {"study": self.study, "run": self.run, "stage": self.stage, "site": site}
        if self.stage == "shares":
            header["keys"] = {name: raw.hex() for name, raw in self.raw["keys"].items()}
        elif self.stage == "masked":
            header["sealed"] = {
                name: message.header["sealed"][site] for name, message in self.replies["shares"].items() if name != site
            }
        elif self.stage == "survivors":
            header["survivors"] = self.sites
        elif self.stage == "unmask":
            header["endorsements"] = {name: raw.hex() for name, raw in self.raw["survivors"].items()}
        return pack(Message(header))

    def _check(self, site: str, message: Message) -> None:
        header = message.header
        if self.stage == "keys":
            if any(len(bytes.fromhex(header[name])) != 32 for name in ("seal", "mask")) or header["length"] < 1:
                raise ValueError("a key has not 32 bytes, or the vector is empty")
        elif self.stage == "shares":
            if sorted(header["sealed"]) != [name for name in sorted(self.replies["keys"]) if name != site]:
                raise ValueError("shares for other sites than asked")
        elif self.stage == "masked":
            if len(message.body) != self._length * fixed.WIDTH or len(header["commitment"]) != 64:
                raise ValueError(
                    f"a masked vector has {self._length * fixed.WIDTH} bytes, this has {len(message.body)}"
                )
        elif self.stage == "survivors":
            if header["survivors"] != self.sites:
                raise ValueError("endorses another list of survivors")
        else:
            dropped = [name for name in sorted(self.replies["shares"]) if name not in self.sites]
            if sorted(header["shares"]["self"]) != self.sites or sorted(header["shares"]["mask"]) != dropped:
                raise ValueError("shares of other sites than asked")
            for kind in ("self", "mask"):
                if any(len(bytes.fromhex(share)) != 32 for share in header["shares"][kind].values()):
                    raise ValueError("a share has not 32 bytes")

    @property
    def _length(self) -> int:
        return int(next(iter(self.replies["keys"].values())).header["length"])

    def _same_layout(self) -> None:
        groups: dict[tuple[bytes, int], list[str]] = {}
        for site, message in sorted(self.replies["keys"].items()):
            groups.setdefault((message.body, message.header["length"]), []).append(site)
        if len(groups) > 1:
            said = " / ".join(", ".join(sites) for sites in groups.values())
            raise DataError(
                f"the sites do not add the same statistics ({said}); every site needs the same study and version "
                "of medtrust"
            )

    def _sum(self) -> NDArray[np.float64]:
        words = fixed.total(
            np.frombuffer(message.body, dtype="<u8").astype(np.uint64).reshape(-1, fixed.LIMBS)
            for _, message in sorted(self.replies["masked"].items())
        )
        for site in self.sites:
            seed = self._recover("self", site)
            if commitment(seed) != self.replies["masked"][site].header["commitment"]:
                raise DataError(self._wrong(site))
            words = fixed.subtract(words, crypto.expand(seed, self._length))
        for gone in sorted(set(self.replies["shares"]) - set(self.sites)):
            private = self._recover("mask", gone)
            if crypto.public_of(private).hex() != self.replies["keys"][gone].header["mask"]:
                raise DataError(self._wrong(gone))
            for site in self.sites:
                public = bytes.fromhex(self.replies["keys"][site].header["mask"])
                mask = crypto.expand(crypto.agree(private, public, pair_purpose(self.study, self.run)), self._length)
                # the survivor added its mask with the sign of its place in the pair: take that back
                words = (fixed.subtract if site < gone else fixed.add)(words, mask)
        return fixed.decode(words)

    def _recover(self, kind: str, site: str) -> bytes:
        places = {name: place for place, name in enumerate(sorted(self.replies["keys"]))}
        holders = sorted(self.replies["unmask"])[: self.needed]
        return crypto.combine(
            {places[name]: bytes.fromhex(self.replies["unmask"][name].header["shares"][kind][site]) for name in holders}
        )

    def _wrong(self, site: str) -> str:
        holders = ", ".join(sorted(self.replies["unmask"])[: self.needed])
        return f"the shares of {site} do not fit together, so one of {holders} sent a wrong one; the sum is void"
