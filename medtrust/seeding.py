"""Seeds for every part of a run, derived from one root seed by name."""

from __future__ import annotations

import hashlib

__all__ = ["derive_seed"]

DERIVATION = "sha256(root ':' name ':' …)[:8] & (2**63 - 1)"


def derive_seed(root: int, *names: str | int) -> int:
    """Derive an independent 63-bit seed for a named part of a run.

    Args:
        root: The run's seed.
        names: Path of the part, such as ("metric", "privacy.cpm").

    Returns:
        The same number on every machine and Python version.
    """
    text = ":".join(str(part) for part in (root, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") & (2**63 - 1)
