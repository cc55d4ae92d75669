"""The membership figure that a site prints: held against the attack itself."""

from __future__ import annotations

import numpy as np
import pytest

from medtrust.stats.sufficient import membership_auc


@pytest.mark.parametrize(("n", "d"), [(40, 16), (130, 64), (200, 20), (90, 1), (640, 16)])
def test_the_formula_foretells_the_attack(n: int, d: int) -> None:
    """Over fresh draws, members are told from others by Mahalanobis distance as often as computed."""
    rng = np.random.default_rng(n + d)
    found = []
    for _ in range(max(4, 4000 // n)):
        members, others = rng.normal(size=(n, d)) * 3 + 1, rng.normal(size=(n, d)) * 3 + 1
        gap = members - members.mean(0)
        inverse = np.linalg.inv(gap.T @ gap)
        inside, outside = (
            np.einsum("ij,jk,ik->i", x - members.mean(0), inverse, x - members.mean(0)) for x in (members, others)
        )
        found.append((inside[:, None] < outside[None]).mean())
    error = np.std(found) / len(found) ** 0.5
    assert abs(np.mean(found) - membership_auc(n, d)) < 4 * error + 1e-3


def test_a_singular_covariance_tells_everything_and_a_large_one_little() -> None:
    """Fewer rows than dimensions show the space that they span; many hide each."""
    assert membership_auc(16, 16) == membership_auc(17, 16) == 1.0
    assert membership_auc(18, 16) > 0.99
    assert 0.5 < membership_auc(100_000, 16) < 0.51
    values = [membership_auc(64 * ratio, 64) for ratio in (2, 4, 10, 40)]
    assert values == sorted(values, reverse=True)
