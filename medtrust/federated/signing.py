"""Ed25519 keys and signed envelopes: who says something, checked before what is said is read."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtrust.errors import ConfigError, SafetyError
from medtrust.report.canonical import canonical_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["SigningKey", "new_key", "open_envelope", "read_key", "read_public", "seal"]

_MAGIC = b"MEDTRUST-SIGNED\n"
_MOST_ENVELOPE = 4096
_PUBLIC = re.compile(r"ed25519:([0-9a-f]{64})")
_FIELDS = {"kind", "site", "study", "sha256", "signature"}


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A site's private key; it never leaves the site.

    Args:
        private: The Ed25519 key.
    """

    private: Ed25519PrivateKey

    @property
    def public(self) -> str:
        """The public key, as `ed25519:` and 64 hexadecimal digits."""
        return "ed25519:" + self.private.public_key().public_bytes_raw().hex()

    def secret(self, purpose: str) -> bytes:
        """A secret of the site for one purpose, such as dealing patients to folds: 32 bytes, always the same."""
        return hashlib.sha256(b"medtrust " + purpose.encode() + b"\0" + self.private.private_bytes_raw()).digest()


def new_key(path: Path) -> SigningKey:
    """Make a key pair: `path` holds the private key, readable by its owner alone, `path` with .pub the public one.

    Raises:
        ConfigError: One of the files exists, or cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    public = path.with_suffix(".pub")
    for place in (path, public):
        if place.exists():
            raise ConfigError(f"{place} exists; a key that was made is kept: choose another name")
    key = SigningKey(Ed25519PrivateKey.generate())
    text = key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(text)
        public.write_text(key.public + "\n", encoding="ascii")
    except OSError as error:
        raise ConfigError(f"cannot keep a key at {path} ({error.strerror}); choose another folder") from error
    return key


def read_key(path: Path) -> SigningKey:
    """Read a private key.

    Raises:
        ConfigError: It is missing, readable by others, or no Ed25519 key.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        loose = path.stat().st_mode & 0o077
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"the key {path} cannot be read ({error.strerror}); make one with `medtrust federated keygen`"
        ) from error
    if loose and os.name == "posix":
        raise ConfigError(f"the key {path} can be read by others on this machine: chmod 600 it, or make a new one")
    try:
        key = load_pem_private_key(content, None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no private key ({error}); make one with `medtrust federated keygen`") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} is no Ed25519 key; make one with `medtrust federated keygen`")
    return SigningKey(key)


def read_public(text: str) -> str:
    """Check a public key given as text or as the path of a .pub file.

    Raises:
        ConfigError: It is neither.
    """
    found = _PUBLIC.fullmatch(text.strip())
    if found is None:
        try:
            found = _PUBLIC.fullmatch(Path(text).read_text("ascii").strip())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{text[:200]} is neither a public key ed25519:… nor a file that holds one") from error
    if found is None:
        raise ConfigError(f"{text[:200]} holds no public key ed25519: with 64 hexadecimal digits")
    return found[0]


def seal(payload: bytes, *, kind: str, site: str, study: str, key: SigningKey) -> bytes:
    """Sign a payload together with who says it and in which study."""
    said = {"kind": kind, "site": site, "study": study, "sha256": hashlib.sha256(payload).hexdigest()}
    envelope = canonical_bytes({**said, "signature": key.private.sign(_signed(said)).hex()})
    return _MAGIC + len(envelope).to_bytes(4, "big") + envelope + payload


def open_envelope(content: bytes, *, kind: str, study: str, keys: dict[str, str], most: int) -> tuple[str, bytes]:
    """Check a sealed payload; nothing of the payload has been parsed when this returns.

    Args:
        content: Bytes from anywhere.
        kind: What it must be.
        study: Digest of the study that it must belong to.
        keys: Public key by site.
        most: Largest length.

    Returns:
        Site and payload.

    Raises:
        SafetyError: With the site's name, where it is known, and the reason.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    start = len(_MAGIC) + 4
    size = int.from_bytes(content[len(_MAGIC) : start], "big")
    if len(content) > most:
        raise SafetyError(f"a {kind} of {len(content)} bytes was refused: at most {most} are read")
    if content[: len(_MAGIC)] != _MAGIC or not 2 <= size <= min(_MOST_ENVELOPE, len(content) - start):
        raise SafetyError(f"this is no signed {kind} of medtrust, or it is cut off: ask for it again")
    said = _envelope(content[start : start + size], kind)
    site, payload = said["site"], content[start + size :]
    who = f"the {kind} that names site {site!r}"
    if site not in keys:
        raise SafetyError(f"{who} was refused: the study knows no such site, it knows {', '.join(sorted(keys))}")
    if said["kind"] != kind or said["study"] != study:
        raise SafetyError(
            f"{who} was refused: it belongs to another study ({said['study'][:12]}…, this is {study[:12]}…)"
        )
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(keys[site].removeprefix("ed25519:")))
        public.verify(bytes.fromhex(said.pop("signature")), _signed(said))
    except (InvalidSignature, ValueError) as error:
        raise SafetyError(
            f"{who} was refused: its signature is not that of the key that the study names for {site}"
        ) from error
    if hashlib.sha256(payload).hexdigest() != said["sha256"]:
        raise SafetyError(f"{who} was refused: its content was changed or cut off after it was signed")
    return site, payload


def _envelope(text: bytes, kind: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SafetyError(f"the envelope of a {kind} cannot be read: ask for it again") from error
    if not isinstance(said, dict) or set(said) != _FIELDS or not all(isinstance(v, str) for v in said.values()):
        raise SafetyError(f"the envelope of a {kind} does not hold {', '.join(sorted(_FIELDS))}: ask for it again")
    if not all(c.isprintable() for c in said["site"]):
        raise SafetyError(f"the envelope of a {kind} names a site in characters that cannot be printed")
    return said


def _signed(said: dict[str, str]) -> bytes:
    return b"medtrust federated 1\0" + canonical_bytes(said)
