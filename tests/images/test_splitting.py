"""Train and holdout from one set: patients and exact copies stay together, and the draw is the seed's alone."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtrust.cli import main
from medtrust.errors import ConfigError, DataError, Insufficient
from medtrust.host import build_host
from medtrust.images import open_set, split_set, write_split
from medtrust.sources import readers_of


def folder(place: Path, rng: np.random.Generator, patients: int = 20, each: int = 3) -> Path:
    """A set with several images per patient, a site, and a label that differs within some patients."""
    place.mkdir()
    rows = [("file", "patient", "site", "label")]
    for i in range(patients * each):
        Image.fromarray(rng.integers(0, 256, (6, 5), dtype=np.uint8)).save(place / f"i{i:03d}.png")
        patient = i // each
        rows.append((f"i{i:03d}.png", f"P{patient:02d}", "north" if patient % 4 else "south", "ab"[i % each == 0]))
    with (place / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return place


def opened(source: Path, **options):
    return open_set(source, "train", readers_of(build_host()), **options)


@pytest.mark.parametrize("share", [0.5, 0.2, 0.75, 0.01, 0.99])
def test_every_image_is_on_one_side_and_every_patient_too(share, tmp_path):
    """Sides are disjoint and complete, of the share asked for, and neither is empty."""
    images = opened(folder(tmp_path / "set", np.random.default_rng(1)))
    split = split_set(images, share, seed=4)
    assert sorted(split.train + split.holdout) == list(range(len(images)))
    sides = [{images.patients[row] for row in rows} for rows in (split.train, split.holdout)]
    assert not sides[0] & sides[1]
    assert split.patients == (len(sides[0]), len(sides[1]))
    assert split.patients[1] == min(max(round(20 * share), 1), 19)


def test_the_seed_alone_decides(tmp_path):
    """The same seed gives the same split, another seed another."""
    images = opened(folder(tmp_path / "set", np.random.default_rng(2)))
    assert split_set(images, seed=1) == split_set(images, seed=1)
    assert len({split_set(images, seed=seed).holdout for seed in range(8)}) == 8


def test_both_sides_hold_the_same_mixture(tmp_path):
    """A quarter of the patients is from the south, on either side, whatever the seed."""
    images = opened(folder(tmp_path / "set", np.random.default_rng(3)))
    for seed in range(10):
        split = split_set(images, seed=seed, stratify="site")
        south = {images.patients[r] for r in split.holdout if images.headers[r].attributes["site"] == "south"}
        assert split.patients == (10, 10)
        assert len(south) in (2, 3)


def test_patients_who_share_an_image_stay_together(tmp_path):
    """Chains of exact copies are followed."""
    place = folder(tmp_path / "set", np.random.default_rng(4))
    for one, other in (("i000", "i010"), ("i011", "i020"), ("i018", "i030")):
        shutil.copy(place / f"{one}.png", place / f"{other}.png")
    images = opened(place)
    for seed in range(12):
        split = split_set(images, seed=seed)
        chain = {f"P{int(name) // 3:02d}" for name in ("000", "010", "020", "030")}
        holdout = {images.patients[row] for row in split.holdout}
        assert chain <= holdout or not chain & holdout
        assert split.joined == 3


def test_what_is_written_opens_as_two_sets_with_all_columns(tmp_path):
    """The manifests keep the columns, open again, and a second, other split does not overwrite them."""
    place = folder(tmp_path / "set", np.random.default_rng(5))
    images = opened(place)
    split = split_set(images, seed=6)
    train, holdout = write_split(place, images, split)
    again = opened(train)
    assert again.names == tuple(images.names[row] for row in split.train)
    assert {h.attributes["site"] for h in opened(holdout).headers} == {"north", "south"}
    assert write_split(place, images, split) == (train, holdout)
    before = train.read_bytes()
    with pytest.raises(DataError, match="is there and differs"):
        write_split(place, images, split_set(images, seed=7))
    assert train.read_bytes() == before
    assert len(opened(place)) == len(images)


def test_what_cannot_be_split_is_refused(tmp_path):
    """Unknown patients, one patient, one file of several, no such column, no share: each says what to do."""
    place = folder(tmp_path / "set", np.random.default_rng(8), patients=3)
    images = opened(place)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        split_set(images, 1.0)
    with pytest.raises(DataError, match="has no age in the manifest"):
        split_set(images, stratify="age")
    with pytest.raises(Insufficient, match="needs 2 patients"):
        split_set(images.take([0, 1, 2]))
    (place / "manifest.csv").unlink()
    with pytest.raises(DataError, match=r"--patients REGEX \('\.\+' declares each file a patient\)"):
        split_set(opened(place))
    stack = tmp_path / "stack"
    stack.mkdir()
    np.savez(stack / "all.npz", images=np.random.default_rng(9).integers(0, 256, (6, 1, 4, 4), dtype=np.uint8))
    with pytest.raises(DataError, match=r"all\.npz holds images of several patients"):
        split_set(opened(stack, patients=r"#\d"))


def test_the_command_prints_both_sets(tmp_path, capsys):
    """`medtrust data split` writes two manifests and says what is in them."""
    place = folder(tmp_path / "set", np.random.default_rng(10))
    assert main(["data", "split", str(place), "--stratify", "site", "--seed", "3"]) == 0
    shown = capsys.readouterr().out
    assert f"{place / 'train.csv'}: 30 images of 10 patients" in shown
    assert f"{place / 'holdout.csv'}: 30 images of 10 patients" in shown
    assert main(["data", "split", str(place), "--holdout", "2"]) == 2
