from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from medtrust.errors import DataError
from medtrust.images import difference, normalise, render
from medtrust.types import Intensity

LEVEL = Intensity(0, 255, "level")


def decoded(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def chunk_names(png: bytes) -> set[bytes]:
    names, at = set(), 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        names.add(png[at + 4 : at + 8])
        at += 12 + length
    return names


def test_normalise_maps_the_declared_range_to_zero_and_one():
    """The range decides, not the pixels present; what lies outside saturates in the copy only."""
    pixels = np.array([[[-2000, -1024, 1023.5, 3071, 9000]]])
    before = pixels.copy()
    found = normalise(pixels, Intensity(-1024, 3071, "HU", (0, 1)))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[[0, 0, 0.5, 1, 1]]])
    np.testing.assert_array_equal(pixels, before)


def test_normalise_keeps_all_levels_of_a_16_bit_ramp():
    """65536 levels stay 65536 distinct numbers."""
    ramp = np.arange(65536, dtype=np.uint16).reshape(1, 256, 256)
    assert len(np.unique(normalise(ramp, Intensity(0, 65535, "level")))) == 65536


def test_a_16_bit_ramp_renders_as_a_ramp():
    """The picture of a ramp uses all 256 greys in rising order."""
    ramp = np.arange(65536, dtype=np.uint16).reshape(1, 256, 256)
    picture = decoded(render(ramp, Intensity(0, 65535, "level"), size=256))
    assert len(np.unique(picture)) == 256
    assert (np.diff(picture.ravel().astype(int)) >= 0).all()


def test_the_window_decides_what_is_seen():
    """With a window, its ends are black and white."""
    pixels = np.array([[[-1000, -160, 40, 240, 3000]]], np.int16)
    found = decoded(render(pixels, Intensity(-1024, 3071, "HU", (-160, 240)), size=5))
    assert found.tolist() == [[0, 0, 128, 255, 255]]


def test_pictures_are_the_same_bytes_and_hold_no_metadata(rng):
    """Evidence can be compared by digest and leaks nothing."""
    pixels = rng.integers(0, 256, (3, 31, 17), dtype=np.uint8)
    first = render(pixels, LEVEL)
    assert first == render(np.asfortranarray(pixels.copy()), LEVEL)
    assert chunk_names(first) == {b"IHDR", b"IDAT", b"IEND"}
    assert chunk_names(difference(pixels, pixels, LEVEL)) == {b"IHDR", b"IDAT", b"IEND"}


def test_small_images_grow_without_new_values(rng):
    """Enlarging repeats pixels."""
    pixels = rng.integers(0, 256, (3, 8, 8), dtype=np.uint8)
    picture = decoded(render(pixels, LEVEL, size=192))
    assert picture.shape == (192, 192, 3)
    np.testing.assert_array_equal(picture[::24, ::24].transpose(2, 0, 1), pixels)


@pytest.mark.parametrize(
    ("shape", "expected"), [((1, 400, 100), (192, 48)), ((2, 50, 50), (96, 192)), ((1, 1, 1), (192, 192))]
)
def test_pictures_keep_their_proportions(shape, expected):
    """The longest side has the size asked for; two channels stand side by side."""
    assert decoded(render(np.zeros(shape), LEVEL)).shape == expected


def test_a_constant_image_and_a_step_window_can_be_drawn():
    """Neither divides by zero."""
    picture = decoded(render(np.full((1, 4, 4), 7.0), Intensity(0, 255, "level", (7.0, 7.0)), size=4))
    assert np.unique(picture).tolist() == [0]


def test_the_difference_is_black_where_images_agree(rng):
    """Equal pixels are black, and a quarter of the range is white, in either order, for unsigned pixels too."""
    a = rng.integers(0, 180, (1, 6, 6), dtype=np.uint8)
    b = a.copy()
    b[0, 2, 3] += 70
    found = decoded(difference(a, b, LEVEL, size=6))
    assert difference(a, b, LEVEL, size=6) == difference(b, a, LEVEL, size=6)
    assert found[2, 3] == 255
    assert found.sum() == 255


def test_images_of_different_shapes_have_no_difference():
    """A mismatch is a sentence, not a crash in numpy."""
    with pytest.raises(DataError, match="shapes"):
        difference(np.zeros((1, 2, 3)), np.zeros((1, 3, 2)), LEVEL)


def test_only_images_can_be_drawn():
    """A volume or nothing at all is refused."""
    for shape in ((2, 2), (1, 2, 2, 2), (1, 0, 4)):
        with pytest.raises(DataError, match="drawn"):
            render(np.zeros(shape), LEVEL)
