"""The cryptography of secure sums, all of it from well-kept libraries: X25519, HKDF, ChaCha20, Shamir's sharing."""

from __future__ import annotations

import json

import numpy as np
from Crypto.Protocol.SecretSharing import Shamir
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from medtrust.secagg.fixed import LIMBS, WIDTH, Limbs

__all__ = ["agree", "combine", "expand", "new_pair", "open_sealed", "public_of", "seal", "split"]

_HALF = 16  # Shamir.split shares 16 bytes at a time, in GF(2^128)


def new_pair() -> tuple[bytes, bytes]:
    """A fresh X25519 key pair: private and public, 32 bytes each."""
    key = X25519PrivateKey.generate()
    return key.private_bytes_raw(), key.public_key().public_bytes_raw()


def public_of(private: bytes) -> bytes:
    """The public half of an X25519 private key.

    Args:
        private: 32 bytes.
    """
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agree(private: bytes, public: bytes, purpose: str) -> bytes:
    """A 32-byte key that only the two holders can compute.

    Args:
        private: Own X25519 private key.
        public: The other's X25519 public key.
        purpose: Bound into the key, so that keys for different ends differ.

    Raises:
        ValueError: The public key is of low order.
    """
    shared = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode()).derive(shared)


def expand(seed: bytes, length: int) -> Limbs:
    """A uniform mask from a 256-bit seed: the ChaCha20 key stream, 24 bytes per entry.

    Args:
        seed: 32 bytes that are used for no other mask.
        length: Entries D.

    Returns:
        `[D, 3]` words, uniform over the integers modulo 2^192.
    """
    stream = Cipher(ChaCha20(seed, bytes(16)), mode=None).encryptor().update(bytes(WIDTH * length))
    return np.frombuffer(stream, dtype="<u8").astype(np.uint64).reshape(length, LIMBS)


def split(secret: bytes, needed: int, of: int) -> list[bytes]:
    """Shamir's shares of 32 bytes.

    Args:
        secret: 32 bytes.
        needed: Shares that suffice to recover it; fewer say nothing.
        of: Shares to make.

    Returns:
        One share of 32 bytes per holder; the holder's place in the list is the share's abscissa minus 1.
    """
    halves = [Shamir.split(needed, of, secret[at : at + _HALF], ssss=False) for at in (0, _HALF)]
    return [first[1] + second[1] for first, second in zip(*halves, strict=True)]


def combine(shares: dict[int, bytes]) -> bytes:
    """The 32 bytes behind enough of Shamir's shares.

    Args:
        shares: Place of the holder (from 0) to share; exactly as many as are needed, or more.
    """
    return b"".join(
        Shamir.combine([(place + 1, share[at : at + _HALF]) for place, share in shares.items()], ssss=False)
        for at in (0, _HALF)
    )


def seal(key: bytes, purpose: str, content: dict[str, str]) -> bytes:
    """Encrypt and authenticate a small record under a key that serves this one time.

    Args:
        key: 32 bytes, used for this message alone: the nonce is zero.
        purpose: Bound to the ciphertext.
        content: What to hide.
    """
    return ChaCha20Poly1305(key).encrypt(bytes(12), json.dumps(content, sort_keys=True).encode(), purpose.encode())


def open_sealed(key: bytes, purpose: str, ciphertext: bytes) -> dict[str, str]:
    """Undo `seal`.

    Args:
        key: The same 32 bytes.
        purpose: The same words.
        ciphertext: What `seal` returned.

    Raises:
        ValueError: It was made with another key or purpose, or was changed on its way.
    """
    try:
        content = json.loads(ChaCha20Poly1305(key).decrypt(bytes(12), ciphertext, purpose.encode()))
    except InvalidTag as error:
        raise ValueError("the sealed shares were changed on their way, or were meant for somebody else") from error
    return {str(name): str(value) for name, value in content.items()}
