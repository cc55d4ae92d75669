"""Messages of a secure sum: a JSON header, a body of bytes, and an Ed25519 signature over both."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from medtrust.errors import MedtrustError

__all__ = ["LARGEST", "Message", "Refused", "pack", "unpack"]

_MAGIC = b"medtrust-secagg/1\n"
_SIGNATURE = 64
_LARGEST_HEADER = 1 << 20
LARGEST = 256 << 20
"""Bytes in a message; a longer one is refused unread."""


class Refused(MedtrustError):  # noqa: N818 - an answer to one site, not a fault of the program
    """One site's message cannot be accepted; the others go on without it."""

    exit_code = 2

    def __init__(self, site: str, reason: str) -> None:
        super().__init__(f"{site}: {reason}")
        self.site, self.reason = site, reason


@dataclass(frozen=True)
class Message:
    """What one side says to the other.

    Args:
        header: JSON object; always holds study, run, stage and site.
        body: Bytes that JSON would bloat, such as a masked vector.
    """

    header: Mapping[str, Any]
    body: bytes = b""


def pack(message: Message, key: Ed25519PrivateKey | None = None) -> bytes:
    """Write a message; without a key it carries no signature, as the coordinator's do.

    Args:
        message: What to say.
        key: Signing key of the site.
    """
    header = json.dumps(message.header, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    content = _MAGIC + struct.pack("<I", len(header)) + header + message.body
    return content + key.sign(content) if key else content


def unpack(raw: bytes, site: str, key: Ed25519PublicKey | None = None) -> Message:
    """Read a message; with a key, not a byte is parsed before its signature is verified.

    Args:
        raw: What arrived.
        site: Who is to have sent it, for the errors.
        key: Public key that the study lists for that site.

    Raises:
        Refused: Too long, not of this format, cut off, or not signed by that key.
    """
    if not len(_MAGIC) + 4 <= len(raw) <= LARGEST:
        raise Refused(site, f"malformed message of {len(raw)} bytes; a message has {len(_MAGIC) + 4} to {LARGEST}")
    if not raw.startswith(_MAGIC):
        raise Refused(site, f"malformed message: it does not begin with {_MAGIC.decode().strip()!r}")
    if key is not None:
        raw, signature = raw[:-_SIGNATURE], raw[-_SIGNATURE:]
        try:
            key.verify(signature, raw)
        except InvalidSignature:
            raise Refused(site, "wrong signature: not made by the key that the study lists for this site") from None
    at = len(_MAGIC) + 4
    length = struct.unpack_from("<I", raw, len(_MAGIC))[0] if len(raw) >= at else _LARGEST_HEADER + 1
    if length > min(_LARGEST_HEADER, len(raw) - at):
        raise Refused(site, "malformed message: its header is longer than the message or than 1 MiB")
    try:
        header = json.loads(raw[at : at + length])
    except (ValueError, RecursionError) as error:
        raise Refused(site, f"malformed message: its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise Refused(site, "malformed message: its header is not a JSON object")
    return Message(header, raw[at + length :])
