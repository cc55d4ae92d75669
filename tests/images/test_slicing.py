"""Slices of volumes: by axis and step, from NIfTI of any orientation and from DICOM series in any file order."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from medtrust.errors import ConfigError, DataError, SafetyError
from medtrust.host import build_host
from medtrust.images import Slices, open_set, parse_intensity, parse_slices
from medtrust.sources import readers_of
from medtrust.types import Limits

READERS = readers_of(build_host())
HU = parse_intensity("-1024:3071:HU")


@pytest.fixture
def volume() -> np.ndarray:
    """[right, front, head], no two voxels alike."""
    return np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6) - 60


def axial(volume: np.ndarray) -> np.ndarray:
    """[slices from feet to head, rows from front to back, columns from the patient's right to left]."""
    return volume[::-1, ::-1].transpose(2, 1, 0)


def nifti(folder, volume, codes: str = "RAS"):
    start = nib.orientations.axcodes2ornt("RAS")
    turn = nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(codes))
    nib.save(nib.Nifti1Image(volume, np.eye(4)).as_reoriented(turn), folder / f"{codes}.nii.gz")


def dicom(folder, volume):
    """An axial CT series whose file names run against its positions."""
    series, study = generate_uid(), generate_uid()
    for z, plane in enumerate(axial(volume)):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.Modality, ds.PatientID = series, study, "CT", "P1"
        ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 2.5 * z]
        ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit = *plane.shape, 16, 16, 15
        ds.PixelRepresentation, ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, 1, "MONOCHROME2"
        ds.RescaleSlope, ds.RescaleIntercept, ds.PixelSpacing = 1, 0, [1, 1]
        ds.PixelData = plane.astype("<i2").tobytes()
        ds.save_as(folder / f"{99 - z:02d}.dcm", enforce_file_format=True)


def read(folder, slices: str):
    images = open_set(folder, "train", READERS, intensity=HU, slices=parse_slices(slices))
    return np.stack([record.pixels[0] for record in images]), images


@pytest.mark.parametrize("source", ["RAS", "LPS", "ASL", "dicom"])
def test_each_axis_of_each_source(tmp_path, volume, source) -> None:
    """Axial, coronal and sagittal slices are those of the canonical volume, head up, whatever the storage."""
    dicom(tmp_path, volume) if source == "dicom" else nifti(tmp_path, volume, source)
    stack = axial(volume)
    np.testing.assert_array_equal(read(tmp_path, "z:1")[0], stack)
    np.testing.assert_array_equal(read(tmp_path, "z:2")[0], stack[1::2])
    coronal, images = read(tmp_path, "y:2")
    np.testing.assert_array_equal(coronal, stack[::-1].transpose(1, 0, 2)[1::2])
    assert len({record.name for record in images}) == len(images)
    np.testing.assert_array_equal(read(tmp_path, "x")[0], stack[::-1].transpose(2, 0, 1))
    assert len(set(images.patients)) == 1
    assert "axis y (fixed rows), step 2" in images.notes[-1]


def test_volumes_stay_apart(tmp_path, volume) -> None:
    """Two volumes of one name in two folders, read by threads in batches, give each its own slices and patient."""
    for i in range(4):
        (tmp_path / str(i)).mkdir()
        nifti(tmp_path / str(i), volume + 100 * i)
    images = open_set(tmp_path, "train", READERS, intensity=HU, slices=Slices("y", 1))
    found = np.concatenate([batch.pixels for batch in images.batches(3, workers=3)])[:, 0]
    expected = np.concatenate([axial(volume + 100 * i)[::-1].transpose(1, 0, 2) for i in range(4)])
    np.testing.assert_array_equal(found, expected)
    assert len(set(images.patients)) == 4


def test_a_step_beyond_the_volume_keeps_its_last_slice(tmp_path, volume) -> None:
    nifti(tmp_path, volume)
    np.testing.assert_array_equal(read(tmp_path, "z:100")[0], axial(volume)[-1:])


def test_refusals(tmp_path, volume) -> None:
    for text in ("w:2", "z:0", "z:-1", "z:1.5", "3", ""):
        with pytest.raises(ConfigError, match="AXIS:STEP"):
            parse_slices(text)
    nifti(tmp_path, volume)
    with pytest.raises(SafetyError, match="slice it along z"):
        open_set(tmp_path, "train", READERS, intensity=HU, slices=Slices("x"), limits=Limits(max_pixels=119))
    np.savez(tmp_path / "flat.npz", images=np.zeros((2, 5, 6), np.int16))
    (tmp_path / "RAS.nii.gz").unlink()
    with pytest.raises(DataError, match="belongs to no volume"):
        open_set(tmp_path, "train", READERS, intensity=HU, slices=Slices("z"))
