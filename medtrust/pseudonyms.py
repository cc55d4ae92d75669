"""Names that may leave the hospital: keyed, so that nobody without the key can try names until one fits."""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path

import platformdirs

from medtrust.errors import ConfigError

__all__ = ["Pseudonyms"]

KEY_VARIABLE = "MEDTRUST_PSEUDONYM_KEY"


class Pseudonyms:
    """Replaces names of patients and files by HMAC-SHA256(key, name)[:12].

    The key is read from `MEDTRUST_PSEUDONYM_KEY`, else from a file that is made once per user with random content, so
    that the same command gives the same bytes on one machine and reveals nothing on another.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key if key is not None else _user_key()

    def of(self, name: str) -> str:
        """Pseudonym of a name: 12 hexadecimal digits."""
        return hmac.new(self._key, name.encode("utf-8", "surrogateescape"), "sha256").hexdigest()[:12]


def _user_key() -> bytes:
    given = os.environ.get(KEY_VARIABLE)
    if given:
        if len(given) < 16:
            raise ConfigError(f"{KEY_VARIABLE} has {len(given)} characters; use at least 16 random ones")
        return given.encode()
    path = Path(platformdirs.user_config_dir("medtrust")) / "pseudonym.key"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # O_EXCL: of two first runs at once, one writes the key and the other reads it
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            key = path.read_bytes()
        else:
            key = secrets.token_hex(32).encode()
            with os.fdopen(handle, "wb") as stream:
                stream.write(key)
    except OSError as error:
        raise ConfigError(f"cannot keep the pseudonym key at {path} ({error.strerror}); set {KEY_VARIABLE}") from error
    if len(key) < 16:
        raise ConfigError(f"the pseudonym key {path} is damaged; delete it, or set {KEY_VARIABLE}")
    return key
