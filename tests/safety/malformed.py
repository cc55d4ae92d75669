"""A corpus of malformed inputs: each function makes one in an empty folder, and says what it must exit with."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless

Maker = Callable[[Path], None]
CASES: dict[str, tuple[int, Maker]] = {}


def case(code: int) -> Callable[[Maker], Maker]:
    """Enter a maker into the corpus with the exit code that it must give."""

    def enter(maker: Maker) -> Maker:
        CASES[maker.__name__] = (code, maker)
        return maker

    return enter


# --- raster files -----------------------------------------------------------------------------------------------------


def good_png() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def saved(kind: str, mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((24, 24), 50).convert(mode).save(stream, kind)
    return stream.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, body: bytes = b"\0" * 1000) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


for name, code, content in [
    ("png_empty", 2, b""),
    ("png_text", 2, b"this is no image"),
    ("png_only_magic", 2, b"\x89PNG\r\n\x1a\n"),
    ("png_cut_in_half", 2, good_png()[:300]),
    ("png_without_pixels", 2, png(24, 24, b"")),
    ("png_no_width", 2, png(0, 24)),
    ("png_bomb_by_header", 4, png(100_000, 100_000)),
    ("png_negative_height", 4, png(24, 0xFFFFFFFF)),
    ("png_garbage_pixels", 2, good_png()[:60] + b"\xa5" * 200 + good_png()[-12:]),
    ("png_that_is_html", 2, b"<html><script>alert(1)</script></html>"),
    ("png_that_is_a_zip", 2, b"PK\x03\x04" + b"\0" * 100),
    ("jpg_cut", 2, saved("JPEG")[:200]),
    ("jpg_huge", 4, saved("JPEG").replace(struct.pack(">HH", 24, 24), struct.pack(">HH", 65000, 65000), 1)),
    ("jpg_only_header", 2, b"\xff\xd8\xff\xe0\x00\x10JFIF\x00"),
    ("bmp_cut", 2, saved("BMP")[:80]),
    ("bmp_huge", 4, saved("BMP")[:18] + struct.pack("<ii", 2**30, 2**30) + saved("BMP")[26:]),
    ("tiff_cut", 2, saved("TIFF")[:60]),
    ("tiff_no_directory", 2, b"II*\0" + struct.pack("<I", 0)),
    ("tiff_directory_beyond_the_end", 2, b"II*\0" + struct.pack("<I", 10**9)),
    ("tiff_directory_in_a_circle", 2, b"II*\0" + struct.pack("<IHI", 8, 0, 8)),
    ("gif_unknown_format", 2, saved("GIF", "L")),
    ("svg_unknown_format", 2, b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"),
]:
    suffix = name.partition("_")[0]
    CASES[name] = (code, lambda folder, suffix=suffix, content=content: (folder / f"bad.{suffix}").write_bytes(content))


@case(2)
def sixteen_bit_without_a_range(folder: Path) -> None:
    Image.fromarray(np.arange(576, dtype=np.uint16).reshape(24, 24)).save(folder / "deep.png")


@case(2)
def eight_and_sixteen_bit_mixed(folder: Path) -> None:
    sixteen_bit_without_a_range(folder)
    (folder / "flat.png").write_bytes(good_png())


@case(2)
def transparent_pixels(folder: Path) -> None:
    Image.new("RGBA", (24, 24), (10, 20, 30, 40)).save(folder / "ghost.png")


@case(2)
def tiff_of_nan(folder: Path) -> None:
    Image.fromarray(np.full((24, 24), np.nan, np.float32)).save(folder / "nan.tiff")


# --- arrays -----------------------------------------------------------------------------------------------------------


class Payload:
    """Leaves a file behind if anybody unpickles it."""

    def __reduce__(self):
        return (os.mkdir, ("executed",))


def npy_header(shape: tuple[int, ...] | str, descr: str = "'<f4'", body: bytes = b"\0" * 64) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (63 - (10 + len(text)) % 64) + "\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text.encode() + body


for name, code, content in [
    ("npy_cut_header", 2, b"\x93NUMPY\x01\0\x76\0{'descr'"),
    ("npy_more_than_it_holds", 2, npy_header((50, 24, 24))),
    ("npy_huge_shape", 2, npy_header((10**6, 10**6, 10**6))),
    ("npy_negative_shape", 2, npy_header((-1, 24, 24))),
    ("npy_code_in_header", 2, npy_header("__import__('os').mkdir('executed')")),
    ("npy_complex", 2, npy_header((1, 2, 2), "'<c8'")),
    ("npy_texts", 2, npy_header((4, 4, 4), "'<U1'", b"\0" * 256)),
    ("npy_no_images", 2, npy_header((0, 24, 24), body=b"")),
    ("npy_one_dimension", 2, npy_header((16,))),
    ("npz_cut", 2, b"PK\x03\x04" + b"\x14\0" * 20),
]:
    suffix = name.partition("_")[0]
    CASES[name] = (code, lambda folder, suffix=suffix, content=content: (folder / f"bad.{suffix}").write_bytes(content))


@case(4)
def npy_of_objects(folder: Path) -> None:
    np.save(folder / "bad.npy", np.array([Payload()], dtype=object), allow_pickle=True)


@case(4)
def npz_of_objects(folder: Path) -> None:
    np.savez(folder / "bad.npz", images=np.array([Payload()], dtype=object))


@case(2)
def npy_of_nan(folder: Path) -> None:
    np.save(folder / "bad.npy", np.full((3, 24, 24), np.nan, np.float32))


@case(2)
def npz_without_images(folder: Path) -> None:
    np.savez(folder / "bad.npz", weights=np.zeros(3))


@case(2)
def npz_patients_of_another_length(folder: Path) -> None:
    np.savez(folder / "bad.npz", images=np.zeros((3, 24, 24), np.uint8), patients=np.array(["a", "b"]))


@case(4)
def npz_bomb(folder: Path) -> None:
    with (
        zipfile.ZipFile(folder / "bad.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("images.npy", "w") as file,
    ):
        file.write(npy_header((500_000, 32, 32), body=b""))
        file.write(b"\0" * 30_000_000)


@case(4)
def npz_member_that_climbs(folder: Path) -> None:
    with zipfile.ZipFile(folder / "bad.npz", "w") as archive:
        archive.writestr("../../images.npy", npy_header((1, 2, 2)))


@case(4)
def pickle_named_npy(folder: Path) -> None:
    (folder / "bad.npy").write_bytes(pickle.dumps(Payload()))


# --- DICOM ------------------------------------------------------------------------------------------------------------


def dicom(path: Path, syntax: UID = ExplicitVRLittleEndian, pixels: bytes | None = None, **tags: object) -> Path:
    """A small CT slice; tags override, None removes."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3.4"
    data.StudyInstanceUID = data.SeriesInstanceUID = "1.2.3"
    data.Modality, data.PatientID = "CT", "P"
    data.Rows = data.Columns = 24
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    for key, value in tags.items():
        delattr(data, key) if value is None else setattr(data, key, value)
    data.PixelData = np.zeros(576, "<u2").tobytes() if pixels is None else pixels
    data["PixelData"].VR = "OW"
    if syntax.is_encapsulated:
        data["PixelData"].is_undefined_length = True
        data["PixelData"].VR = "OB"
    data.save_as(path, enforce_file_format=True)
    return path


def fragments(body: bytes) -> bytes:
    """One encapsulated frame with an empty offset table."""
    body += b"\0" * (len(body) % 2)
    return b"\xfe\xff\x00\xe0\0\0\0\0" + b"\xfe\xff\x00\xe0" + struct.pack("<I", len(body)) + body


JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"
JPEG2000 = UID("1.2.840.10008.1.2.4.90")
for name, code, options in [
    ("dicom_a_million_frames", 4, {"NumberOfFrames": 1_000_000}),
    ("dicom_negative_frames", 2, {"NumberOfFrames": -3}),
    ("dicom_more_pixels_than_it_holds", 2, {"Rows": 4000, "Columns": 4000}),
    ("dicom_largest_size", 4, {"Rows": 65535, "Columns": 65535}),
    ("dicom_no_rows", 2, {"Rows": 0}),
    ("dicom_slope_zero", 2, {"RescaleSlope": 0}),
    ("dicom_slope_nan", 2, {"RescaleSlope": "nan"}),
    ("dicom_33_bits", 2, {"BitsStored": 33, "BitsAllocated": 16}),
    ("dicom_no_bits", 2, {"BitsStored": 0}),
    ("dicom_signed_colour", 2, {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3, "PixelRepresentation": 1}),
    ("dicom_unknown_photometric", 2, {"PhotometricInterpretation": "<img onerror=x>"}),
    ("dicom_garbage_jpeg2000", 2, {"syntax": JPEG2000, "pixels": fragments(b"\xff\x4f\xff\x51" + b"\x07" * 90)}),
    ("dicom_garbage_rle", 2, {"syntax": RLELossless, "pixels": fragments(b"\x07" * 90)}),
    ("dicom_jp2_box_of_no_length", 2, {"syntax": JPEG2000, "pixels": fragments(JP2 + b"\0" * 40)}),
    ("dicom_jp2_without_codestream", 2, {"syntax": JPEG2000, "pixels": fragments(JP2 + b"\0\0\0\x10free" + b"\0" * 8)}),
    ("dicom_no_frame", 2, {"syntax": JPEG2000, "pixels": fragments(b"")[:8]}),
    ("dicom_only_a_segmentation", 2, {"Modality": "SEG"}),
]:
    CASES[name] = (code, lambda folder, options=options: dicom(folder / "bad.dcm", **options) and None)


@case(2)
def dicom_unknown_syntax(folder: Path) -> None:
    path = dicom(folder / "bad.dcm", JPEG2000, fragments(b"\xff\x4f\xff\x51" + b"\x07" * 90))
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.4.99"))


@case(2)
def dicom_only_a_preamble(folder: Path) -> None:
    (folder / "bad.dcm").write_bytes(b"\0" * 128 + b"DICM")


@case(2)
def dicom_cut(folder: Path) -> None:
    path = dicom(folder / "bad.dcm")
    path.write_bytes(path.read_bytes()[:700])


@case(2)
def dicom_rle_that_panics(folder: Path) -> None:
    """A segment one byte longer than the frame: the decoder panics instead of raising."""

    def runs(length: int) -> bytes:
        return b"".join(bytes((257 - min(128, length - at), 5)) for at in range(0, length, 128))

    segments = runs(576), runs(578)
    head = struct.pack("<16I", 2, 64, 64 + len(segments[0]), *[0] * 13)
    dicom(folder / "bad.dcm", RLELossless, fragments(head + b"".join(segments)))


@case(4)
def dicom_deflate_bomb(folder: Path) -> None:
    dicom(folder / "bad.dcm", DeflatedExplicitVRLittleEndian, Rows=8000, Columns=8000, pixels=b"\0" * 128_000_000)


@case(2)
def dicom_sequences_without_end(folder: Path) -> None:
    path = dicom(folder / "bad.dcm")
    content = path.read_bytes()
    opened = b"\x00\x52\x29\x92SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    path.write_bytes(content[: content.index(b"\xe0\x7f\x10\x00OW")] + 4000 * opened)


@case(2)
def dicom_length_beyond_the_end(folder: Path) -> None:
    path = dicom(folder / "bad.dcm")
    content = path.read_bytes()
    place = content.index(b"\x20\x00\x0d\x00UI")
    path.write_bytes(content[: place + 6] + struct.pack("<H", 65000) + content[place + 8 :])


# --- NIfTI ------------------------------------------------------------------------------------------------------------


def nifti(path: Path, values: np.ndarray) -> bytes:
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    return path.read_bytes()


@case(2)
def nifti_cut(folder: Path) -> None:
    content = nifti(folder / "bad.nii", np.zeros((24, 24, 4), np.float32))
    (folder / "bad.nii").write_bytes(content[:1000])


@case(2)
def nifti_cut_gzip(folder: Path) -> None:
    content = nifti(folder / "bad.nii.gz", np.random.default_rng(0).random((24, 24, 4), np.float32))
    (folder / "bad.nii.gz").write_bytes(content[: len(content) // 2])


@case(4)
def nifti_bomb(folder: Path) -> None:
    content = bytearray(nifti(folder / "bad.nii", np.zeros((24, 24, 4), np.float32)))
    struct.pack_into("<8h", content, 40, 3, 4096, 4096, 4096, 1, 1, 1, 1)
    (folder / "bad.nii").unlink()
    (folder / "bad.nii.gz").write_bytes(gzip.compress(bytes(content) + b"\0" * 60_000_000))


@case(4)
def nifti_largest_size(folder: Path) -> None:
    content = bytearray(nifti(folder / "bad.nii", np.zeros((24, 24, 4), np.float32)))
    struct.pack_into("<8h", content, 40, 3, 32767, 32767, 32767, 1, 1, 1, 1)
    (folder / "bad.nii").write_bytes(bytes(content))


@case(2)
def nifti_negative_size(folder: Path) -> None:
    content = bytearray(nifti(folder / "bad.nii", np.zeros((24, 24, 4), np.float32)))
    struct.pack_into("<8h", content, 40, 3, 24, -24, 4, 1, 1, 1, 1)
    (folder / "bad.nii").write_bytes(bytes(content))


@case(2)
def nifti_wrong_magic(folder: Path) -> None:
    content = bytearray(nifti(folder / "bad.nii", np.zeros((24, 24, 4), np.float32)))
    content[344:348] = b"zzz\0"
    content[0:4] = b"\1\2\3\4"
    (folder / "bad.nii").write_bytes(bytes(content))


@case(2)
def nifti_of_nan(folder: Path) -> None:
    nifti(folder / "bad.nii", np.full((24, 24, 2), np.nan, np.float32))


@case(2)
def nifti_complex(folder: Path) -> None:
    nifti(folder / "bad.nii", np.zeros((24, 24, 2), np.complex64))


# --- manifests --------------------------------------------------------------------------------------------------------


for name, code, content in [
    ("manifest_empty", 2, b""),
    ("manifest_only_a_header", 2, b"file,patient\n"),
    ("manifest_without_patients", 2, b"file\na.png\n"),
    ("manifest_column_twice", 2, b"file,patient,site,site\na.png,p,x,y\n"),
    ("manifest_climbs_out", 4, b"file,patient\n../../../etc/passwd,p\n"),
    ("manifest_absolute_path", 4, b"file,patient\n/etc/passwd,p\n"),
    ("manifest_windows_path", 4, b"file,patient\nC:\\windows\\system.ini,p\n"),
    ("manifest_file_missing", 2, b"file,patient\nnot-there.png,p\n"),
    ("manifest_row_twice", 2, b"file,patient\na.png,p\na.png,q\n"),
    ("manifest_row_twice_in_disguise", 2, b"file,patient\na.png,p\n./a.png,q\n"),
    ("manifest_lists_itself", 2, b"file,patient\nmanifest.csv,p\n"),
    ("manifest_not_utf8", 2, b"file,patient\n\xff\xfe\x00,p\n"),
    ("manifest_nul_in_a_name", 4, b"file,patient\na\x00.png,p\n"),
    ("manifest_too_many_cells", 2, b"file,patient\na.png,p,q,r\n"),
    ("manifest_empty_patient", 2, b"file,patient\na.png,\n"),
    ("manifest_open_quote", 2, b'file,patient\n"a.png,p\n'),
    ("manifest_endless_cell", 2, b"file,patient\na.png," + b"p" * 200_000 + b"\n"),
]:

    def _manifest(folder: Path, content: bytes = content) -> None:
        (folder / "a.png").write_bytes(good_png())
        (folder / "manifest.csv").write_bytes(content)

    CASES[name] = (code, _manifest)


@case(2)
def manifests_in_a_circle(folder: Path) -> None:
    (folder / "manifest.csv").write_text("file,patient\nother.csv,p\n")
    (folder / "other.csv").write_text("file,patient\nmanifest.csv,p\n")


# --- folders ----------------------------------------------------------------------------------------------------------


@case(2)
def folder_empty(folder: Path) -> None:
    """Nothing at all."""


@case(2)
def folder_of_notes(folder: Path) -> None:
    (folder / "readme.txt").write_text("no images here")


@case(4)
def folder_with_a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")


@case(4)
def folder_with_a_link_out(folder: Path) -> None:
    (folder / "passwd.png").symlink_to("/etc/passwd")


@case(4)
def folder_with_a_link_in_a_circle(folder: Path) -> None:
    (folder / "a.png").symlink_to(folder / "b.png")
    (folder / "b.png").symlink_to(folder / "a.png")


@case(4)
def folder_with_a_link_to_itself(folder: Path) -> None:
    (folder / "again").symlink_to(folder)


@case(4)
def folder_with_a_broken_link(folder: Path) -> None:
    (folder / "gone.png").symlink_to(folder / "never.png")


@case(2)
def folder_with_a_hostile_name(folder: Path) -> None:
    (folder / "\x1b[31m<img src=x onerror=alert(1)>\u202e.png").write_bytes(b"no image")
