from __future__ import annotations

import gzip
import itertools

import nibabel as nib
import numpy as np
import pytest

from medtrust.errors import DataError, SafetyError
from medtrust.types import Intensity, Limits
from medtrust_formats.nifti import NiftiReader

LIMITS = Limits()


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def read(path, limits=LIMITS):
    reader = NiftiReader()
    headers = reader.scan(path, limits)
    images = [reader.read(path, header, limits) for header in headers]
    for image, header in zip(images, headers, strict=True):
        assert (image.shape, image.dtype.name) == (header.shape, header.dtype)
        assert image.flags.c_contiguous
    return images, headers


def axial(volume: np.ndarray) -> np.ndarray:
    """What a DICOM axial series of a canonical (right, front, head) volume holds: [slices, rows, columns]."""
    return volume[::-1, ::-1].transpose(2, 1, 0)


ORIENTATIONS = ["".join(codes) for codes in itertools.product("LR", "AP", "IS")] + ["PSR", "SLA", "IPR", "ARS"]


@pytest.mark.parametrize("codes", ORIENTATIONS)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_every_orientation_gives_the_same_axial_slices(tmp_path, rng, codes, suffix):
    """However the file stores its axes, slices agree with nibabel's canonical volume."""
    stored = rng.integers(-1000, 1000, (4, 5, 6)).astype(np.int16)
    start = nib.orientations.axcodes2ornt("RAS")
    turn = nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(codes))
    canonical = nib.Nifti1Image(stored, np.diag([0.5, 0.75, 2.0, 1.0]))
    turned = canonical.as_reoriented(turn)
    assert nib.aff2axcodes(turned.affine) == tuple(codes)
    nib.save(turned, tmp_path / f"a{suffix}")
    images, headers = read(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(np.concatenate(images), axial(stored))
    assert {header.spacing_mm for header in headers} == {(0.75, 0.5)}


def test_an_oblique_volume_goes_to_its_closest_axes(tmp_path, rng):
    """A tilted head is read like nibabel's closest canonical image."""
    angle = 0.4
    tilt = np.array(
        [[1, 0, 0, 3], [0, np.cos(angle), -np.sin(angle), 1], [0, np.sin(angle), np.cos(angle), 2], [0, 0, 0, 1]]
    )
    image = nib.Nifti1Image(rng.random((3, 4, 5)).astype(np.float32), tilt[[0, 2, 1, 3]])
    nib.save(image, tmp_path / "a.nii")
    expected = axial(np.asarray(nib.as_closest_canonical(nib.load(tmp_path / "a.nii")).dataobj))
    np.testing.assert_array_equal(np.concatenate(read(tmp_path / "a.nii")[0]), expected)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "float32", "float64", ">i2", ">f4"])
def test_values_are_exact_for_every_type_and_version(tmp_path, rng, kind, dtype):
    """Integers stay integers wide enough, floats keep their width, bytes come in native order."""
    stored = (rng.random((3, 4, 2)) * 100).astype(dtype)
    image = kind(stored, np.eye(4))
    if dtype.startswith(">"):
        image = kind(stored, np.eye(4), image.header.as_byteswapped(">"))
    nib.save(image, tmp_path / "a.nii.gz")
    images, headers = read(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(np.concatenate(images), axial(stored))
    assert headers[0].dtype == {"int8": "int16", ">i2": "int16", ">f4": "float32"}.get(dtype, dtype)
    assert headers[0].intensity == (Intensity(0, 255, "level") if dtype == "uint8" else None)


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"), [(1, -1024, "int32"), (2, 0, "int32"), (0.5, 0.25, "float32")]
)
def test_the_scale_is_applied_without_wrapping(tmp_path, rng, slope, intercept, dtype):
    """HU of a scaled volume are those of nibabel, extremes included."""
    stored = rng.integers(-32768, 32768, (4, 3, 2)).astype(np.int16)
    stored[0, 0] = (-32768, 32767)
    image = nib.Nifti1Image(stored, np.eye(4))
    nib.save(image, tmp_path / "a.nii")
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[112:120] = np.array([slope, intercept], "<f4").tobytes()  # scl_slope and scl_inter
    (tmp_path / "a.nii").write_bytes(bytes(data))
    images, headers = read(tmp_path / "a.nii")
    assert headers[0].dtype == dtype
    np.testing.assert_array_equal(np.concatenate(images), axial(nib.load(tmp_path / "a.nii").get_fdata()))


def test_time_points_follow_each_other(tmp_path, rng):
    """All slices of the first time point come before those of the second; they share one series."""
    stored = rng.random((3, 4, 2, 3)).astype(np.float32)
    nib.save(nib.Nifti1Image(stored, np.eye(4)), tmp_path / "a.nii.gz")
    images, headers = read(tmp_path / "a.nii.gz")
    expected = np.concatenate([axial(stored[..., t]) for t in range(3)])
    np.testing.assert_array_equal(np.concatenate(images), expected)
    assert {header.attributes["series"] for header in headers} == {"a.nii.gz"}
    assert [header.index for header in headers] == list(range(6))


@pytest.mark.parametrize("shape", [(5, 4), (1, 1, 1), (1, 7, 1)])
def test_small_and_flat_volumes_are_read(tmp_path, rng, shape):
    """A single slice and a single voxel are images."""
    stored = rng.random(shape).astype(np.float32)
    nib.save(nib.Nifti1Image(stored, np.eye(4)), tmp_path / "a.nii")
    images, _ = read(tmp_path / "a.nii")
    np.testing.assert_array_equal(
        np.concatenate(images), axial(stored.reshape(*shape, 1)[..., :1] if len(shape) == 2 else stored)
    )


def test_rgb_voxels_become_channels(tmp_path, rng):
    """A colour volume gives [3, H, W]."""
    values = rng.integers(0, 256, (4, 3, 2, 3), dtype=np.uint8)
    stored = np.ascontiguousarray(values).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nib.save(nib.Nifti1Image(stored, np.eye(4)), tmp_path / "a.nii")
    images, headers = read(tmp_path / "a.nii")
    for channel in range(3):
        np.testing.assert_array_equal(np.stack([image[channel] for image in images]), axial(values[..., channel]))
    assert headers[0].intensity == Intensity(0, 255, "level")


def test_complex_voxels_are_refused(tmp_path):
    """Magnitude or phase is not ours to choose."""
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.complex64), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(DataError, match="complex"):
        NiftiReader().scan(tmp_path / "a.nii", LIMITS)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_truncated_and_damaged_volumes_are_errors_that_name_them(tmp_path, rng, suffix):
    """Header or voxels, plain or compressed: a cut file is never padded."""
    path = tmp_path / f"cut{suffix}"
    nib.save(nib.Nifti1Image(rng.random((16, 16, 4)), np.eye(4)), path)
    data = path.read_bytes()
    for keep in (len(data) - 9, len(data) // 2, 300, 5):
        path.write_bytes(data[:keep])
        with pytest.raises(DataError, match=r"cut\.nii"):
            read(path)
    path.write_bytes(b"not a volume at all" * 40)
    with pytest.raises(DataError, match=r"cut\.nii"):
        read(path)


def test_a_header_that_claims_a_huge_volume_is_refused(tmp_path):
    """Slices, pixels and inflated bytes are capped from the header."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    for shape, limits in (
        ((4, 4, 32767), LIMITS),
        ((30000, 30000, 1), LIMITS),
        ((1000, 1000, 1000), Limits(max_inflated_bytes=10**8)),
        ((1000, 1000, 1000), LIMITS),
    ):
        header.set_data_shape(shape)
        (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(100)))
        with pytest.raises(SafetyError, match=r"bomb\.nii\.gz"):
            NiftiReader().scan(tmp_path / "bomb.nii.gz", limits)


def test_a_gzip_bomb_behind_a_modest_header_is_refused(tmp_path):
    """What inflates beyond what the header announced is stopped while it inflates."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((4, 4, 4))
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(60_000_000)))
    (first, *_) = NiftiReader().scan(tmp_path / "bomb.nii.gz", LIMITS)
    with pytest.raises(SafetyError, match="bomb"):
        NiftiReader().read(tmp_path / "bomb.nii.gz", first, LIMITS)


def test_a_flattened_affine_is_refused(tmp_path):
    """Without an orientation there are no axial slices."""
    image = nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4))
    image.header["srow_x"] = 0
    image.header["sform_code"] = 1
    path = tmp_path / "a.nii"
    nib.save(image, path)
    data = bytearray(path.read_bytes())
    data[280:296] = bytes(16)  # srow_x
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="affine"):
        NiftiReader().scan(path, LIMITS)


def test_a_replaced_file_is_opened_again(tmp_path, rng):
    """Remembered volumes are those of the file as it is now."""
    reader = NiftiReader()
    for fill in (1, 2):
        nib.save(nib.Nifti1Image(np.full((2 + fill, 3, 2), fill, np.int16), np.eye(4)), tmp_path / "a.nii.gz")
        (header, _) = reader.scan(tmp_path / "a.nii.gz", LIMITS)
        assert np.unique(reader.read(tmp_path / "a.nii.gz", header, LIMITS)).tolist() == [fill]
