from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from medtrust.errors import DataError, SafetyError
from medtrust.types import Intensity, Limits
from medtrust_formats.arrays import ArrayReader

LIMITS = Limits()


@pytest.fixture
def rng():
    return np.random.default_rng(13)


def read(path, limits=LIMITS):
    reader = ArrayReader()
    headers = reader.scan(path, limits)
    images = [reader.read(path, header, limits) for header in headers]
    for image, header in zip(images, headers, strict=True):
        assert (image.shape, image.dtype.name) == (header.shape, header.dtype)
        assert image.flags.c_contiguous
    return np.stack(images), headers


def npy(array, **options) -> bytes:
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.save, np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    ("shape", "as_nchw"),
    [
        ((4, 5), lambda a: a[None, None]),
        ((6, 4, 5), lambda a: a[:, None]),
        ((6, 3, 4, 5), lambda a: a),
        ((6, 2, 4, 5), lambda a: a),
        ((6, 8, 5, 3), lambda a: a.transpose(0, 3, 1, 2)),
        ((6, 8, 5, 1), lambda a: a.transpose(0, 3, 1, 2)),
        ((1, 1, 1, 1), lambda a: a),
    ],
)
def test_every_layout_gives_channels_first(tmp_path, rng, shape, as_nchw, save, order):
    """Grey, colour, channels first or last, C or Fortran order, plain or compressed."""
    stored = np.asarray(rng.integers(0, 256, shape, dtype=np.uint8), order=order)
    path = tmp_path / ("a.npy" if save is np.save else "a.npz")
    save(path, stored) if save is np.save else save(path, images=stored)
    pixels, headers = read(path)
    np.testing.assert_array_equal(pixels, as_nchw(stored))
    assert {header.intensity for header in headers} == {Intensity(0, 255, "level")}


@pytest.mark.parametrize("dtype", ["uint16", ">u2", "int16", "int32", "int64", "float16", ">f4", "float64"])
def test_values_are_exact_in_native_order_and_the_range_stays_open(tmp_path, rng, dtype):
    """No type but uint8 tells its range."""
    stored = (rng.random((3, 4, 5)) * 1000).astype(dtype)
    np.save(tmp_path / "a.npy", stored)
    pixels, headers = read(tmp_path / "a.npy")
    np.testing.assert_array_equal(pixels[:, 0], stored)
    assert headers[0].intensity is None


def test_what_lies_beside_the_images_travels_with_them(tmp_path, rng):
    """Range, unit, patients and labels reach the headers."""
    np.savez(
        tmp_path / "a.npz",
        images=rng.random((3, 4, 4)),
        intensity=[-1, 2],
        unit="mg",
        patients=np.array([7, 7, 8]),
        labels=np.array(["x", "y", "x"]),
        groups=np.arange(3),
        table=np.zeros((2, 2)),
    )
    _, headers = read(tmp_path / "a.npz")
    assert headers[0].intensity == Intensity(-1, 2, "mg")
    assert [header.patient for header in headers] == ["7", "7", "8"]
    assert [dict(header.attributes) for header in headers][1] == {"labels": "y", "groups": "1"}


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ({"patients": np.array(["a"])}, "patients"),
        ({"patients": np.array(["a", "", "b"])}, "empty"),
        ({"patients": np.array([0.5, 1.5, 2.5])}, "patients"),
        ({"intensity": [1, 0]}, "intensity"),
        ({"intensity": [0, np.inf]}, "intensity"),
        ({"intensity": [0, 1, 2]}, "intensity"),
        ({"intensity": [0, 1], "unit": "x" * 99}, "unit"),
    ],
)
def test_wrong_companions_are_errors(tmp_path, beside, message):
    """A declaration that cannot be meant is not half used."""
    np.savez(tmp_path / "a.npz", images=np.zeros((3, 4, 4)), **beside)
    with pytest.raises(DataError, match=message):
        ArrayReader().scan(tmp_path / "a.npz", LIMITS)


@pytest.mark.parametrize("array", [np.zeros((2, 3, 4), bool), np.zeros((2, 3, 4), complex), np.array([["a"]])])
def test_values_that_are_no_pixels_are_refused(tmp_path, array):
    """Masks, complex numbers and texts are no images."""
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match="integers or floats"):
        ArrayReader().scan(tmp_path / "a.npy", LIMITS)


@pytest.mark.parametrize("shape", [(5,), (0, 4, 4), (2, 8, 8, 8), (2, 3, 4, 5, 6)])
def test_shapes_that_are_no_images_are_refused(tmp_path, shape):
    """What could be read in two ways, or in none, is an error."""
    np.save(tmp_path / "a.npy", np.zeros(shape))
    with pytest.raises(DataError, match="shape"):
        ArrayReader().scan(tmp_path / "a.npy", LIMITS)


def test_pickles_are_never_loaded(tmp_path):
    """Objects are refused in every position, and nothing of them runs."""
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (ran.write_text, ("x",))

    objects = np.array([Evil()], dtype=object)
    (tmp_path / "a.npy").write_bytes(npy(objects, allow_pickle=True))
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("images.npy", npy(objects, allow_pickle=True))
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as archive:
        archive.writestr("images.npy", npy(np.zeros((1, 2, 2))))
        archive.writestr("patients.npy", npy(objects, allow_pickle=True))
    for name in ("a.npy", "b.npz", "c.npz"):
        with pytest.raises(SafetyError, match="pickled"):
            ArrayReader().scan(tmp_path / name, LIMITS)
    assert not ran.exists()


@pytest.mark.parametrize("name", ["../images.npy", "/images.npy", "a/images.npy", "images.txt", "..npy"])
def test_archives_with_odd_names_are_refused(tmp_path, name):
    """A zip entry is an array name and nothing else."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", npy(np.zeros((1, 2, 2))))
        archive.writestr(name, b"x")
    with pytest.raises(SafetyError, match="plain array name"):
        ArrayReader().scan(tmp_path / "a.npz", LIMITS)


def test_a_zip_bomb_is_refused_from_its_table(tmp_path):
    """A gigabyte of nothing is not inflated."""
    with (
        zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("images.npy", "w", force_zip64=True) as file,
    ):
        file.write(npy(np.zeros((1, 1)))[:128])
        for _ in range(200):
            file.write(bytes(1_000_000))
    assert (tmp_path / "bomb.npz").stat().st_size < 1_000_000
    with pytest.raises(SafetyError, match="bomb"):
        ArrayReader().scan(tmp_path / "bomb.npz", LIMITS)


def test_a_bomb_beside_honest_images_is_refused(tmp_path, rng):
    """Incompressible images do not buy room for a member that inflates a thousandfold."""
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", npy(rng.integers(0, 256, (100, 100, 100), dtype=np.uint8)))
        archive.writestr("labels.npy", npy(np.zeros(20_000_000, np.uint8)))
    with pytest.raises(SafetyError, match="bomb"):
        ArrayReader().scan(tmp_path / "bomb.npz", LIMITS)


def test_small_constant_images_are_no_bomb(tmp_path):
    """A collapsed generator compresses well and is still read."""
    np.savez_compressed(tmp_path / "a.npz", images=np.full((64, 100, 100), 3, np.uint8))
    pixels, _ = read(tmp_path / "a.npz")
    assert np.unique(pixels).tolist() == [3]


@pytest.mark.parametrize("save", [np.save, np.savez, np.savez_compressed])
def test_truncated_files_are_errors_that_name_them(tmp_path, rng, save):
    """A cut archive or array is never padded."""
    path = tmp_path / ("cut.npy" if save is np.save else "cut.npz")
    stored = rng.integers(0, 256, (8, 16, 16), dtype=np.uint8)
    save(path, stored) if save is np.save else save(path, images=stored)
    data = path.read_bytes()
    for keep in (len(data) - 8, len(data) // 2, 60, 4):
        path.write_bytes(data[:keep])
        with pytest.raises(DataError, match=r"cut\.np"):
            read(path)


def test_an_array_shorter_than_its_header_is_refused(tmp_path):
    """A header inside a sound archive can lie too."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", npy(np.zeros((40, 8, 8)))[:-64])
    with pytest.raises(DataError, match="cut short"):
        ArrayReader().scan(tmp_path / "a.npz", LIMITS)


def test_an_archive_without_images_says_what_it_holds(tmp_path):
    """The remedy is in the sentence."""
    np.savez(tmp_path / "a.npz", pictures=np.zeros((2, 2, 2)))
    with pytest.raises(DataError, match=r"'images' but pictures"):
        ArrayReader().scan(tmp_path / "a.npz", LIMITS)


def test_a_damaged_member_is_found_by_its_checksum(tmp_path, rng):
    """One flipped bit in a stored array is an error."""
    np.savez(tmp_path / "a.npz", images=rng.integers(0, 256, (8, 16, 16), dtype=np.uint8))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "a.npz").write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"a\.npz"):
        read(tmp_path / "a.npz")


def test_records_do_not_hold_the_whole_file(tmp_path, rng):
    """Each image owns its memory, so that one record does not keep a set alive."""
    np.savez(tmp_path / "a.npz", images=rng.integers(0, 256, (8, 16, 16), dtype=np.uint8))
    reader = ArrayReader()
    header = reader.scan(tmp_path / "a.npz", LIMITS)[3]
    pixels = reader.read(tmp_path / "a.npz", header, LIMITS)
    assert pixels.base is None
    assert pixels.flags.writeable
