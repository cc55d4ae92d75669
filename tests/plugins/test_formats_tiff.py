from __future__ import annotations

import contextlib
import struct
import tracemalloc
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from medtrust.errors import DataError, SafetyError
from medtrust.types import Intensity, Limits
from medtrust_formats.tiff import TiffReader

LIMITS = Limits()


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def read(path, limits=LIMITS):
    reader = TiffReader()
    headers = reader.scan(path, limits)
    images = [reader.read(path, header, limits) for header in headers]
    for image, header in zip(images, headers, strict=True):
        assert (image.shape, image.dtype.name) == (header.shape, header.dtype)
        assert image.flags.c_contiguous
    return images, headers


@pytest.mark.parametrize("compression", [None, "zlib", "packbits"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
def test_grey_values_are_exact(tmp_path, rng, dtype, byteorder, compression):
    """Every dtype, byte order and lossless compression gives the stored values in native order."""
    stored = (rng.random((13, 9)) * 200).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", stored, compression=compression, byteorder=byteorder)
    (image,), (header,) = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(image[0], stored)
    assert header.intensity == (Intensity(0, 255, "level") if dtype == "uint8" else None)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_all_65536_levels_of_16_bit_colour_survive(tmp_path, planar):
    """Interleaved or planar, no level is lost."""
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    planes = np.stack([ramp, ramp.T, ramp[::-1]])
    stored = planes if planar == "separate" else planes.transpose(1, 2, 0)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar)
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[0][0], planes)


def test_all_levels_of_a_16_bit_lzw_ramp_survive(tmp_path):
    """The second decoder keeps them too."""
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(ramp).save(tmp_path / "a.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[0][0][0], ramp)


@pytest.mark.parametrize("colour", [False, True])
def test_lzw_levels_are_exact(tmp_path, rng, colour):
    """8-bit LZW is read, grey and colour."""
    stored = rng.integers(0, 256, (12, 7, 3) if colour else (12, 7), dtype=np.uint8)
    Image.fromarray(stored).save(tmp_path / "a.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[0][0], stored.transpose(2, 0, 1) if colour else stored[None])


def test_tiled_files_are_read(tmp_path, rng):
    """Tiles at the border do not change the image."""
    stored = rng.integers(0, 65536, (50, 37)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stored, tile=(16, 16), compression="zlib")
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[0][0][0], stored)


def test_each_page_is_an_image_of_one_series(tmp_path, rng):
    """A stack has as many images as pages, which belong together."""
    stored = rng.integers(0, 65536, (4, 6, 5)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack")
    images, headers = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(np.concatenate(images), stored)
    assert [header.index for header in headers] == [0, 1, 2, 3]
    assert {header.attributes["series"] for header in headers} == {"a.tif"}


def test_reduced_copies_are_no_images(tmp_path, rng):
    """A thumbnail page is not counted."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(rng.integers(0, 256, (8, 8), dtype=np.uint8))
        file.write(rng.integers(0, 256, (4, 4), dtype=np.uint8), subfiletype=1)
    assert [header.shape for header in read(tmp_path / "a.tif")[1]] == [(1, 8, 8)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_min_is_white_is_inverted(tmp_path, rng, dtype):
    """Small values that the file shows bright become large."""
    stored = rng.integers(0, np.iinfo(dtype).max, (6, 6)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="miniswhite")
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[0][0][0], np.iinfo(dtype).max - stored)


def test_a_palette_becomes_its_colours(tmp_path, rng):
    """Indices are never mistaken for levels."""
    indices = rng.integers(0, 256, (6, 6), dtype=np.uint8)
    colours = rng.integers(0, 256, (256, 3), dtype=np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())
    image.save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[0][0], colours[indices].transpose(2, 0, 1))


def test_alpha_is_dropped_if_opaque_and_refused_if_not(tmp_path, rng):
    """The rule of PNG holds for TIFF."""
    stored = rng.integers(0, 65535, (5, 5, 4)).astype(np.uint16)
    stored[..., 3] = 65535
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[0][0], stored[..., :3].transpose(2, 0, 1))
    stored[0, 0, 3] = 0
    tifffile.imwrite(tmp_path / "b.tif", stored, photometric="rgb", extrasamples=["unassalpha"])
    with pytest.raises(DataError, match=r"b\.tif has transparent"):
        read(tmp_path / "b.tif")


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_one_bit_images_are_black_and_white(tmp_path, rng, photometric):
    """A bitmap is 0 and 255, not 0 and 1."""
    bits = rng.integers(0, 2, (9, 13)).astype(bool)
    tifffile.imwrite(tmp_path / "a.tif", bits, photometric=photometric)
    expected = bits if photometric == "minisblack" else ~bits
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[0][0][0], expected * np.uint8(255))


def test_all_levels_of_16_bit_lzw_colour_survive(tmp_path):
    """Compression with a predictor loses nothing."""
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    stored = np.stack([ramp, ramp.T, ramp[:, ::-1]], axis=-1)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", compression="lzw", predictor=True)
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[0][0], stored.transpose(2, 0, 1))


def test_lossy_compression_and_odd_samples_are_refused(tmp_path, rng):
    """What is not read is named, not approximated."""
    tifffile.imwrite(tmp_path / "a.tif", rng.integers(0, 256, (16, 16), dtype=np.uint8), compression="jpeg")
    with pytest.raises(DataError, match="compressed as JPEG"):
        TiffReader().scan(tmp_path / "a.tif", LIMITS)
    tifffile.imwrite(tmp_path / "b.tif", rng.integers(0, 256, (16, 16, 5), dtype=np.uint8), planarconfig="contig")
    with pytest.raises(DataError, match="5 samples"):
        TiffReader().scan(tmp_path / "b.tif", LIMITS)


def test_damaged_files_are_errors_that_name_them(tmp_path, rng):
    """Truncation and noise give a sentence."""
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, rng.integers(0, 65536, (64, 64)).astype(np.uint16))
    data = path.read_bytes()
    for keep in (len(data) // 2, 100, 9, 4):
        path.write_bytes(data[:keep])
        with pytest.raises(DataError, match=r"cut\.tif"):
            read(path)


def test_limits_hold_for_pages_pixels_and_bytes(tmp_path, rng):
    """Each cap is enforced from the header."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, rng.integers(0, 256, (5, 8, 8), dtype=np.uint8), photometric="minisblack")
    for limits in (Limits(max_frames=4), Limits(max_pixels=63), Limits(max_file_bytes=64)):
        with pytest.raises(SafetyError):
            TiffReader().scan(path, limits)
    assert len(TiffReader().scan(path, Limits(max_frames=5, max_pixels=64))) == 5


@pytest.mark.parametrize("compression", ["zlib", "lzw", "packbits"])
def test_a_strip_that_inflates_beyond_its_pixels_allocates_nothing(tmp_path, compression):
    """A bomb inside a small image is bounded by the pixels that the image declares."""
    path = tmp_path / "bomb.tif"
    tifffile.imwrite(path, np.ones((8, 8), np.uint8), compression=compression)
    nothing = bytes(40_000_000)
    if compression == "packbits":
        bomb = b"\x81\0" * (len(nothing) // 128)  # each pair stands for 128 zeros
    else:
        bomb = zlib.compress(nothing) if compression == "zlib" else imagecodecs.lzw_encode(nothing)
    with tifffile.TiffFile(path) as file:
        tags = file.pages[0].tags
        at = {name: tags[name].offset for name in ("StripOffsets", "StripByteCounts")}
    data = bytearray(path.read_bytes())
    for name, value in (("StripOffsets", len(data)), ("StripByteCounts", len(bomb))):
        struct.pack_into("<HII", data, at[name] + 2, 4, 1, value)  # type LONG, one value, inline
    path.write_bytes(bytes(data) + bomb)
    (header,) = TiffReader().scan(path, LIMITS)
    tracemalloc.start()
    with contextlib.suppress(DataError):  # some codecs stop at the declared size, others object; both are safe
        assert TiffReader().read(path, header, LIMITS).shape == (1, 8, 8)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000
