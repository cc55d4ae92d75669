"""Audits by volume: a row of features per volume, likeness in three dimensions, and the patient as the unit."""

from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy.ndimage import gaussian_filter

from medtrust import audit, ops, stats
from medtrust.errors import ConfigError, DataError, SafetyError
from medtrust.extraction import standardise, survey
from medtrust.host import build_host
from medtrust.images import Slices, open_set, parse_intensity
from medtrust.inputs import Volumes, by_volume, check_volume_features
from medtrust.sources import readers_of
from medtrust.types import Limits

HOST = build_host()
HU = parse_intensity("-1024:3071:HU")
DEPTH, SIDE = 12, 20


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


class Texture:
    """Three measurements of a slice."""

    names = ("mean", "sd", "rough")
    digest = "ab" * 32
    standardise = True

    def extract(self, images, intensity):
        x = images.double()
        rough = x.diff(dim=-1).abs().mean((1, 2, 3))
        return torch.stack([x.mean((1, 2, 3)), x.std((1, 2, 3)), rough], dim=1).float()


def solid(rng, depth: int = DEPTH) -> np.ndarray:
    """One volume [slices from feet to head, rows, columns] in HU."""
    field = gaussian_filter(rng.normal(size=(depth, SIDE, SIDE)), 1.5)
    return np.rint(field / field.std() * 200 + rng.normal(0, 60)).astype(np.int16)


def write_nifti(path, volume) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(volume.transpose(2, 1, 0)[::-1, ::-1], np.eye(4)), path)


def write_dicom(folder, volume, patient: str) -> None:
    """A CT series whose file names run against its positions."""
    folder.mkdir(parents=True, exist_ok=True)
    series, study = generate_uid(), generate_uid()
    for z, plane in enumerate(volume):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.Modality, ds.PatientID = series, study, "CT", patient
        ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 2.5 * z]
        ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit = *plane.shape, 16, 16, 15
        ds.PixelRepresentation, ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, 1, "MONOCHROME2"
        ds.RescaleSlope, ds.RescaleIntercept, ds.PixelSpacing = 1, 0, [1, 1]
        ds.PixelData = plane.astype("<i2").tobytes()
        ds.save_as(folder / f"{99 - z:02d}.dcm", enforce_file_format=True)


def write_sets(root, seed: int = 0, patients: int = 24, per_patient: int = 1) -> dict:
    """Folders of NIfTI volumes with manifests; holdout and synthetic have volumes of the names that train's have."""
    rng = np.random.default_rng(seed)
    volumes = {}
    for name in ("train", "holdout", "synthetic"):
        rows = [("file", "patient")]
        for i in range(patients * per_patient):
            volume = volumes[name, i] = solid(rng)
            write_nifti(root / name / f"v{i:02d}.nii.gz", volume)
            rows.append((f"v{i:02d}.nii.gz", f"{name}-{i // per_patient}"))
        with (root / name / "manifest.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return volumes


def opened(folder, name: str = "train", **more):
    return open_set(folder, name, readers_of(HOST), intensity=HU, **more)


@pytest.mark.parametrize("source", ["nifti", "dicom"])
@pytest.mark.parametrize("how", ["mean", "mean-sd"])
def test_a_row_is_made_of_the_slices_of_one_volume(tmp_path, rng, source, how) -> None:
    """Features, patients and pixels of each volume are those of its own slices, whatever the files' order."""
    volumes = [solid(rng, depth) for depth in (5, 8, 3)]
    for i, volume in enumerate(volumes):
        write = write_nifti if source == "nifti" else write_dicom
        write(tmp_path / f"p{i}" / "v.nii.gz", volume) if source == "nifti" else write(
            tmp_path / f"p{i}", volume, f"P{i}"
        )
    images = opened(tmp_path)
    found = survey(images, {"texture": Texture()}, images.intensity)
    given = by_volume({"train": images}, {"train": found}, {"texture": Texture()}, how)
    matrix, data = given.features["texture"]["train"], given.sets["train"]
    expected = []
    for volume in volumes:
        rows = Texture().extract(torch.from_numpy(volume[:, None]), HU).double()
        expected.append(torch.cat([rows.mean(0), rows.std(0, correction=0)]) if how == "mean-sd" else rows.mean(0))
    raw = torch.stack(expected)
    scaled = (raw - raw.mean(0)) / raw.std(0, correction=0)
    torch.testing.assert_close(matrix.values.double(), scaled, rtol=1e-4, atol=1e-4)
    assert len(matrix.names) == matrix.values.shape[1]
    assert len(set(matrix.names)) == len(matrix.names)
    assert len(set(data.patients)) == len(data) == 3
    assert matrix.patients == data.patients
    assert len(set(data.digests)) == 3
    assert matrix.space_digest != Texture.digest
    for record, volume in zip(data.images, volumes, strict=True):
        np.testing.assert_array_equal(record.pixels, volume[None])
        assert record.header.shape == record.pixels.shape
    assert [images.names[i] for i in given.shown["train"]] == [images.names[i] for i in (2, 5 + 4, 13 + 1)]


def test_slices_and_volumes_share_the_cache_and_metrics_see_what_they_take(tmp_path) -> None:
    """FD is between volumes, SSIM three-dimensional, privacy looks at slices, and nothing is extracted twice."""
    volumes = write_sets(tmp_path)
    sets = {name: tmp_path / name for name in ("train", "holdout", "synthetic")}
    common = {**sets, "intensity": HU, "cache": tmp_path / "cache", "policy": "research", "formats": ()}
    metrics = ("fd", "ssim_diversity", "paired", "intensity", "duplicates")
    options = {"fidelity": {"paired": {"pair_by": "name"}}}
    by_slice = audit(**common, metrics="fd", out=tmp_path / "slices")
    whole = audit(**common, metrics=metrics, volumes="mean", options=options, out=tmp_path / "volumes")
    rows = {r.id: r for r in whole.results}
    fd = rows["fidelity.fd[radiomics]"]
    assert fd.status == "ok"
    assert any("a row is a volume" in note for note in fd.notes)
    assert next(r for r in by_slice.results if r.id == fd.id).facts["n_train"] == 24 * DEPTH
    assert fd.facts["n_train"] == fd.facts["n_synthetic"] == 24
    assert fd.interval.n_units == 24
    assert not any("a row is a volume" in note for note in rows["privacy.duplicates"].notes)
    ssim = rows["fidelity.paired_ssim"]
    pairs = [
        ops.ssim(
            *(torch.from_numpy(volumes[s, i][None, None]).double() for s in ("holdout", "synthetic")), data_range=4095
        )
        for i in range(24)
    ]
    assert ssim.estimate.value == pytest.approx(float(torch.stack(pairs).mean()), abs=1e-6)
    assert rows["diversity.ssim"].facts["measure"] == "SSIM, one scale, of volumes"
    assert rows["diversity.ssim"].facts["pairs_train"] <= 24 * 23 / 2
    extracted = json.loads((tmp_path / "volumes" / "run.json").read_text())["extracted"]
    assert {space: count for each in extracted.values() for space, count in each.items() if space == "radiomics"} == {
        "radiomics": 0
    }
    described = whole.data["train"]
    assert (described["n_images"], described["n_volumes"], described["n_patients"]) == (24 * DEPTH, 24, 24)
    assert "mean of its slices' features" in described["notes"][-1]
    assert any("mean of its slices' features" in line for line in whole.limitations)


def test_the_patient_stays_the_unit(tmp_path) -> None:
    """Two volumes of each patient are 40 rows and 20 units, and the distance is that of the rows by hand."""
    write_sets(tmp_path, seed=1, patients=20, per_patient=2)
    report = audit(
        **{name: tmp_path / name for name in ("train", "holdout", "synthetic")},
        intensity=HU, cache=tmp_path / "cache", metrics="fd", slices=Slices("z", 3), volumes="mean-sd",
    )  # fmt: skip
    fd = report.results[0]
    assert fd.interval.n_units == 20
    assert fd.facts["n_train"] == 40
    extractor = HOST.load(HOST.find("features", "radiomics"))()
    sets = {name: opened(tmp_path / name, name, slices=Slices("z", 3)) for name in ("train", "holdout", "synthetic")}
    assert len(sets["train"]) == 40 * DEPTH // 3
    raw = {name: survey(images, {"r": extractor}, HU).features["r"] for name, images in sets.items()}
    stacked = {}
    for name, matrix in raw.items():
        x = matrix.values.double().view(40, DEPTH // 3, -1)
        values = torch.cat([x.mean(1), x.std(1, correction=0)], dim=1).float()
        names = (*matrix.names, *(f"{n} sd" for n in matrix.names))
        stacked[name] = type(matrix)(values, matrix.patients[:: DEPTH // 3], matrix.digests[:40], "r", "", names)
    scaled = {name: matrix.values.double() for name, matrix in standardise(stacked).items()}
    spread = scaled["train"].std(0)
    plug_in = stats.frechet_distance(scaled["train"] / spread, scaled["synthetic"] / spread)
    assert fd.facts["plug_in"] == pytest.approx(plug_in, rel=1e-5)


def test_refusals(tmp_path, rng) -> None:
    """What is no volume is refused by name, and volumes of different depth have no likeness in three dimensions."""
    with pytest.raises(ConfigError, match="mean or mean-sd"):
        check_volume_features("median")
    flat = tmp_path / "flat"
    flat.mkdir()
    Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(flat / "a.png")
    images = open_set(flat, "synthetic", readers_of(HOST))
    with pytest.raises(DataError, match=r"a\.png of synthetic belongs to no volume"):
        Volumes(images, images.digests)
    write_nifti(tmp_path / "deep" / "v.nii.gz", solid(rng, 9))
    images = opened(tmp_path / "deep", limits=Limits(max_pixels=9 * SIDE * SIDE - 1), slices=Slices("z"))
    with pytest.raises(SafetyError, match="--slices z:STEP"):
        Volumes(images, images.digests)[0]
    with (tmp_path / "deep" / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "patient"), ("v.nii.gz", "one")])
    one = opened(tmp_path / "deep", patients=None)
    assert Volumes(one, one.digests).patients == ("one",)
    write_nifti(tmp_path / "mixed" / "v.nii.gz", solid(rng, 4))
    mixed = opened(tmp_path / "mixed", patients=r"#(\d+)")
    with pytest.raises(DataError, match="several patients"):
        Volumes(mixed, mixed.digests)
    write_sets(tmp_path / "sets", patients=4)
    write_nifti(tmp_path / "sets" / "synthetic" / "v00.nii.gz", solid(rng, DEPTH + 1))
    report = audit(
        **{name: tmp_path / "sets" / name for name in ("train", "holdout", "synthetic")},
        intensity=HU, cache=tmp_path / "cache", metrics="ssim_diversity", volumes="mean",
    )  # fmt: skip
    assert report.results[0].status == "insufficient"
    assert "differ in shape" in report.results[0].reason
