"""Coverage-guided fuzzing of the readers that meet strangers' bytes: DICOM and the manifest.

    pip install medtrust[fuzz]
    python tests/fuzz/readers.py dicom -max_total_time=600 -timeout=20 -rss_limit_mb=2048
    python tests/fuzz/readers.py manifest -max_total_time=600 -timeout=20 -rss_limit_mb=2048

Any answer but images or a MedtrustError is a finding: libFuzzer writes the input to the working folder. The seeds are
pydicom's small test files and a few manifests; nothing is downloaded.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["medtrust", "medtrust_formats", "pydicom"]):
    from medtrust.errors import MedtrustError
    from medtrust.images.manifest import read_manifest
    from medtrust.types import Limits
    from medtrust_formats.dicom import DicomReader

LIMITS = Limits(max_file_bytes=2**22, max_pixels=2**22, max_frames=64, max_inflated_bytes=2**26)
MOST_FRAMES = 3
FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))


def name_it(path: Path, error: MedtrustError) -> None:
    """A refusal names the file."""
    if str(path) not in str(error):
        raise AssertionError(f"a message that does not name the file: {error}") from error


def dicom(data: bytes) -> None:
    """Scan a file and decode its first frames."""
    path = FOLDER / "image.dcm"
    path.write_bytes(data)
    reader = DicomReader()
    try:
        for header in reader.scan(path, LIMITS)[:MOST_FRAMES]:
            pixels = reader.read(path, header, LIMITS)
            assert pixels.shape == tuple(header.shape), "the pixels are not of the announced shape"
    except MedtrustError as error:
        name_it(path, error)


def manifest(data: bytes) -> None:
    """Read a manifest beside one real file."""
    (FOLDER / "a.png").touch()
    path = FOLDER / "manifest.csv"
    path.write_bytes(data)
    try:
        for row in read_manifest(path):
            assert row.path.resolve().is_relative_to(FOLDER.resolve()), "a row that leaves the folder"
            assert row.patient
    except MedtrustError as error:
        name_it(path, error)


def seeds(name: str) -> Path:
    """A folder of small valid inputs to start from."""
    folder = Path(tempfile.mkdtemp(prefix="seeds-"))
    if name == "manifest":
        texts = ("file,patient\na.png,p1\n", 'file,patient,site\n"a.png","p, 1",x\n', "\ufefffile,patient\n")
        for i, text in enumerate(texts):
            (folder / str(i)).write_text(text)
        return folder
    from pydicom.data import get_testdata_files

    for file in get_testdata_files("*.dcm"):
        source = Path(file)
        if source.stat().st_size < 40_000:
            (folder / source.name).write_bytes(source.read_bytes())
    return folder


def main() -> None:
    """Fuzz the reader that the first word names; the other words go to libFuzzer."""
    targets: dict[str, Callable[[bytes], None]] = {"dicom": dicom, "manifest": manifest}
    if len(sys.argv) < 2 or sys.argv[1] not in targets:
        sys.exit(f"name a reader: {' or '.join(targets)}")
    warnings.simplefilter("ignore")
    name = sys.argv.pop(1)
    atheris.Setup([*sys.argv, str(seeds(name))], targets[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
