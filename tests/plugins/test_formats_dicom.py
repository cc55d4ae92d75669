from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG2MPML,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
)

from medtrust.errors import DataError, SafetyError
from medtrust.types import Intensity, Limits
from medtrust_formats.dicom import DicomReader

LIMITS = Limits()


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def write(path, stored, *, syntax=ExplicitVRLittleEndian, bits=12, signed=False, raw=None, **elements):
    """Write stored integers [H, W] or [F, H, W] or [H, W, 3]; `elements` overrides or, with None, removes."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    data = Dataset()
    data.file_meta = meta
    colour = stored.ndim == 3 and stored.shape[-1] == 3
    frames = stored.shape[0] if stored.ndim == 3 and not colour else None
    rows, columns = stored.shape[:2] if colour else stored.shape[-2:]
    allocated = 8 if bits <= 8 else 16
    defaults = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": "1.2.3.4",
        "Modality": "OT",
        "PatientID": "P-1",
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.5",
        "Rows": rows,
        "Columns": columns,
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "PlanarConfiguration": 0 if colour else None,
        "NumberOfFrames": frames,
        "BitsAllocated": allocated,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(signed),
    }
    for keyword, value in {**defaults, **elements}.items():
        if value is not None:
            setattr(data, keyword, value)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    kind = f"{order}{'i' if signed else 'u'}{allocated // 8}"
    data.PixelData = raw if raw is not None else stored.astype(kind).tobytes()
    if len(data.PixelData) % 2:
        data.PixelData += b"\0"
    data["PixelData"].VR = "OB" if allocated == 8 or syntax.is_encapsulated else "OW"
    data.save_as(path, enforce_file_format=True)
    return path


def read(path, limits=LIMITS):
    reader = DicomReader()
    headers = reader.scan(path, limits)
    images = [reader.read(path, header, limits) for header in headers]
    for image, header in zip(images, headers, strict=True):
        assert (image.shape, image.dtype.name) == (header.shape, header.dtype)
        assert image.flags.c_contiguous
    return images, headers


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (4, 5, 7)])
def test_stored_levels_are_exact_in_every_native_syntax(tmp_path, rng, syntax, signed, shape):
    """Byte order, sign, deflation and frames change no level."""
    stored = rng.integers(-2048 if signed else 0, 2048 if signed else 4096, shape)
    images, headers = read(write(tmp_path / "a.dcm", stored, syntax=syntax, signed=signed))
    np.testing.assert_array_equal(np.concatenate(images), stored.reshape(-1, *shape[-2:]))
    expected = Intensity(-2048, 2047, "level") if signed else Intensity(0, 4095, "level")
    assert {header.intensity for header in headers} == {expected}


@pytest.mark.parametrize(("bits", "signed"), [(12, False), (16, False), (16, True)])
def test_hounsfield_units_never_wrap(tmp_path, bits, signed):
    """Air stays -1000 and metal 30000, whatever type stored them."""
    hu = np.array([[-1000, -1024, 0, 40, 3071]]) if bits == 12 else np.array([[-1000, -1024, 0, 30000, 31000]])
    path = write(
        tmp_path / "a.dcm", hu + 1024, bits=bits, signed=signed, Modality="CT", RescaleSlope=1, RescaleIntercept=-1024
    )
    (image,), (header,) = read(path)
    assert image[0].tolist() == hu.tolist()
    assert header.intensity.unit == "HU"
    assert header.modality == "CT"


def test_a_fractional_slope_keeps_all_levels(tmp_path):
    """65536 stored levels remain 65536 values."""
    ramp = np.arange(65536).reshape(256, 256)
    path = write(tmp_path / "a.dcm", ramp, bits=16, Modality="CT", RescaleSlope="0.3", RescaleIntercept="-100.5")
    (image,), (header,) = read(path)
    assert len(np.unique(image)) == 65536
    np.testing.assert_allclose(image[0], ramp * 0.3 - 100.5, rtol=1e-6, atol=1e-3)
    assert (header.intensity.lo, header.intensity.hi) == (-100.5, 65535 * 0.3 - 100.5)


def test_bits_above_the_stored_ones_are_ignored(tmp_path, rng):
    """Twelve bits in sixteen: an overlay in the upper four does not reach the pixels."""
    stored = rng.integers(0, 4096, (6, 6))
    dirty = stored | (rng.integers(0, 16, (6, 6)) << 12)
    np.testing.assert_array_equal(read(write(tmp_path / "a.dcm", dirty))[0][0][0], stored)


@pytest.mark.parametrize("signed", [False, True])
def test_monochrome1_is_mirrored_in_its_range(tmp_path, rng, signed):
    """What the file shows bright is large, and the window is mirrored with it."""
    stored = rng.integers(-512 if signed else 0, 512 if signed else 1024, (5, 6))
    options = {"bits": 10, "signed": signed, "WindowCenter": 100.5, "WindowWidth": 101}
    path = write(tmp_path / "a.dcm", stored, PhotometricInterpretation="MONOCHROME1", **options)
    (image,), (header,) = read(path)
    lo, hi = (-512, 511) if signed else (0, 1023)
    np.testing.assert_array_equal(image[0], lo + hi - stored)
    assert header.intensity == Intensity(lo, hi, "level", (lo + hi - 150.0, lo + hi - 50.0))
    assert header.attributes["photometric"] == "MONOCHROME1"


def test_monochrome1_in_hounsfield_units_means_what_it_says(tmp_path):
    """A display wish does not turn air into metal."""
    path = write(
        tmp_path / "a.dcm",
        np.array([[24, 1024]]),
        Modality="CT",
        RescaleSlope=1,
        RescaleIntercept=-1024,
        PhotometricInterpretation="MONOCHROME1",
    )
    assert read(path)[0][0][0].tolist() == [[-1000, 0]]


@pytest.mark.parametrize(
    ("function", "expected"), [(None, (-160.0, 239.0)), ("LINEAR_EXACT", (-160.0, 240.0)), ("LINEAR", (-160.0, 239.0))]
)
def test_the_first_window_is_recorded_by_the_standard(tmp_path, function, expected):
    """LINEAR spans width - 1 about centre - 0.5, LINEAR_EXACT the whole width."""
    options = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024, "VOILUTFunction": function}
    path = write(tmp_path / "a.dcm", np.zeros((2, 2)), WindowCenter=[40, 600], WindowWidth=[400, 1600], **options)
    assert DicomReader().scan(path, LIMITS)[0].intensity.window == expected


def test_a_modality_table_is_applied(tmp_path):
    """Where a table maps stored values, the table's output is the value."""
    table = Dataset()
    table.LUTDescriptor = [4, 0, 16]
    table.ModalityLUTType = "OD"
    table.LUTData = struct.pack("<4H", 7, 500, 40000, 65535)
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
    path = write(tmp_path / "a.dcm", np.array([[0, 1], [2, 3]]), ModalityLUTSequence=[table])
    (image,), (header,) = read(path)
    assert image[0].tolist() == [[7, 500], [40000, 65535]]
    assert header.intensity == Intensity(0, 65535, "OD")


@pytest.mark.parametrize("modality", ["MR", "CR"])
def test_sixteen_stored_bits_without_a_unit_leave_the_range_open(tmp_path, modality):
    """The size of an integer is not what a scanner can measure: the user is asked."""
    assert (
        DicomReader().scan(write(tmp_path / "a.dcm", np.zeros((2, 2)), bits=16, Modality=modality), LIMITS)[0].intensity
        is None
    )


def test_the_rescale_type_and_units_name_the_unit(tmp_path):
    """Optical density and becquerel are not called levels."""
    zeros, options = np.zeros((2, 2)), {"RescaleSlope": 2, "RescaleIntercept": 0}
    for extra, unit in (({"RescaleType": "OD"}, "OD"), ({"Units": "BQML"}, "BQML"), ({}, "a.u.")):
        path = write(tmp_path / f"{unit}.dcm", zeros, **options, **extra)
        assert DicomReader().scan(path, LIMITS)[0].intensity.unit == unit


@pytest.mark.parametrize("planar", [0, 1])
def test_colour_is_exact_in_both_layouts(tmp_path, rng, planar):
    """Interleaved or plane by plane, channels come first."""
    stored = rng.integers(0, 256, (5, 4, 3))
    raw = (stored.transpose(2, 0, 1) if planar else stored).astype("u1").tobytes()
    (image,), (header,) = read(write(tmp_path / "a.dcm", stored, bits=8, raw=raw, PlanarConfiguration=planar))
    np.testing.assert_array_equal(image, stored.transpose(2, 0, 1))
    assert header.intensity == Intensity(0, 255, "level")


def test_slices_are_ordered_along_an_oblique_normal(tmp_path):
    """The key is the position along the slice normal, not z."""
    row, column = np.array([0.0, 0.6, -0.8]), np.array([1.0, 0.0, 0.0])
    normal = np.cross(row, column)
    keys = {}
    for step in (3.0, -2.0, 0.5):
        position = step * normal + 10 * row - 4 * column
        options = {"ImagePositionPatient": position.tolist(), "ImageOrientationPatient": [*row, *column]}
        (header,) = DicomReader().scan(write(tmp_path / "a.dcm", np.zeros((2, 2)), **options), LIMITS)
        keys[step] = header.order
    assert sorted(keys, key=keys.get) == [-2.0, 0.5, 3.0]
    assert keys[3.0][1] - keys[-2.0][1] == pytest.approx(5.0)


def test_patient_and_private_values_are_found(tmp_path):
    """The identifier is the patient, the study stands in for it, and private values are marked as such."""
    path = write(tmp_path / "a.dcm", np.zeros((2, 2)), PatientName="Doe^Jane", PatientBirthDate="19700102")
    (header,) = DicomReader().scan(path, LIMITS)
    assert header.patient == "P-1"
    assert header.attributes["phi.PatientName"] == "Doe^Jane"
    assert header.attributes["phi.PatientBirthDate"] == "19700102"
    path = write(tmp_path / "b.dcm", np.zeros((2, 2)), PatientID=None)
    assert DicomReader().scan(path, LIMITS)[0].patient == "1.2.3"
    path = write(tmp_path / "c.dcm", np.zeros((2, 2)), PatientID=None, StudyInstanceUID=None)
    assert DicomReader().scan(path, LIMITS)[0].patient is None


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_study_identifier_that_is_no_uid_is_refused(tmp_path):
    """Hostile text does not become a patient."""
    path = tmp_path / "a.dcm"
    write(path, np.zeros((2, 2)), PatientID=None, StudyInstanceUID="1.2.3.45678")
    path.write_bytes(path.read_bytes().replace(b"1.2.3.45678", b"../../../xy"))
    with pytest.raises(DataError, match="UID"):
        DicomReader().scan(path, LIMITS)


def test_padding_is_noted(tmp_path):
    """The value that marks pixels outside the scan is in the attributes; pixels are left as they are."""
    path = write(tmp_path / "a.dcm", np.array([[0, 9]]), PixelPaddingValue=0)
    (image,), (header,) = read(path)
    assert header.attributes["stored_padding"] == "0"
    assert image[0].tolist() == [[0, 9]]


@pytest.mark.parametrize("modality", ["SEG", "RTSTRUCT", "RTDOSE", "SR", "PR"])
def test_objects_that_are_no_images_give_no_image(tmp_path, modality):
    """Masks, contours, doses and reports in a study are not mistaken for acquisitions."""
    assert list(DicomReader().scan(write(tmp_path / "a.dcm", np.zeros((2, 2)), Modality=modality), LIMITS)) == []


def test_a_million_frames_in_the_header_are_refused(tmp_path):
    """The number of frames is capped before anything is allocated for them."""
    path = write(tmp_path / "a.dcm", np.zeros((2, 2)), NumberOfFrames=1_000_000)
    with pytest.raises(SafetyError, match="1000000 frames"):
        DicomReader().scan(path, LIMITS)


def test_a_header_that_claims_more_than_the_file_holds_is_refused(tmp_path):
    """More rows, columns or frames than bytes is a truncated file; beyond the cap it is a refusal."""
    for elements in ({"Rows": 60_000, "Columns": 4000}, {"NumberOfFrames": 19_999}, {"Rows": 3}):
        with pytest.raises(DataError, match="cut short"):
            DicomReader().scan(write(tmp_path / "a.dcm", np.zeros((2, 2)), **elements), LIMITS)
    with pytest.raises(SafetyError, match="65535 x 65535"):
        DicomReader().scan(write(tmp_path / "a.dcm", np.zeros((2, 2)), Rows=65535, Columns=65535), LIMITS)


def test_a_truncated_file_is_an_error_that_names_it(tmp_path, rng):
    """Wherever the file is cut, a sentence names it."""
    path = write(tmp_path / "cut.dcm", rng.integers(0, 4096, (32, 32)))
    data = path.read_bytes()
    for keep in (len(data) - 2, len(data) // 2, 400, 200, 140, 10):
        path.write_bytes(data[:keep])
        with pytest.raises(DataError, match=r"cut\.dcm"):
            read(path)


def test_a_deflate_bomb_is_refused_before_it_is_parsed(tmp_path):
    """A dataset that inflates a thousandfold is refused."""
    path = write(tmp_path / "bomb.dcm", np.zeros((4096, 4096)), syntax=DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < 100_000
    with pytest.raises(SafetyError, match="bomb"):
        DicomReader().scan(path, LIMITS)
    with pytest.raises(SafetyError, match="bomb"):
        DicomReader().scan(write(tmp_path / "b.dcm", np.zeros((64, 64)), syntax=DeflatedExplicitVRLittleEndian),
                           Limits(max_inflated_bytes=8000))  # fmt: skip


def test_a_syntax_that_is_not_on_the_list_is_refused(tmp_path):
    """Video and unknown syntaxes are named, never tried."""
    path = write(tmp_path / "a.dcm", np.zeros((2, 2)), bits=8, syntax=MPEG2MPML, raw=encapsulate([b"\0\0"]))
    with pytest.raises(DataError, match="MPEG2"):
        DicomReader().scan(path, LIMITS)


def test_a_dicomdir_is_never_followed():
    """A directory file points elsewhere; the folder itself is what is opened."""
    path = get_testdata_file("DICOMDIR")
    with pytest.raises(DataError, match="DICOMDIR"):
        DicomReader().scan(Path(path), LIMITS)


def jpeg_claiming(height, width):
    return b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\1\x11\0\xff\xd9"


def j2k_claiming(height, width):
    return b"\xff\x4f\xff\x51" + struct.pack(">HH8L", 41, 0, width, height, 0, 0, width, height, 0, 0) + b"\0" * 8


@pytest.mark.parametrize(("syntax", "claim"), [(JPEGBaseline8Bit, jpeg_claiming), (JPEG2000Lossless, j2k_claiming)])
def test_a_compressed_frame_larger_than_the_header_says_is_refused(tmp_path, syntax, claim):
    """The decoder never sees a codestream that asks for more memory than the header."""
    frame = claim(50_000, 60_000)
    path = write(
        tmp_path / "a.dcm", np.zeros((8, 8)), bits=8, syntax=syntax, raw=encapsulate([frame + b"\0" * (len(frame) % 2)])
    )
    (header,) = DicomReader().scan(path, LIMITS)
    with pytest.raises(SafetyError, match="50000 x 60000"):
        DicomReader().read(path, header, LIMITS)


@pytest.mark.parametrize(
    ("compressed", "plain"),
    [
        ("MR_small_RLE.dcm", "MR_small.dcm"),
        ("MR_small_jp2klossless.dcm", "MR_small.dcm"),
        ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm"),
        ("MR_small_bigendian.dcm", "MR_small.dcm"),
        ("MR_small_implicit.dcm", "MR_small.dcm"),
    ],
)
def test_lossless_codecs_agree_with_the_plain_file(compressed, plain):
    """The same image through different codecs has the same pixels."""
    found, expected = (read(Path(get_testdata_file(name)))[0][0] for name in (compressed, plain))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "name", ["JPGExtended.dcm", "SC_rgb_jpeg_dcmtk.dcm", "examples_ybr_color.dcm", "examples_palette.dcm"]
)
def test_real_files_of_other_kinds_are_read(name):
    """12-bit JPEG, YBR, multi-frame colour and palettes decode inside their declared range."""
    images, headers = read(Path(get_testdata_file(name)))
    for image, header in zip(images[:3], headers, strict=False):
        assert header.intensity.lo <= image.min() < image.max() <= header.intensity.hi


def test_ct_small_matches_the_dictionary_definition():
    """Stored value times slope plus intercept, compared with pydicom's own array."""
    path = get_testdata_file("CT_small.dcm")
    plain = dcmread(path)
    expected = plain.pixel_array.astype(int) * int(plain.RescaleSlope) + int(plain.RescaleIntercept)
    np.testing.assert_array_equal(read(Path(path))[0][0][0], expected)


def functional_group(position, slope, intercept):
    group, place, scale = Dataset(), Dataset(), Dataset()
    place.ImagePositionPatient = [0, 0, position]
    scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = slope, intercept, "HU"
    group.PlanePositionSequence, group.PixelValueTransformationSequence = [place], [scale]
    return group


def test_enhanced_frames_have_their_own_scale_and_place(tmp_path):
    """Functional groups of each frame win over shared ones."""
    shared, turn, measures = Dataset(), Dataset(), Dataset()
    turn.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing = [0.5, 0.25]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [turn], [measures]
    shared.PixelValueTransformationSequence = functional_group(0, 7, 7).PixelValueTransformationSequence
    path = write(
        tmp_path / "a.dcm",
        np.full((2, 3, 4), 100),
        Modality="CT",
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=[functional_group(9, 1, -1024), functional_group(3, 2, -1000)],
    )
    images, headers = read(path)
    assert [int(image[0, 0, 0]) for image in images] == [-924, -800]
    assert headers[1].order < headers[0].order
    assert headers[0].spacing_mm == (0.5, 0.25)


@pytest.mark.parametrize(
    "elements", [{"RescaleSlope": 0, "RescaleIntercept": 0}, {"BitsStored": 17}, {"PhotometricInterpretation": "HSV"}]
)
def test_headers_that_contradict_themselves_are_refused(tmp_path, elements):
    """A slope of zero, too many bits and retired colour spaces have their sentence."""
    with pytest.raises(DataError, match=r"a\.dcm"):
        DicomReader().scan(write(tmp_path / "a.dcm", np.zeros((2, 2)), **elements), LIMITS)


@pytest.mark.filterwarnings("ignore")  # pydicom warns of each odd value before it gives up
def test_noise_after_the_preamble_never_escapes_as_another_error(tmp_path, rng):
    """Fuzzed headers give DataError or SafetyError and nothing else."""
    path = write(
        tmp_path / "a.dcm", rng.integers(0, 4096, (8, 8)), Modality="CT", RescaleSlope=1, RescaleIntercept=-1024
    )
    good = np.frombuffer(path.read_bytes(), np.uint8)
    refused = 0
    for _ in range(150):
        bad = good.copy()
        where = rng.integers(132, len(bad) - 128, 6)
        bad[where] = rng.integers(0, 256, 6)
        path.write_bytes(bad.tobytes())
        try:
            read(path)
        except (DataError, SafetyError):
            refused += 1
    assert refused > 10


def test_deflated_real_file_is_read():
    """A deflated file from elsewhere decodes to what pydicom sees."""
    path = get_testdata_file("image_dfl.dcm")
    np.testing.assert_array_equal(read(Path(path))[0][0][0], dcmread(path).pixel_array)
