from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from medtrust.images import Readers
from medtrust.types import FormatSpec, ImageReader
from medtrust_formats.plugin import medtrust_formats


def _loader(spec: FormatSpec) -> Callable[[], ImageReader]:
    module, _, name = spec.factory.partition(":")
    return lambda: getattr(importlib.import_module(module), name)()


@pytest.fixture
def readers() -> Readers:
    return Readers([(spec, _loader(spec)) for spec in medtrust_formats()])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240229)


@pytest.fixture
def png() -> Callable[[Path, np.ndarray], None]:
    def write(path: Path, pixels: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, "PNG")

    return write


@pytest.fixture
def ct() -> Callable[..., None]:
    """Write one CT slice from values in HU."""

    def write(path: Path, hu: np.ndarray, *, z: float = 0.0, bits: int = 12, patient: str = "P-1") -> None:
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = "1.2.3.4"
        slice_ = Dataset()
        slice_.file_meta = meta
        slice_.SOPClassUID = CTImageStorage
        slice_.SOPInstanceUID = "1.2.3.4"
        slice_.Modality = "CT"
        slice_.PatientID = patient
        slice_.PatientName = "Doe^Jane"
        slice_.StudyInstanceUID = "1.2.3"
        slice_.SeriesInstanceUID = "1.2.3.5"
        slice_.ImagePositionPatient = [0.0, 0.0, z]
        slice_.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        slice_.PixelSpacing = [0.7, 0.7]
        slice_.Rows, slice_.Columns = hu.shape
        slice_.SamplesPerPixel = 1
        slice_.PhotometricInterpretation = "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit = 16, bits, bits - 1
        slice_.PixelRepresentation = 0
        slice_.RescaleSlope, slice_.RescaleIntercept = 1, -1024
        slice_.WindowCenter, slice_.WindowWidth = 40, 400
        slice_.PixelData = (hu.astype(np.int64) + 1024).astype("<u2").tobytes()
        path.parent.mkdir(parents=True, exist_ok=True)
        slice_.save_as(path, enforce_file_format=True)

    return write
