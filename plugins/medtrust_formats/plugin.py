"""Registration of the built-in file formats."""

from __future__ import annotations

from collections.abc import Iterator

from medtrust import FormatSpec, hookimpl


@hookimpl
def medtrust_formats() -> Iterator[FormatSpec]:
    """Offer the built-in formats."""
    yield FormatSpec(
        name="png",
        version="1",
        factory="medtrust_formats.raster:PngReader",
        summary="PNG, 8 and 16 bits per channel, every level kept",
        suffixes=(".png",),
        magic=((0, b"\x89PNG\r\n\x1a\n"),),
    )
    yield FormatSpec(
        name="jpeg",
        version="1",
        factory="medtrust_formats.raster:JpegReader",
        summary="JPEG, grey and colour, as stored (orientation tag noted, not applied)",
        suffixes=(".jpg", ".jpeg"),
        magic=((0, b"\xff\xd8\xff"),),
    )
    yield FormatSpec(
        name="bmp",
        version="1",
        factory="medtrust_formats.raster:BmpReader",
        summary="Windows bitmap",
        suffixes=(".bmp",),
        magic=((0, b"BM"),),
    )
    yield FormatSpec(
        name="tiff",
        version="1",
        factory="medtrust_formats.tiff:TiffReader",
        summary="TIFF, 8 to 64 bits per channel, each page one image",
        suffixes=(".tif", ".tiff"),
        magic=((0, b"II*\0"), (0, b"MM\0*"), (0, b"II+\0"), (0, b"MM\0+")),
    )
    yield FormatSpec(
        name="dicom",
        version="1",
        factory="medtrust_formats.dicom:DicomReader",
        summary="DICOM in physical units, frames in order along the slice normal",
        suffixes=(".dcm", ".dicom", ".ima"),
        magic=((128, b"DICM"),),
    )
    yield FormatSpec(
        name="nifti",
        version="1",
        factory="medtrust_formats.nifti:NiftiReader",
        summary="NIfTI-1 and -2, axial slices laid out as DICOM lays them out",
        suffixes=(".nii", ".nii.gz"),
        magic=((344, b"n+1\0"), (4, b"n+2\0")),
    )
    yield FormatSpec(
        name="numpy",
        version="1",
        factory="medtrust_formats.arrays:ArrayReader",
        summary=".npy, and .npz with `images` and optional patients, intensity, unit, labels",
        suffixes=(".npy", ".npz"),
        magic=((0, b"\x93NUMPY"), (0, b"PK\x03\x04")),
    )
