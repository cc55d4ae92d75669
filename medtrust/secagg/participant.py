"""One site's side of a secure sum."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from numpy.typing import NDArray

from medtrust.errors import DataError
from medtrust.secagg import crypto, fixed
from medtrust.secagg.rules import MINIMUM_SITES, STAGES, threshold
from medtrust.secagg.vault import RunState, Vault
from medtrust.secagg.wire import Message, Refused, pack, unpack

__all__ = ["Participant", "commitment", "pair_purpose", "self_purpose"]


def pair_purpose(study: str, run: str) -> str:
    """What the key of a pair's mask is derived for."""
    return f"medtrust-secagg/1 pair mask {study} {run}"


def self_purpose(study: str, run: str, sender: str, receiver: str) -> str:
    """What the key that seals one site's shares for another is derived for."""
    return f"medtrust-secagg/1 shares {study} {run} {sender} {receiver}"


def commitment(seed: bytes) -> str:
    """Digest by which the coordinator recognises a wrongly recovered seed; 256 random bits stay hidden behind it."""
    return hashlib.sha256(b"medtrust-secagg/1 seed" + seed).hexdigest()


class Participant:
    """Answers the coordinator of a secure sum, stage by stage, and refuses what would reveal more than the sum.

    Args:
        study: Digest of the study, hexadecimal; binds every signature.
        site: This site's name in the study.
        key: Its signing key.
        keys: Every site's public key, as the study lists them.
        vector: `[D]`, float64, what to add.
        layout: What the entries mean; must be the same bytes at every site.
        folder: Private folder for state, so that a restarted process goes on.
        minimum: Least number of sites in a sum, at least 3; more than two thirds of the study's when not given, so that
            a coordinator cannot ask for sums over small groups one after the other.

    Raises:
        DataError: The study does not list the site with this key, or the vector does not fit the fixed-point grid.
    """

    def __init__(
        self,
        *,
        study: str,
        site: str,
        key: Ed25519PrivateKey,
        keys: Mapping[str, Ed25519PublicKey],
        vector: NDArray[np.float64],
        layout: bytes,
        folder: Path,
        minimum: int | None = None,
    ) -> None:
        if site not in keys:
            raise DataError(f"the study does not list the site {site}; it lists {', '.join(sorted(keys))}")
        least = max(threshold(len(keys)) if minimum is None else minimum, MINIMUM_SITES)
        if len(keys) < least:
            raise DataError(
                f"a secure sum needs at least {least} sites, and the study lists {len(keys)}; "
                "with two, each learns the other's vector by subtracting its own: exchange signed statements instead"
            )
        self.study, self.site, self.key, self.keys = study, site, key, dict(keys)
        self.layout, self.minimum = layout, least
        self.words = fixed.encode(vector, len(keys))
        self.digest = hashlib.sha256(self.words.astype("<u8").tobytes() + layout).hexdigest()
        self.vault = Vault(folder, study)

    def answer(self, request: bytes) -> bytes:
        """Answer one request; the same request gets the same answer, another one in the same stage is refused.

        Args:
            request: What the coordinator sent.

        Returns:
            The signed reply.

        Raises:
            Refused: The request is malformed, out of order, for another study, or would reveal more than the sum.
        """
        header = unpack(request, "coordinator").header
        run, stage = header.get("run"), header.get("stage")
        if header.get("study") != self.study:
            raise Refused(
                "coordinator", f"asks about the study {header.get('study')}; this site takes part in {self.study}"
            )
        if not isinstance(run, str) or not re.fullmatch("[0-9a-f]{32}", run) or stage not in STAGES:
            raise Refused("coordinator", f"malformed request (run {run!r}, stage {stage!r})")
        state = self.vault.load(run) or RunState(vector=self.digest)
        if state.vector != self.digest:
            raise Refused("coordinator", "this site's statement changed since the run began; start a new run")
        asked = hashlib.sha256(request).hexdigest()
        if stage in state.replies:
            if state.asked[stage] == asked:
                return bytes.fromhex(state.replies[stage])
            raise Refused(
                "coordinator",
                f"asks for the stage {stage} a second time with other words; answering both could reveal this site's "
                "vector",
            )
        if stage != STAGES[len(state.replies)]:
            raise Refused("coordinator", f"asks for the stage {stage}, but {STAGES[len(state.replies)]} comes next")
        try:
            extra, body = getattr(self, f"_{stage}")(header, run, state)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Refused("coordinator", f"malformed request for the stage {stage} ({error!r})") from error
        reply = pack(
            Message({"study": self.study, "run": run, "stage": stage, "site": self.site, **extra}, body), self.key
        )
        state.asked[stage], state.replies[stage] = asked, reply.hex()
        self.vault.save(run, state)
        return reply

    def _keys(self, header: Mapping[str, Any], run: str, state: RunState) -> tuple[dict[str, Any], bytes]:
        (seal_private, seal_public), (mask_private, mask_public) = crypto.new_pair(), crypto.new_pair()
        state.secrets = {"seal": seal_private.hex(), "mask": mask_private.hex(), "self": secrets.token_hex(32)}
        return {"seal": seal_public.hex(), "mask": mask_public.hex(), "length": len(self.words)}, self.layout

    def _shares(self, header: Mapping[str, Any], run: str, state: RunState) -> tuple[dict[str, Any], bytes]:
        public: dict[str, dict[str, str]] = {}
        for site, envelope in header["keys"].items():
            if site not in self.keys:
                raise Refused("coordinator", f"names the site {site}, which the study does not list")
            message = self._signed(site, bytes.fromhex(envelope), run, "keys")
            if message.body != self.layout or message.header["length"] != len(self.words):
                raise Refused(
                    site, "its vector has another layout than ours; all sites need the same study and version"
                )
            public[site] = {name: str(message.header[name]) for name in ("seal", "mask")}
        everything = [key for pair in public.values() for key in pair.values()]
        if len(set(everything)) != len(everything) or header["keys"].get(self.site) != state.replies["keys"]:
            raise Refused("coordinator", "passes on keys that are not the ones that the sites made")
        self._enough(public, len(public), "sent their keys")
        state.participants, state.public = sorted(public), public
        needed = threshold(len(public), self.minimum)
        split = {
            name: crypto.split(bytes.fromhex(state.secrets[name]), needed, len(public)) for name in ("self", "mask")
        }
        sealed = {}
        for place, site in enumerate(state.participants):
            content = {name: shares[place].hex() for name, shares in split.items()}
            if site == self.site:
                state.received[site] = content
                continue
            purpose = self_purpose(self.study, run, self.site, site)
            key = crypto.agree(bytes.fromhex(state.secrets["seal"]), bytes.fromhex(public[site]["seal"]), purpose)
            sealed[site] = crypto.seal(key, purpose, content).hex()
        return {"sealed": sealed}, b""

    def _masked(self, header: Mapping[str, Any], run: str, state: RunState) -> tuple[dict[str, Any], bytes]:
        for site, ciphertext in header["sealed"].items():
            if site not in state.public or site == self.site:
                raise Refused("coordinator", f"passes on shares of {site}, which sent no keys in this run")
            purpose = self_purpose(self.study, run, site, self.site)
            key = crypto.agree(bytes.fromhex(state.secrets["seal"]), bytes.fromhex(state.public[site]["seal"]), purpose)
            state.received[site] = crypto.open_sealed(key, purpose, bytes.fromhex(ciphertext))
        self._enough(state.received, len(state.participants), "shared their keys")
        state.sharing = sorted(state.received)
        seed = bytes.fromhex(state.secrets["self"])
        words = fixed.add(self.words, crypto.expand(seed, len(self.words)))
        for site in state.sharing:
            if site != self.site:
                key = crypto.agree(
                    bytes.fromhex(state.secrets["mask"]),
                    bytes.fromhex(state.public[site]["mask"]),
                    pair_purpose(self.study, run),
                )
                merge = fixed.add if self.site < site else fixed.subtract
                words = merge(words, crypto.expand(key, len(words)))
        return {"commitment": commitment(seed)}, words.astype("<u8").tobytes()

    def _survivors(self, header: Mapping[str, Any], run: str, state: RunState) -> tuple[dict[str, Any], bytes]:
        survivors = [str(site) for site in header["survivors"]]
        if survivors != sorted(set(survivors)) or not {self.site} <= set(survivors) <= set(state.sharing):
            raise Refused("coordinator", f"names survivors ({', '.join(survivors)}) that cannot be")
        self._enough(survivors, len(state.participants), "sent their masked vectors")
        state.survivors = survivors
        return {"survivors": survivors}, b""

    def _unmask(self, header: Mapping[str, Any], run: str, state: RunState) -> tuple[dict[str, Any], bytes]:
        agreeing = [
            site
            for site, envelope in header["endorsements"].items()
            if site in state.survivors
            and self._signed(site, bytes.fromhex(envelope), run, "survivors").header["survivors"] == state.survivors
        ]
        self._enough(agreeing, len(state.participants), "confirmed the same list of survivors")
        if broken := self.vault.promise(state.survivors, self.digest):
            raise Refused(self.site, broken)
        dropped = [site for site in state.sharing if site not in state.survivors]
        shares = {
            "self": {site: state.received[site]["self"] for site in state.survivors},
            "mask": {site: state.received[site]["mask"] for site in dropped},
        }
        state.secrets, state.received = {}, {}
        return {"shares": shares}, b""

    def _signed(self, site: str, envelope: bytes, run: str, stage: str) -> Message:
        message = unpack(envelope, site, self.keys[site])
        expected = {"study": self.study, "run": run, "stage": stage, "site": site}
        if {name: message.header.get(name) for name in expected} != expected:
            raise Refused(site, f"its message is for another study, run or stage than {stage} of this run")
        return message

    def _enough(self, sites: Mapping[str, Any] | list[str], participants: int, done: str) -> None:
        needed = threshold(participants, self.minimum)
        if len(sites) < needed:
            raise Refused("coordinator", f"only {len(sites)} sites {done}; a sum that hides each site needs {needed}")
