"""What must not leave is found in what is about to be written, and nothing else is."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from audit_sets import random_patches, write_sets
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from medtrust.cli import main
from medtrust.disclosure import Guard, Leak

NAME = "Quixelby^Marabou"


def found(value: str, text: str, kind: str = "PatientName", public: tuple[str, ...] = ()) -> bool:
    return bool(Guard({value: kind}, public).search({"x": text.encode()}))


@pytest.mark.parametrize(
    "text",
    [
        "Quixelby^Marabou", "quixelby, marabou", "see quixelby_marabou.dcm", "Marabou Quixelby", "MARABOU-QUIXELBY",
        "<b>Quixelby&nbsp;Marabou</b>",
    ],
)  # fmt: skip
def test_a_name_is_found_however_it_is_written(text):
    """Case, separators, order and markup do not hide it."""
    assert found(NAME, text)


def test_escapes_do_not_hide_a_name():
    """JSON and HTML escapes are undone before the search."""
    assert found("Müllerová^Žofie", json.dumps("Müllerová Žofie"))
    assert found("Müllerová^Žofie", "M&uuml;llerov&aacute; &#381;ofie")


def test_a_date_is_found_with_separators():
    """DICOM writes dates without them."""
    assert all(found("20040119", text, "StudyDate") for text in ("20040119", "2004-01-19", "19.01.2004"))
    assert not found("20040119", "2004-01-20", "StudyDate")


@pytest.mark.parametrize(
    ("value", "text"),
    [("123456", "p = 0.123456"), ("123456", "1234567"), ("abcde1", "f" * 20 + "abcde1" + "0" * 38)],
)
def test_numbers_and_digests_are_no_disclosure(value, text):
    """A decimal, a longer number, a digest that holds the digits by chance."""
    assert not found(value, text, "patient")


def test_structure_is_no_disclosure():
    """What JSON puts side by side is not one text, and what a report says of its sets names nobody."""
    guard = Guard({"train-100": "patient", "Quixelby^Marabou": "PatientName", "P-0012": "patient"})
    assert guard.search({"x": b'{"sources": [["train", 100]], "a": "quixelby", "b": "marabou"}'}) == []
    assert guard.search({"x": b"train (100 patients)"}) == []
    assert guard.search({"x": b'"P-0012"'}) == [Leak("x", "patient")]


def test_values_that_mean_nothing_are_counted_not_searched():
    """Too short, a word of the report itself, what de-identification leaves, or the name of a synthetic image."""
    guard = Guard({"12": "patient", "Patient": "PatientName", "ANON": "PatientName", "sample-000017": "file name"},
                  public=["sample-000017.png"])  # fmt: skip
    assert guard.unsearchable == 4
    assert guard.search({"x": b"12 Patient ANON sample-000017"}) == []


@given(st.text(min_size=1, max_size=40), st.text(max_size=200))
def test_a_value_is_always_found_in_itself(value, around):
    """Whatever the value and the text around it: if it can be searched at all, it is found; nothing crashes."""
    guard = Guard({value: "PatientID"})
    leaks = guard.search({"x": f"{around} | {value} | {around}".encode("utf-8", "surrogatepass")})
    assert guard.unsearchable or leaks == [Leak("x", "PatientID")]


SECRETS = {
    "PatientName": NAME, "PatientID": "MRN-7719342", "PatientBirthDate": "19510317", "AccessionNumber": "ACC99120773",
    "ReferringPhysicianName": "Vandertrampf^Otokar", "InstitutionName": "Zwillingshausen Klinikum",
    "StudyDate": "20190823",
}  # fmt: skip


def write_ct(path: Path, pixels: np.ndarray, number: int, **tags: str) -> None:
    """A small CT slice with the given identifying tags."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    data.Modality, data.InstanceNumber = "CT", number
    data.StudyInstanceUID = data.SeriesInstanceUID = generate_uid(entropy_srcs=[str(path.parent)])
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    data.PixelData = pixels.astype("<u2").tobytes()
    for key, value in tags.items():
        setattr(data, key, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> dict[str, Path]:
    """A DICOM study with identifiers in tags and file names, and synthetic slices."""
    root, rng = tmp_path_factory.mktemp("dicom"), np.random.default_rng(4)
    for name, count in (("train", 12), ("holdout", 12), ("synthetic", 12)):
        for i, patch in enumerate(random_patches(rng, count)):
            tags = {**SECRETS, "PatientID": f"{SECRETS['PatientID']}-{name}-{i:02d}"} if name != "synthetic" else {}
            stem = f"QUIXELBY_MARABOU_{name}{i:02d}" if name != "synthetic" else f"made{i:03d}"
            write_ct(root / name / f"{stem}.dcm", 8 * patch[..., 0].astype(int), i, **tags)
    return {name: root / name for name in ("train", "holdout", "synthetic")}


def test_nothing_of_a_patient_is_in_any_output(scans, tmp_path):
    """Tags, dates and file names: none of them in any rendering, in the log, or in a picture's name."""
    words = [word for name, path in scans.items() for word in (f"--{name}", str(path))]
    every = "json,html,markdown,junit,sarif,intoto,modelcard,badge"
    code = main(["audit", *words, "--out", str(tmp_path), "--format", every, "--evidence", "full", "--quiet"])
    assert code in (1, 3)
    written = [p for p in tmp_path.rglob("*") if p.is_file() and "private" not in p.parts]
    assert {p.name for p in written} >= {"report.html", "report.json", "report.sarif", "run.json"}
    for path in written:
        content = path.read_bytes().lower()
        for secret in (*SECRETS.values(), "quixelby", "marabou", "1951-03-17", "2019-08-23"):
            assert secret.lower().encode() not in content, (path.name, secret)


def test_a_leak_is_refused(tmp_path, capsys):
    """A label that names a patient reaches a fact of a metric: exit 4, the kind is named, nothing is written."""
    sets = write_sets(tmp_path / "sets", seed=5)
    with (sets["train"] / "manifest.csv").open("a+", newline="") as file:
        file.seek(0)
        rows = list(csv.reader(file))
    owner = rows[1][1] = "Quixelby-Marabou-55"
    with (sets["train"] / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    policy = tmp_path / "policy.toml"
    policy.write_text(
        'schema = "medtrust.policy/1"\n[[gate]]\nid = "not for QUIXELBY_MARABOU_55"\nresult = "privacy.duplicates"\n'
        'mode = "point"\nop = "<="\nthreshold = 0\n'
    )
    words = [word for name, path in sets.items() for word in (f"--{name}", str(path))]
    out = tmp_path / "out"
    code = main(["audit", *words, "--out", str(out), "--policy", str(policy), "--metrics", "duplicates", "--quiet"])
    said = capsys.readouterr().err
    assert code == 4
    assert "report.json would show a patient" in said
    assert "quixelby" not in said.lower()
    assert owner.lower() not in said.lower()
    assert not list(out.glob("*.*"))
