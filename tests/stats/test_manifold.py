"""Precision, recall, density, coverage: definition, the package prdc, patients, and degenerate input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medtrust.errors import Insufficient
from medtrust.stats import MANIFOLD_NAMES, manifold, manifold_interval


def rows(seed: int, n: int, d: int, scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, d)) * scale + shift)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize(("n", "m", "d"), [(40, 33, 3), (7, 51, 17)])
def test_agrees_with_prdc(n: int, m: int, d: int, k: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The four shares are those of the package prdc."""
    prdc = pytest.importorskip("prdc", reason="prdc is not installed (extra: peers)")
    a, b = rows(n + k, n, d), rows(m + 9 * k, m, d, 0.8, 0.4)
    theirs = prdc.compute_prdc(a.numpy(), b.numpy(), k)
    ours = manifold(a, b, k=k)
    capsys.readouterr()
    for name in MANIFOLD_NAMES:
        assert getattr(ours, name) == pytest.approx(theirs[name], rel=1e-9), name


def test_a_common_offset_changes_nothing() -> None:
    """Far from the origin the shares are what they are near it."""
    a, b = rows(1, 61, 6), rows(2, 47, 6, 0.7)
    assert manifold(a + 1e6, b + 1e6) == manifold(a, b)


def test_neighbours_of_the_same_patient_do_not_count() -> None:
    """With every image stored twice under one patient, the radius is that of the set stored once, one k lower."""
    a, b = rows(4, 30, 4), rows(5, 30, 4)
    patients = [i // 2 for i in range(60)]
    twice = a.repeat_interleave(2, 0)
    found = manifold(twice, b, patients, k=4)
    expected = manifold(a, b, k=2)
    assert found.precision == expected.precision
    assert found.coverage == expected.coverage
    assert manifold(twice, b, k=1 + 1).precision < found.precision


def test_a_set_against_a_far_one_shares_nothing() -> None:
    """Sets that are far apart score 0 everywhere, with intervals that do not end at 0."""
    found = manifold_interval(rows(1, 60, 3), rows(2, 60, 3, shift=100), seed=1)
    for name, inference in found.items():
        assert inference.value == 0, name
        assert inference.interval.lo == 0
        assert 0.01 < inference.interval.hi < 0.2


def test_interval_holds_its_value_and_repeats_itself() -> None:
    """Every interval contains its value, and the same seed gives the same bits."""
    a, b = rows(6, 90, 5), rows(7, 70, 5, 0.9)
    patients = [i // 2 for i in range(90)]
    found = manifold_interval(a, b, patients, None, seed=8)
    assert list(found) == list(MANIFOLD_NAMES)
    for inference in found.values():
        assert inference.interval.lo <= inference.value <= inference.interval.hi
    assert found["recall"].interval.n_units == 45
    assert found == manifold_interval(a, b, patients, None, seed=8)


def test_constant_real_features_are_refused() -> None:
    """Real duplicates have empty balls, and the reason says so."""
    with pytest.raises(Insufficient, match="every real image are identical"):
        manifold(torch.ones(12, 3), rows(2, 12, 3))


def test_a_collapsed_generator_recalls_nothing() -> None:
    """Copies of one real image are precise and cover next to nothing; their own balls are empty."""
    a = rows(1, 40, 3)
    found = manifold_interval(a, a[:1].repeat(30, 1))
    assert found["precision"].value == 1
    assert found["recall"].value == 0
    assert found["coverage"].value < 0.4
    assert found["precision"].interval.lo < 1


def test_refuses_with_a_reason() -> None:
    """Too few neighbours, an empty set, unequal widths and NaN are refused with a sentence."""
    a = rows(0, 9, 3)
    with pytest.raises(Insufficient, match=r"needs 5 neighbours .* 9 images leaves 1"):
        manifold(a, a, [0] * 8 + [1])
    with pytest.raises(Insufficient, match="needs 5 neighbours"):
        manifold(a, a[:0])
    with pytest.raises(Insufficient, match="needs 5 neighbours"):
        manifold(a[:5], a)
    with pytest.raises(ValueError, match="width"):
        manifold(a, a[:, :1])
    with pytest.raises(Insufficient, match="not finite"):
        manifold(a / 0, a)
