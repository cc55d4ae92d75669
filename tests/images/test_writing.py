from __future__ import annotations

import numpy as np
import pytest

from medtrust.errors import DataError, SafetyError
from medtrust.images import digest, open_set, write_set
from medtrust.types import Intensity

LEVEL = Intensity(0, 255, "level")


@pytest.mark.parametrize(
    ("dtype", "shape", "intensity", "suffix"),
    [
        ("uint8", (1, 7, 5), LEVEL, ".png"),
        ("uint8", (3, 7, 5), LEVEL, ".png"),
        ("uint8", (2, 7, 5), LEVEL, ".npz"),
        ("uint8", (1, 7, 5), Intensity(0, 100, "a.u."), ".npz"),
        ("uint16", (1, 7, 5), Intensity(0, 4095, "level"), ".npz"),
        ("int16", (1, 7, 5), Intensity(-1024, 3071, "HU"), ".npz"),
        ("float32", (3, 1, 1), Intensity(0, 1, "a.u."), ".npz"),
        ("float64", (1, 2, 9), Intensity(-1, 1, "a.u."), ".npz"),
    ],
)
def test_what_is_written_opens_again_unchanged(tmp_path, readers, rng, dtype, shape, intensity, suffix):
    """Values, dtype, range, names and digests survive the round trip."""
    arrays = {f"sample-{i}": (rng.random(shape) * 100).astype(dtype) for i in range(3)}
    paths = write_set(tmp_path / "out", ((name, a[:, ::-1][:, ::-1]) for name, a in arrays.items()), intensity)
    assert [path.name for path in paths] == [f"sample-{i}{suffix}" for i in range(3)]
    images = open_set(tmp_path / "out", "synthetic", readers)
    assert images.intensity == intensity
    for record, (name, expected) in zip(images, arrays.items(), strict=True):
        assert record.name.startswith(name)
        assert record.pixels.dtype == expected.dtype
        np.testing.assert_array_equal(record.pixels, expected)
        assert record.digest == digest(expected, intensity)


def test_the_same_images_write_the_same_bytes(tmp_path, rng):
    """Writing is deterministic, for .npz too."""
    for pixels, intensity in (
        (rng.integers(0, 256, (3, 9, 9), dtype=np.uint8), LEVEL),
        (rng.random((1, 9, 9)), Intensity(0, 1, "a.u.")),
    ):
        first, second = (write_set(tmp_path / f"{side}{pixels.dtype}", [("x", pixels)], intensity)[0] for side in "ab")
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "x\0y", "a\nb", "x" * 300, "<img>"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path, name):
    """A generator cannot write outside its folder."""
    with pytest.raises(SafetyError):
        write_set(tmp_path / "out", [(name, np.zeros((1, 2, 2), np.uint8))], LEVEL)
    assert list((tmp_path / "out").iterdir()) == []


def test_nothing_is_overwritten(tmp_path):
    """A second image of the same name is an error."""
    image = ("x", np.zeros((1, 2, 2), np.uint8))
    with pytest.raises(DataError, match="exists"):
        write_set(tmp_path, [image, image], LEVEL)


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 2)), np.zeros((1, 0, 2)), np.zeros((1, 2, 2), bool), np.zeros((1, 2, 2), complex)]
)
def test_what_is_no_image_is_refused(tmp_path, pixels):
    """Only [C, H, W] numbers are written."""
    with pytest.raises(DataError, match="C, H, W"):
        write_set(tmp_path, [("x", pixels)], LEVEL)
