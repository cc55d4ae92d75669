"""How many sites a secure sum needs."""

from __future__ import annotations

__all__ = ["MINIMUM_SITES", "STAGES", "threshold"]

MINIMUM_SITES = 3
"""With two, each site learns the other's vector by subtracting its own from the published sum."""

STAGES = ("keys", "shares", "masked", "survivors", "unmask")


def threshold(sites: int, minimum: int = MINIMUM_SITES) -> int:
    """How many sites must take part to the end: more than two thirds, and never fewer than the minimum.

    Above two thirds a coordinator that lies to some sites cannot get two different sets of survivors unmasked.

    Args:
        sites: Sites that sent their keys.
        minimum: Least number of sites in a sum.

    Reference:
        Bonawitz et al., doi:10.1145/3133956.3133982, Theorem 6.5.
    """
    return max(2 * sites // 3 + 1, minimum)
