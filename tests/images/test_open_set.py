from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from medtrust.errors import ConfigError, DataError, SafetyError
from medtrust.images import Readers, open_set
from medtrust.types import FormatSpec


def small(rng, *shape):
    return rng.integers(0, 256, shape or (5, 7), dtype=np.uint8)


def test_a_folder_is_read_recursively_in_sorted_order(tmp_path, readers, png, rng):
    """Files come sorted by folder and name, whatever order they were written in."""
    names = ["b/2.png", "a.png", "b/1.png", "c/d/x.png"]
    for name in names:
        png(tmp_path / name, small(rng))
    images = open_set(tmp_path, "train", readers)
    assert images.names == ("a.png", "b/1.png", "b/2.png", "c/d/x.png")
    assert len(images) == 4


def test_clutter_is_left_out_and_counted(tmp_path, readers, png, rng):
    """Read-me files, tables, hidden files and hidden folders are no images, and the set says how many there were."""
    png(tmp_path / "a.png", small(rng))
    png(tmp_path / ".cache" / "old.png", small(rng))
    for name in ("README.txt", "LICENSE", "labels.csv", ".DS_Store", "card.json"):
        (tmp_path / name).write_text("x")
    images = open_set(tmp_path, "train", readers)
    assert images.names == ("a.png",)
    assert images.describe()["skipped_files"] == 5


def test_a_text_file_named_png_is_an_error_that_names_it(tmp_path, readers, png, rng):
    """What looks like an image by name must be one."""
    png(tmp_path / "a.png", small(rng))
    (tmp_path / "b.png").write_text("not an image")
    with pytest.raises(DataError, match=r"b\.png"):
        open_set(tmp_path, "train", readers)


def test_a_file_that_no_format_reads_is_an_error_that_names_it(tmp_path, readers, png, rng):
    """An unknown file is never skipped in silence."""
    png(tmp_path / "a.png", small(rng))
    (tmp_path / "b.xyz").write_bytes(b"\x00\x01\x02")
    with pytest.raises(DataError, match=r"b\.xyz.*no installed format"):
        open_set(tmp_path, "train", readers)


def test_first_bytes_win_over_the_suffix(tmp_path, readers, png, rng):
    """A PNG that is called .jpg is read as the PNG it is."""
    pixels = small(rng)
    png(tmp_path / "a.jpg", pixels)
    np.testing.assert_array_equal(open_set(tmp_path, "train", readers)[0].pixels[0], pixels)


def test_two_formats_that_claim_one_file_are_named(tmp_path):
    """Where first bytes and suffix leave two formats, nothing is guessed."""
    (tmp_path / "a.raw").write_bytes(b"RAW!")
    spec = {"version": "1", "factory": "m:R", "suffixes": (".raw",), "magic": ((0, b"RAW!"),)}
    readers = Readers([(FormatSpec(name=name, **spec), lambda: None) for name in ("one", "two")])
    with pytest.raises(DataError, match="one and two"):
        readers.pick(tmp_path / "a.raw")


def test_the_longest_suffix_decides_between_formats_of_one_magic(tmp_path):
    """A more specific suffix beats a general one."""
    (tmp_path / "a.ome.raw").write_bytes(b"RAW!")
    spec = {"version": "1", "factory": "m:R", "magic": ((0, b"RAW!"),)}
    general = FormatSpec(name="general", suffixes=(".raw",), **spec)
    special = FormatSpec(name="special", suffixes=(".ome.raw",), **spec)
    readers = Readers([(general, lambda: "g"), (special, lambda: "s")])
    assert readers.pick(tmp_path / "a.ome.raw") == (special, "s")


@pytest.mark.parametrize("make", [lambda p: None, lambda p: (p / "README.md").write_text("x")])
def test_an_empty_folder_is_a_data_error(tmp_path, readers, make):
    """A folder without images says so."""
    make(tmp_path)
    with pytest.raises(DataError, match="no images"):
        open_set(tmp_path, "train", readers)


def test_a_source_that_is_not_there_is_a_data_error(tmp_path, readers):
    """A misspelt path is named."""
    with pytest.raises(DataError, match="nowhere"):
        open_set(tmp_path / "nowhere", "train", readers)


def test_a_link_that_leaves_the_root_is_refused(tmp_path, readers, png, rng):
    """A set never reads a file outside its folder."""
    png(tmp_path / "outside.png", small(rng))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(SafetyError, match=r"a\.png"):
        open_set(tmp_path / "set", "train", readers)


def test_a_link_to_a_folder_is_refused(tmp_path, readers, png, rng):
    """A circle of folders cannot make a set endless."""
    png(tmp_path / "set" / "a.png", small(rng))
    (tmp_path / "set" / "again").symlink_to(tmp_path / "set")
    with pytest.raises(SafetyError, match="again"):
        open_set(tmp_path / "set", "train", readers)


def test_a_link_that_leads_nowhere_is_refused(tmp_path, readers, png, rng):
    """A dangling link is named rather than skipped."""
    png(tmp_path / "a.png", small(rng))
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(SafetyError, match=r"b\.png"):
        open_set(tmp_path, "train", readers)


def test_a_link_inside_the_root_is_read(tmp_path, readers, png, rng):
    """Links that stay inside are ordinary files."""
    pixels = small(rng)
    png(tmp_path / "store" / "x.png", pixels)
    (tmp_path / "a.png").symlink_to(tmp_path / "store" / "x.png")
    images = open_set(tmp_path, "train", readers)
    assert images.digests[0] == images.digests[1]


def test_a_pipe_in_the_folder_is_refused(tmp_path, readers, png, rng):
    """Something that would block for ever is refused before it is opened."""
    png(tmp_path / "a.png", small(rng))
    os.mkfifo(tmp_path / "b.png")
    with pytest.raises(SafetyError, match=r"b\.png"):
        open_set(tmp_path, "train", readers)


def test_without_patient_information_each_image_is_its_own_patient(tmp_path, readers, png, rng):
    """Unknown patients are distinct, said to be unknown, and never shared between sets."""
    for index in range(3):
        png(tmp_path / f"{index}.png", small(rng))
    train, holdout = open_set(tmp_path, "train", readers), open_set(tmp_path, "holdout", readers)
    assert len(set(train.patients)) == 3
    assert not train.patients_known
    assert not set(train.patients) & set(holdout.patients)
    assert any("own patient" in note for note in train.describe()["notes"])


@pytest.mark.parametrize("pattern", [r"(p\d+)_", r"p\d+"])
def test_patients_come_from_an_expression_on_the_path(tmp_path, readers, png, rng, pattern):
    """The first group names the patient, or the whole match where there is no group."""
    for name in ("p1_a.png", "p1_b.png", "p2_a.png"):
        png(tmp_path / name, small(rng))
    images = open_set(tmp_path, "train", readers, patients=pattern)
    assert images.patients == ("p1", "p1", "p2")
    assert images.patients_known


def test_an_expression_that_misses_a_file_is_an_error_that_names_it(tmp_path, readers, png, rng):
    """No image quietly gets a made-up patient when the user gave a rule."""
    png(tmp_path / "p1.png", small(rng))
    png(tmp_path / "other.png", small(rng))
    with pytest.raises(DataError, match=r"other\.png"):
        open_set(tmp_path, "train", readers, patients=r"p\d+")


def test_a_broken_expression_is_a_configuration_error(tmp_path, readers):
    """The option is wrong, not the data."""
    with pytest.raises(ConfigError, match="regular expression"):
        open_set(tmp_path, "train", readers, patients="(")


def test_a_manifest_gives_patients_and_attributes(tmp_path, readers, png, rng):
    """Columns beside file and patient travel as attributes; empty cells do not."""
    png(tmp_path / "x" / "a.png", small(rng))
    png(tmp_path / "x" / "b.png", small(rng))
    png(tmp_path / "x" / "unlisted.png", small(rng))
    (tmp_path / "m.csv").write_text("\ufefffile,patient,sex,site\nx/b.png,P2,F,\nx/a.png,P1,M,north\n", "utf-8")
    images = open_set(tmp_path / "m.csv", "train", readers)
    assert images.names == ("x/a.png", "x/b.png")
    assert images.patients == ("P1", "P2")
    assert images.headers[0].attributes == {"sex": "M", "site": "north"}
    assert images.headers[1].attributes == {"sex": "F"}
    assert images.patients_known


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,1\n", "patient missing"),
        ("", "file and patient missing"),
        ("file,patient,file\na.png,1,a.png\n", "twice"),
        ("file,patient\na.png,1\nb.png,2\n", "b.png"),
        ("file,patient\na.png,1\n./a.png,2\n", "listed already in line 2"),
        ("file,patient\na.png,\n", "patient empty"),
        ("file,patient\na.png\n", "line 2"),
        ("file,patient\na.png,1,2\n", "line 2"),
        ("file,patient\nm.csv,1\n", "manifest itself"),
        ("file,patient\n", "lists no files"),
        ('file,patient\n"a.png,1\n', "CSV"),
    ],
)
def test_a_wrong_manifest_gives_one_clear_data_error(tmp_path, readers, png, rng, text, message):
    """Each way a manifest can be wrong has its sentence."""
    png(tmp_path / "a.png", small(rng))
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        open_set(tmp_path / "m.csv", "train", readers)


@pytest.mark.parametrize("name", ["../secret.png", "{absolute}", "x/../../secret.png", "link.png"])
def test_a_manifest_cannot_leave_its_folder(tmp_path, readers, png, rng, name):
    """Neither dots, absolute paths nor links lead out."""
    png(tmp_path / "secret.png", small(rng))
    png(tmp_path / "set" / "x" / "a.png", small(rng))
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "secret.png")
    name = name.format(absolute=tmp_path / "secret.png")
    (tmp_path / "set" / "m.csv").write_text(f"file,patient\n{name},P\n")
    with pytest.raises(SafetyError):
        open_set(tmp_path / "set" / "m.csv", "train", readers)


def test_a_folder_with_a_manifest_is_what_the_manifest_lists(tmp_path, readers, png, rng):
    """Patients come from the folder's own manifest.csv, and files that it does not list are counted aloud."""
    png(tmp_path / "a.png", small(rng))
    png(tmp_path / "b.png", small(rng))
    (tmp_path / "manifest.csv").write_text("file,patient\na.png,P\n")
    images = open_set(tmp_path, "train", readers)
    assert (images.names, images.patients, images.patients_known) == (("a.png",), ("P",), True)
    assert any("1 files" in note and "manifest.csv" in note for note in images.notes), images.notes


def test_a_single_npz_is_a_set(tmp_path, readers, rng):
    """Rows are images, named by their index, with the patients stored beside them."""
    stack = rng.integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
    np.savez(tmp_path / "s.npz", images=stack, patients=np.array(["a", "a", "b", "c"]))
    images = open_set(tmp_path / "s.npz", "synthetic", readers)
    assert images.names == ("s.npz#0", "s.npz#1", "s.npz#2", "s.npz#3")
    assert images.patients == ("a", "a", "b", "c")
    np.testing.assert_array_equal(images[2].pixels, stack[2].transpose(2, 0, 1))


def test_ct_slices_sort_along_the_slice_normal(tmp_path, readers, ct, rng):
    """File names do not decide the order of a series, positions do."""
    heights = [12.5, -3.0, 100.0, 2.0]
    for index, z in enumerate(heights):
        ct(tmp_path / f"{index}.dcm", np.full((4, 4), index), z=z)
    images = open_set(tmp_path, "train", readers)
    assert images.names == ("1.dcm", "3.dcm", "0.dcm", "2.dcm")
    assert images.patients == ("P-1",) * 4
    assert images.modality == "CT"


def test_slices_of_one_volume_count_as_one_unknown_patient(tmp_path, readers, rng):
    """An unnamed volume is one statistical unit, not one per slice."""
    import nibabel as nib

    for name in ("a.nii.gz", "b.nii.gz"):
        nib.save(nib.Nifti1Image(rng.integers(0, 99, (4, 5, 6)).astype(np.uint8), np.eye(4)), tmp_path / name)
    images = open_set(tmp_path, "train", readers)
    assert (len(images), len(set(images.patients)), images.patients_known) == (12, 2, False)


def test_a_path_object_and_a_text_are_both_a_source(tmp_path, readers, png, rng):
    """Callers need not convert."""
    png(tmp_path / "a.png", small(rng))
    assert open_set(str(tmp_path), "train", readers).names == open_set(Path(tmp_path), "train", readers).names  # type: ignore[arg-type]
