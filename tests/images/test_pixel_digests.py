from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medtrust.errors import DataError
from medtrust.images import digest
from medtrust.types import Intensity

LEVEL = Intensity(0, 255, "level")
shapes = hnp.array_shapes(min_dims=3, max_dims=3, max_side=6)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.uint8, shapes))
def test_the_carrier_does_not_matter(values):
    """Dtype, byte order and memory layout leave the digest as it is."""
    expected = digest(values, LEVEL)
    for dtype in ("<u2", ">u2", ">i2", "<i4", ">i8", "<f2", ">f4", "<f8", ">f8"):
        assert digest(values.astype(dtype), LEVEL) == expected
    assert digest(np.asfortranarray(values), LEVEL) == expected
    assert digest(np.repeat(values, 2, axis=2)[:, :, ::2], LEVEL) == expected
    assert digest(values[:, ::-1][:, ::-1], LEVEL) == expected


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float64, shapes, elements=st.floats(-1e6, 1e6)), st.data())
def test_one_changed_value_changes_the_digest(values, data):
    """No rounding hides a difference."""
    where = data.draw(st.integers(0, values.size - 1))
    changed = values.copy()
    changed.flat[where] = np.nextafter(changed.flat[where], np.inf)
    assert digest(values, LEVEL) != digest(changed, LEVEL)


def test_negative_zero_is_zero():
    """The sign of zero is not a value."""
    for dtype in (np.float16, np.float32, np.float64):
        assert digest(np.full((1, 2, 2), -0.0, dtype), LEVEL) == digest(np.zeros((1, 2, 2), np.uint8), LEVEL)


def test_unit_and_shape_matter_and_the_range_does_not(rng):
    """The same numbers in another unit or shape are another image; a wider declaration is not."""
    values = rng.integers(0, 256, (1, 4, 6), dtype=np.uint8)
    assert digest(values, LEVEL) == digest(values, Intensity(0, 1000, "level", (3, 5)))
    assert digest(values, LEVEL) != digest(values, Intensity(0, 255, "HU"))
    assert digest(values, LEVEL) != digest(values.reshape(1, 6, 4), LEVEL)


def test_large_integers_are_exact_or_refused():
    """Integers between 2**24 and 2**53 stay apart; beyond, nothing is pretended."""
    values = np.array([[[2**24, 2**24 + 1, 2**40]]])
    assert digest(values, LEVEL) == digest(values.astype(np.float64), LEVEL)
    assert digest(values, LEVEL) != digest(values - [[[0, 1, 0]]], LEVEL)
    with pytest.raises(DataError, match="2\\*\\*53"):
        digest(np.array([[[2**53 + 1]]]), LEVEL)


def test_an_empty_array_has_a_digest():
    """Zero pixels are a value too."""
    assert len(digest(np.zeros((1, 0, 3)), LEVEL)) == 64
