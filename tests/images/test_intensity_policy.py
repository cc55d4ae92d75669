from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from medtrust.errors import ConfigError, DataError
from medtrust.images import CT_RANGE, common_intensity, open_set, parse_intensity
from medtrust.types import Intensity


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0:4095", Intensity(0, 4095, "a.u.")),
        ("-1024:3071:HU", Intensity(-1024, 3071, "HU")),
        ("-0.5:1e3:mg/ml", Intensity(-0.5, 1000, "mg/ml")),
        ("0:1:a:b", Intensity(0, 1, "a:b")),
    ],
)
def test_a_declared_range_is_read(text, expected):
    """LO:HI with an optional unit."""
    assert parse_intensity(text) == expected


@pytest.mark.parametrize(
    "text", ["", "5", "a:b", "1:0", "0:0", "0:inf", "nan:1", "0:1:", "0:1:" + "x" * 17, "0:1:\x1b["]
)
def test_a_wrong_range_is_a_configuration_error(text):
    """Every malformed range is refused with the form that is expected."""
    with pytest.raises(ConfigError):
        parse_intensity(text)


def test_eight_bit_levels_need_no_declaration(tmp_path, readers, png, rng):
    """uint8 is 0..255 levels."""
    png(tmp_path / "a.png", rng.integers(0, 256, (3, 3), dtype=np.uint8))
    assert open_set(tmp_path, "train", readers).intensity == Intensity(0, 255, "level")


@pytest.mark.parametrize("kind", ["png16", "tiff16", "npz-float", "nifti"])
def test_an_undeclared_range_is_refused_with_the_option_that_helps(tmp_path, readers, rng, kind):
    """Where the file leaves the range open the user is asked, and the answer is enough."""
    pixels = rng.integers(0, 4096, (6, 5)).astype(np.uint16)
    if kind == "png16":
        Image.fromarray(pixels).save(tmp_path / "a.png")
    elif kind == "tiff16":
        tifffile.imwrite(tmp_path / "a.tif", pixels)
    elif kind == "npz-float":
        np.savez(tmp_path / "a.npz", images=pixels[None].astype(np.float32))
    else:
        import nibabel as nib

        nib.save(nib.Nifti1Image(pixels.astype(np.int16)[..., None], np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(DataError, match=r"a\.\w+.*--intensity LO:HI"):
        open_set(tmp_path, "train", readers)
    declared = open_set(tmp_path, "train", readers, intensity=parse_intensity("0:4095"))
    assert declared.intensity == Intensity(0, 4095, "a.u.")
    assert declared[0].pixels.max() == pixels.max()


def test_mixed_depths_name_both_files(tmp_path, readers, png, rng):
    """8-bit and 16-bit levels share no range, declared or not."""
    png(tmp_path / "narrow.png", rng.integers(0, 256, (3, 3), dtype=np.uint8))
    png(tmp_path / "wide.png", rng.integers(0, 65536, (3, 3)).astype(np.uint16))
    for declared in (None, Intensity(0, 4095, "level")):
        with pytest.raises(DataError, match=r"narrow\.png.*wide\.png"):
            open_set(tmp_path, "train", readers, intensity=declared)


def test_ranges_that_differ_inside_a_set_name_both_files(tmp_path, readers, rng):
    """Two declared ranges are never merged in silence."""
    for name, hi in (("a", 1.0), ("b", 2.0)):
        np.savez(tmp_path / f"{name}.npz", images=np.zeros((1, 2, 2)), intensity=[0.0, hi], unit="a.u.")
    with pytest.raises(DataError, match=r"a\.npz.*b\.npz.*--intensity"):
        open_set(tmp_path, "train", readers)
    assert open_set(tmp_path, "train", readers, intensity=Intensity(0, 2, "a.u.")).intensity.hi == 2


def test_ct_of_any_storage_shares_one_range(tmp_path, readers, ct, rng):
    """12-bit and 16-bit series are both HU: one range, exact values, and the storage on record."""
    hu = rng.integers(-1024, 3072, (6, 6))
    metal = hu.copy()
    metal[2, 3] = 9000
    ct(tmp_path / "a.dcm", hu, z=0, bits=12)
    ct(tmp_path / "b.dcm", metal, z=1, bits=16)
    images = open_set(tmp_path, "train", readers)
    assert (images.intensity.lo, images.intensity.hi, images.intensity.unit) == (CT_RANGE.lo, CT_RANGE.hi, "HU")
    np.testing.assert_array_equal(images[0].pixels[0], hu)
    np.testing.assert_array_equal(images[1].pixels[0], metal)
    described = images.describe()
    assert described["outside_range"]["pixels"] == 1
    assert described["stored_intensity"] == [
        {"lo": -1024.0, "hi": 3071.0, "unit": "HU"},
        {"lo": -1024.0, "hi": 64511.0, "unit": "HU"},
    ]


def test_a_declared_range_keeps_the_unit_and_window_of_the_files(tmp_path, readers, ct):
    """Saying only LO:HI for CT stays in HU; another unit is a contradiction."""
    ct(tmp_path / "a.dcm", np.zeros((3, 3)))
    images = open_set(tmp_path, "train", readers, intensity=parse_intensity("-200:300"))
    assert images.intensity == Intensity(-200, 300, "HU", (-160.0, 239.0))
    assert images.outside == (0,)
    with pytest.raises(DataError, match="HU"):
        open_set(tmp_path, "train", readers, intensity=parse_intensity("-200:300:level"))


def test_sets_that_agree_share_their_range_and_a_window(tmp_path, readers, ct, rng):
    """A generator's HU arrays compare with CT files; the window comes from whichever set knows one."""
    ct(tmp_path / "real" / "a.dcm", np.zeros((3, 3)))
    np.savez(tmp_path / "s.npz", images=np.zeros((2, 3, 3), np.int16), intensity=[-1000, 1000], unit="HU")
    train = open_set(tmp_path / "real", "train", readers)
    synthetic = open_set(tmp_path / "s.npz", "synthetic", readers)
    assert common_intensity([synthetic, train]) == Intensity(-1024, 3071, "HU", (-160.0, 239.0))


def test_sets_that_disagree_are_named_with_a_file_each(tmp_path, readers, png, rng):
    """Levels and physical values never meet in one metric."""
    png(tmp_path / "a" / "real.png", rng.integers(0, 256, (3, 3), dtype=np.uint8))
    np.savez(tmp_path / "fake.npz", images=np.zeros((2, 3, 3)), intensity=[0, 1], unit="a.u.")
    train = open_set(tmp_path / "a", "train", readers)
    synthetic = open_set(tmp_path / "fake.npz", "synthetic", readers)
    with pytest.raises(DataError, match=r"real\.png.*fake\.npz#0.*--intensity"):
        common_intensity([train, synthetic])
