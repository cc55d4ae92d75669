"""The proof that every image was counted once: shards on one side, what came back on the other."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from medtrust.errors import EngineError
from medtrust.scaling.shards import Shard

__all__ = ["Ledger", "Proof", "content_of"]


@dataclass(frozen=True, slots=True)
class Proof:
    """What the ledger shows once it is closed, whoever worked and in which order.

    Args:
        images: How many were counted, each once.
        shards: In how many parts.
        content: SHA-256 of the pixel digests in the order of the set: a function of the images alone.
    """

    images: int
    shards: int
    content: str


class Ledger:
    """Books every shard once, with the pixel digest of each of its images.

    Args:
        shards: All shards of one set.

    Raises:
        EngineError: The shards leave an image out or hold one twice.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = {shard.id: shard for shard in shards}
        self._digests: dict[str, tuple[str, ...]] = {}
        end = 0
        for shard in shards:
            if shard.start != end or len(shard) < 1:
                raise EngineError(f"{shard} should begin at image {end}; {_ADVICE}")
            end = shard.stop
        if len(self._shards) < len(shards):
            raise EngineError(f"two shards of {shards[0].set} have one id; {_ADVICE}")
        self._images = end

    def enter(self, shard_id: str, positions: Sequence[int], digests: Sequence[str]) -> None:
        """Book what came back for one shard.

        Args:
            shard_id: Which shard.
            positions: Position in the set of every row that came back.
            digests: Pixel digest of every row.

        Raises:
            EngineError: The shard is unknown or was booked before; a row is missing, came twice, or belongs elsewhere.
        """
        shard = self._shards.get(shard_id)
        if shard is None:
            raise EngineError(f"an answer came back for a shard that was never sent ({shard_id[:12]}…); {_ADVICE}")
        if shard_id in self._digests:
            raise EngineError(f"{shard} came back twice, which would count its images twice; {_ADVICE}")
        counts = Counter(int(position) for position in positions)
        missing = [index for index in shard.where if not counts[index]]
        doubled = sorted(index for index, count in counts.items() if count > 1)
        strange = sorted(index for index in counts if index not in shard.where)
        for wrong, words in ((missing, "lacks"), (doubled, "holds twice"), (strange, "holds, of another shard,")):
            if wrong:
                shown = ", ".join(map(str, wrong[:5])) + (", …" if len(wrong) > 5 else "")
                raise EngineError(f"{shard} {words} {len(wrong)} of its images ({shown}); {_ADVICE}")
        if list(positions) != list(shard.where) or len(digests) != len(shard):
            raise EngineError(f"{shard} came back in another order, or with {len(digests)} digests; {_ADVICE}")
        self._digests[shard_id] = tuple(digests)

    def close(self) -> Proof:
        """Prove that nothing is missing.

        Raises:
            EngineError: A shard never came back.
        """
        missing = [shard for shard_id, shard in self._shards.items() if shard_id not in self._digests]
        if missing:
            raise EngineError(f"{missing[0]} never came back, nor did {len(missing) - 1} others; {_ADVICE}")
        whole = [digest for shard_id in self._shards for digest in self._digests[shard_id]]
        assert len(whole) == self._images  # every shard is whole, and together they are the set
        return Proof(self._images, len(self._shards), content_of(whole))


_ADVICE = "nothing was reported; run again, or with --engine local, and report this"


def content_of(digests: Sequence[str]) -> str:
    """Hash pixel digests in the order of their set."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
