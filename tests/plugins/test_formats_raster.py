from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from medtrust.errors import DataError, SafetyError
from medtrust.types import Intensity, Limits
from medtrust_formats.raster import BmpReader, JpegReader, PngReader

LIMITS = Limits()


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def raw_png(pixels: np.ndarray, depth: int = 16, extra: bytes = b"", size: tuple[int, int] | None = None) -> bytes:
    """Encode [H, W, C] by hand, since Pillow cannot write 16-bit colour."""
    height, width, channels = pixels.shape
    width, height = size or (width, height)
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2" if depth == 16 else "u1").tobytes() for row in pixels)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def read(reader, path):
    (header,) = reader.scan(path, LIMITS)
    pixels = reader.read(path, header, LIMITS)
    assert (pixels.shape, pixels.dtype.name) == (header.shape, header.dtype)
    assert pixels.flags.c_contiguous
    return pixels, header


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_all_65536_levels_of_a_16_bit_png_survive(tmp_path, channels):
    """Grey, grey with alpha, colour and colour with alpha keep every level of a ramp in every channel."""
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    planes = [np.roll(ramp, 1000 * c, axis=0) for c in range(1 if channels < 3 else 3)]
    stored = [*planes, np.full_like(ramp, 65535)] if channels in (2, 4) else planes
    path = tmp_path / "ramp.png"
    path.write_bytes(raw_png(np.stack(stored, axis=-1)))
    pixels, header = read(PngReader(), path)
    np.testing.assert_array_equal(pixels, np.stack(planes))
    assert header.intensity is None


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (31, 17)])
@pytest.mark.parametrize(("reader", "suffix"), [(PngReader(), "png"), (BmpReader(), "bmp")])
@pytest.mark.parametrize("colour", [False, True])
def test_levels_of_lossless_formats_are_exact(tmp_path, rng, reader, suffix, shape, colour):
    """PNG and BMP give back what was stored, one-pixel images too."""
    stored = rng.integers(0, 256, (*shape, 3) if colour else shape, dtype=np.uint8)
    Image.fromarray(stored).save(tmp_path / f"a.{suffix}")
    pixels, header = read(reader, tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(pixels, stored.transpose(2, 0, 1) if colour else stored[None])
    assert header.intensity == Intensity(0, 255, "level")


def test_a_constant_image_is_read(tmp_path):
    """Nothing is stretched to the range that happens to be present."""
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(tmp_path / "a.png")
    assert np.unique(read(PngReader(), tmp_path / "a.png")[0]).tolist() == [7]


def test_a_palette_becomes_its_colours(tmp_path, rng):
    """Indices are never mistaken for levels."""
    indices = rng.integers(0, 4, (5, 6), dtype=np.uint8)
    colours = rng.integers(0, 256, (4, 3), dtype=np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())
    assert image.mode == "P"
    image.save(tmp_path / "a.png")
    pixels, _ = read(PngReader(), tmp_path / "a.png")
    np.testing.assert_array_equal(pixels, colours[indices].transpose(2, 0, 1))


def test_one_bit_images_are_black_and_white(tmp_path):
    """A bitmap is 0 and 255, not 0 and 1."""
    bits = np.array([[True, False, True]])
    Image.fromarray(bits).save(tmp_path / "a.png")
    assert read(PngReader(), tmp_path / "a.png")[0].tolist() == [[[255, 0, 255]]]


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_opaque_alpha_is_dropped_and_transparency_refused(tmp_path, rng, mode):
    """What shows through a pixel is not guessed."""
    stored = rng.integers(0, 256, (4, 5, len(mode)), dtype=np.uint8)
    stored[..., -1] = 255
    Image.fromarray(stored, mode).save(tmp_path / "a.png") if mode == "LA" else Image.fromarray(stored).save(
        tmp_path / "a.png"
    )
    np.testing.assert_array_equal(read(PngReader(), tmp_path / "a.png")[0], stored[..., :-1].transpose(2, 0, 1))
    stored[2, 2, -1] = 254
    Image.fromarray(stored, mode).save(tmp_path / "b.png") if mode == "LA" else Image.fromarray(stored).save(
        tmp_path / "b.png"
    )
    with pytest.raises(DataError, match=r"b\.png has transparent"):
        read(PngReader(), tmp_path / "b.png")


@pytest.mark.parametrize(
    ("depth", "channels", "colour_key"),
    [(8, 1, (9,)), (8, 3, (9, 9, 9)), (16, 1, (9,)), (16, 3, (9, 9, 9))],
)
def test_a_transparent_colour_is_refused_where_it_occurs(tmp_path, depth, channels, colour_key):
    """A colour that the file calls transparent counts as transparency."""
    pixels = np.full((2, 2, channels), 9, np.uint16)
    extra = chunk(b"tRNS", struct.pack(f">{channels}H", *colour_key))
    (tmp_path / "a.png").write_bytes(raw_png(pixels, depth, extra))
    with pytest.raises(DataError, match="transparent"):
        read(PngReader(), tmp_path / "a.png")


def test_sixteen_bit_alpha_is_refused_where_it_shows(tmp_path, rng):
    """The 16-bit road treats alpha as the 8-bit road does."""
    pixels = rng.integers(0, 65536, (4, 4, 4)).astype(np.uint16)
    pixels[..., 3] = 65535
    pixels[1, 2, 3] = 65534
    (tmp_path / "a.png").write_bytes(raw_png(pixels))
    with pytest.raises(DataError, match="transparent"):
        read(PngReader(), tmp_path / "a.png")


@pytest.mark.parametrize(("reader", "kind"), [(PngReader(), "PNG"), (JpegReader(), "JPEG"), (BmpReader(), "BMP")])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, rng, reader, kind):
    """Half an image is never an image."""
    path = tmp_path / "cut.img"
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path, kind)
    data = path.read_bytes()
    for keep in (len(data) // 2, 20, 3):
        path.write_bytes(data[:keep])
        with pytest.raises(DataError, match=r"cut\.img"):
            read(reader, path)


def test_a_truncated_16_bit_colour_png_is_an_error(tmp_path, rng):
    """The second decoder is as strict as the first."""
    data = raw_png(rng.integers(0, 65536, (32, 32, 3)).astype(np.uint16))
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"cut\.png"):
        read(PngReader(), tmp_path / "cut.png")


def test_accepting_truncated_images_elsewhere_is_refused(tmp_path, rng, monkeypatch):
    """Another library's global switch cannot weaken the audit."""
    Image.fromarray(rng.integers(0, 256, (4, 4), dtype=np.uint8)).save(tmp_path / "a.png")
    (header,) = PngReader().scan(tmp_path / "a.png", LIMITS)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(SafetyError, match="LOAD_TRUNCATED_IMAGES"):
        PngReader().read(tmp_path / "a.png", header, LIMITS)


@pytest.mark.parametrize("size", [(60_000, 60_000), (20_000, 20_000)])
def test_a_header_that_claims_too_many_pixels_is_refused(tmp_path, size):
    """A bomb is refused from its header."""
    (tmp_path / "bomb.png").write_bytes(raw_png(np.zeros((1, 1, 1), np.uint16), 8, size=size))
    with pytest.raises(SafetyError, match=r"bomb\.png"):
        PngReader().scan(tmp_path / "bomb.png", LIMITS)


def test_limits_are_enforced_while_reading_too(tmp_path, rng):
    """A file that changed since it was scanned meets the same limits."""
    Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)).save(tmp_path / "a.png")
    (header,) = PngReader().scan(tmp_path / "a.png", LIMITS)
    with pytest.raises(SafetyError):
        PngReader().read(tmp_path / "a.png", header, Limits(max_pixels=1599))
    with pytest.raises(SafetyError):
        PngReader().read(tmp_path / "a.png", header, Limits(max_file_bytes=100))


def test_orientation_is_noted_and_not_applied(tmp_path, rng):
    """The pixels are those of the file; the tag is there to be seen."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rng.integers(0, 256, (8, 24), dtype=np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    pixels, header = read(JpegReader(), tmp_path / "a.jpg")
    assert pixels.shape == (1, 8, 24)
    assert header.attributes == {"exif_orientation": "6"}


def test_an_animation_and_cmyk_are_refused(tmp_path, rng):
    """What has no agreed single image or levels is not reduced to one."""
    frames = [Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)) for _ in range(2)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="animation"):
        PngReader().scan(tmp_path / "a.png", LIMITS)
    Image.new("CMYK", (8, 8)).save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="CMYK"):
        JpegReader().scan(tmp_path / "a.jpg", LIMITS)


def test_other_decoders_are_never_tried(tmp_path, rng):
    """A reader reads its own format and no other that Pillow happens to know."""
    Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / "a.gif")
    for reader in (PngReader(), JpegReader(), BmpReader()):
        with pytest.raises(DataError, match=r"a\.gif"):
            reader.scan(tmp_path / "a.gif", LIMITS)
