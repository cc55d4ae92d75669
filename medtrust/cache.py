"""A store of features on disk: content-addressed, append-only, and never pickle.

Each feature space has a folder of shards, `<sha256 of the file>.safetensors`, with the tensors `values` [n, d] float32
and `digests` [n, 32] uint8. A shard appears whole or not at all and never changes, so any number of processes may share
a store, a kill at any moment costs at most what was not yet written, and a damaged file no longer matches its name.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from medtrust.errors import ConfigError
from medtrust.types import Intensity
from medtrust.writing import write_atomically

__all__ = ["FeatureStore", "space_key"]

_SHARD = re.compile(r"[0-9a-f]{64}\.safetensors")
_STALE_SECONDS = 3600.0  # a temporary file older than this belongs to a run that was killed
_OPEN_SHARDS = 4  # rows are mostly asked for in the order they were written


def space_key(space_digest: str, intensity: Intensity) -> str:
    """Name what features depend on beside the pixels.

    Args:
        space_digest: Digest of the extractor's weights, version and preprocessing.
        intensity: Declared range, unit and window, since extractors scale by them.

    Returns:
        64 hexadecimal digits.
    """
    window = None if intensity.window is None else [float(edge).hex() for edge in intensity.window]
    facts = [space_digest, float(intensity.lo).hex(), float(intensity.hi).hex(), intensity.unit, window]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@dataclass(slots=True)
class _Known:
    """Where the rows of one space lie: about 200 bytes per image, however wide a row is."""

    shards: list[Path] = field(default_factory=list)
    places: dict[bytes, tuple[int, int]] = field(default_factory=dict)  # digest -> shard and row

    def note(self, path: Path, digests: Sequence[bytes]) -> None:
        self.shards.append(path)
        self.places.update((digest, (len(self.shards) - 1, row)) for row, digest in enumerate(digests))


class FeatureStore:
    """Features that were computed before, by space and by the pixels they belong to.

    Args:
        root: Folder of the store; made when first written to.
        max_bytes: When the store is opened, the shards that were used longest ago are removed until it is this small.
    """

    def __init__(self, root: Path, *, max_bytes: int = 20 * 1024**3) -> None:
        self.root = root
        self._known: dict[str, _Known] = {}
        self._open: OrderedDict[Path, torch.Tensor] = OrderedDict()
        self._notices: list[str] = []
        self._prune(max_bytes)

    def lookup(self, key: str, digests: Sequence[str]) -> list[torch.Tensor | None]:
        """Find the features of some images.

        Args:
            key: From `space_key`.
            digests: Pixel digests, 64 hexadecimal digits each.

        Returns:
            One row [d] float32 per digest, None where unknown. Rows may lie in files: copy them, and let go of them.
        """
        known = self._rows(key)
        return [self._row(known, _raw(digest)) for digest in digests]

    def digests(self, key: str) -> list[bytes]:
        """Pixel digests, 32 bytes each, of all images whose features the store has; in no order."""
        return list(self._rows(key).places)

    def add(self, key: str, digests: Sequence[str], values: torch.Tensor) -> None:
        """Write one shard; images that the store already has are left out.

        Args:
            key: From `space_key`.
            digests: Pixel digests, 64 hexadecimal digits each.
            values: [n, d] float32; d may differ between calls, where it follows the size of the images.

        Raises:
            ValueError: The shapes do not fit.
            ConfigError: The folder cannot be written.
        """
        known = self._rows(key)
        if values.ndim != 2 or len(values) != len(digests) or values.dtype != torch.float32:
            raise ValueError(
                f"{len(digests)} digests need values [{len(digests)}, d] float32, got {list(values.shape)}"
            )
        raw = [_raw(digest) for digest in digests]
        new = {digest: i for i, digest in enumerate(raw) if digest not in known.places}
        if not new:
            return
        kept = values.detach().cpu()[list(new.values())].contiguous()
        table = torch.frombuffer(bytearray(b"".join(new)), dtype=torch.uint8).reshape(-1, 32)
        content = save({"values": kept, "digests": table})
        path = self.root / key / f"{hashlib.sha256(content).hexdigest()}.safetensors"
        try:
            write_atomically(path, content)
        except OSError as error:
            raise ConfigError(f"cannot write the feature cache {path} ({error.strerror}); free some space") from error
        known.note(path, list(new))

    def take_notices(self) -> tuple[str, ...]:
        """Return what the reader should know, such as a damaged shard that was removed; each sentence once."""
        notices, self._notices = tuple(self._notices), []
        return notices

    def _rows(self, key: str) -> _Known:
        if key not in self._known:
            known = self._known[key] = _Known()
            for path in sorted((self.root / key).glob("*.safetensors")):
                if _SHARD.fullmatch(path.name):
                    known.note(path, self._check(path))
        return self._known[key]

    def _row(self, known: _Known, digest: bytes) -> torch.Tensor | None:
        """Read one row; only a few shards are open at a time, since what is read of an open one stays in memory."""
        if digest not in known.places:
            return None
        shard, row = known.places[digest]
        path = known.shards[shard]
        if path not in self._open:
            try:
                with safe_open(path, "pt") as content:
                    self._open[path] = content.get_tensor("values")
            except (FileNotFoundError, SafetensorError):  # another process removed it meanwhile
                known.places = {digest: place for digest, place in known.places.items() if place[0] != shard}
                return None
            while len(self._open) > _OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(path)
        return self._open[path][row]

    def _check(self, path: Path) -> list[bytes]:
        """Hold a shard to its name and return its digests."""
        try:
            with path.open("rb") as stream:
                actual = hashlib.file_digest(stream, "sha256").hexdigest()
            if actual != path.stem:
                raise ValueError("its content does not match its name")
            with safe_open(path, "pt") as shard:
                shape, dtype = shard.get_slice("values").get_shape(), shard.get_slice("values").get_dtype()
                table = shard.get_tensor("digests")
            if dtype != "F32" or len(shape) != 2 or tuple(table.shape) != (shape[0], 32):
                raise ValueError("it is not a shard of features")
            os.utime(path)  # last use, for pruning
        except FileNotFoundError:
            return []  # another process removed it meanwhile
        except (ValueError, SafetensorError) as error:
            path.unlink(missing_ok=True)
            self._notices.append(f"removed the damaged cache file {path} ({error}); its features are computed again")
            return []
        except OSError as error:
            raise ConfigError(f"cannot use the feature cache {path} ({error.strerror}); repair or delete it") from error
        return [bytes(digest) for digest in table.numpy()]

    def _prune(self, max_bytes: int) -> None:
        shards: list[tuple[float, int, Path]] = []
        for path in self.root.glob("*/*"):
            try:
                facts = path.stat()
            except FileNotFoundError:
                continue
            if _SHARD.fullmatch(path.name):
                shards.append((facts.st_mtime, facts.st_size, path))
            elif path.name.startswith(".") and time.time() - facts.st_mtime > _STALE_SECONDS:
                path.unlink(missing_ok=True)
        excess = sum(size for _, size, _ in shards) - max_bytes
        for _, size, path in sorted(shards):
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size


def _raw(digest: str) -> bytes:
    raw = bytes.fromhex(digest)
    if len(raw) != 32:
        raise ValueError(f"a pixel digest has 64 hexadecimal digits, not {digest!r}")
    return raw
