"""The demo's preparation: a split by patient, a generator of one side, and copies that only their list betrays."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtrust import demo
from medtrust.errors import ConfigError, DataError
from medtrust.host import build_host
from medtrust.images import open_set
from medtrust.progress import QuietProgress
from medtrust.recipes import find_recipe
from medtrust.sources import readers_of

PATIENTS, SAMPLES = 12, 40
QUICK = {"steps": "2", "batch": "4", "width": "8", "augment": "dihedral"}


@pytest.fixture(scope="module")
def host():
    return build_host()


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A demo of a size that a test can afford."""
    monkeypatch.setattr(demo, "PATIENTS", PATIENTS)
    monkeypatch.setattr(demo, "SAMPLES", SAMPLES)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache that holds invented patches in place of derm-patches: 30 patients with one to three images each."""
    folder = tmp_path_factory.mktemp("cache")
    place = folder / "data" / demo.RECIPE
    (place / "Similar").mkdir(parents=True)
    rng = np.random.default_rng(17)
    rows = []
    for patient in range(30):
        base = rng.uniform(40, 215, (1, 1, 3)) + 12 * rng.normal(size=(32, 32, 1))
        for k in range(1 + patient % 3):
            name = f"Similar/patch{patient}{k}.bmp"
            pixels = (base + 6 * rng.normal(size=(32, 32, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(place / name)
            rows.append((name, f"P{patient:04d}"))
    with (place / "manifest.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("file", "patient"), *rows])
    record = {"sha256": find_recipe(demo.RECIPE).sha256, "files": {}}
    (place / ".recipe.json").write_text(json.dumps(record))
    return folder


class Lines(QuietProgress):
    """Progress that remembers what was said."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def prepare(out, cache, host, seed=3, plant_copies=0.0, progress=None, **options):
    return demo.prepare_demo(
        out,
        seed=seed,
        plant_copies=plant_copies,
        cache=cache,
        offline=True,
        progress=progress or QuietProgress(),
        options={**QUICK, **options},
        host=host,
    )


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def patients(place: Path) -> set[str]:
    return {row["patient"] for row in csv.DictReader((place / "manifest.csv").open())}


def test_sets_are_even_disjoint_by_patient_and_readable(tmp_path, cache, host):
    """Train and holdout hold as many patients each, none of them in both, every image of a patient on one side."""
    sets = prepare(tmp_path, cache, host)
    train, holdout = patients(sets.train), patients(sets.holdout)
    assert len(train) == len(holdout) == PATIENTS
    assert not train & holdout
    source = list(csv.DictReader((cache / "data" / demo.RECIPE / "manifest.csv").open()))
    opened = open_set(sets.train, "train", readers_of(host))
    assert opened.patients_known
    assert len(opened) == sum(row["patient"] in train for row in source)
    synthetic = open_set(sets.synthetic, "synthetic", readers_of(host))
    assert len(synthetic) == SAMPLES
    assert {record.pixels.shape for record in synthetic} == {(3, 32, 32)}
    assert sets.planted == ()
    assert list(csv.reader((tmp_path / "sets" / "planted.csv").open())) == [["file", "source", "edit"]]


def test_same_seed_same_bytes_and_the_checkpoint_is_reused(tmp_path, cache, host):
    """A second run writes the same files and does not train again; another seed splits and samples anew."""
    prepare(tmp_path / "a", cache, host, plant_copies=0.1)
    first = content(tmp_path / "a")
    said = Lines()
    prepare(tmp_path / "a", cache, host, plant_copies=0.1, progress=said)
    assert content(tmp_path / "a") == first
    assert any("not trained again" in line for line in said.lines)
    fresh = Lines()
    prepare(tmp_path / "b", cache, host, plant_copies=0.1, progress=fresh)
    assert content(tmp_path / "b") == first
    assert not any("not trained again" in line for line in fresh.lines)
    prepare(tmp_path / "c", cache, host, seed=4, plant_copies=0.1)
    other = content(tmp_path / "c")
    assert other["sets/train/manifest.csv"] != first["sets/train/manifest.csv"]
    assert other["sets/synthetic/sample-000000.png"] != first["sets/synthetic/sample-000000.png"]


def test_planted_copies_replace_samples_one_per_patient_and_nothing_betrays_them(tmp_path, cache, host):
    """The right number of samples becomes light edits of distinct patients' training images under unchanged names."""
    clean = prepare(tmp_path / "clean", cache, host)
    sets = prepare(tmp_path / "planted", cache, host, plant_copies=0.2)
    before, after = content(clean.synthetic), content(sets.synthetic)
    assert set(before) == set(after)
    changed = {name for name in before if before[name] != after[name]}
    rows = list(csv.DictReader((tmp_path / "planted" / "sets" / "planted.csv").open()))
    assert {row["file"] for row in rows} == set(sets.planted) == changed
    assert len(changed) == round(0.2 * SAMPLES)
    assert len({row["edit"] for row in rows}) > 1
    owner = {
        row["file"]: row["patient"] for row in csv.DictReader((cache / "data" / demo.RECIPE / "manifest.csv").open())
    }
    assert len({owner[row["source"]] for row in rows}) == len(rows)
    assert {owner[row["source"]] for row in rows} <= patients(sets.train)
    for row in rows:
        copy = np.asarray(Image.open(sets.synthetic / row["file"]), dtype=float)
        source = np.asarray(Image.open(cache / "data" / demo.RECIPE / row["source"]), dtype=float)
        assert 0 < np.abs(copy - source).mean() < 20
        mode = Image.open(sets.synthetic / row["file"])
        assert (mode.format, mode.mode, mode.info) == ("PNG", "RGB", {})


def test_planted_share_of_nothing_and_of_half(tmp_path, cache, host):
    """A share that rounds to none plants none; one that needs more patients than train has is refused."""
    assert prepare(tmp_path, cache, host, plant_copies=0.01).planted == ()
    with pytest.raises(ConfigError, match="train has 12"):
        prepare(tmp_path, cache, host, plant_copies=0.5)


def test_foreign_folders_are_left_alone(tmp_path, cache, host):
    """A folder `sets` that no demo made stops the demo before anything is touched."""
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "mine.txt").write_text("keep")
    with pytest.raises(ConfigError, match="not made by a demo"):
        prepare(tmp_path, cache, host)
    assert (tmp_path / "sets" / "mine.txt").read_text() == "keep"


def test_too_few_patients_is_one_sentence(tmp_path, cache, host, monkeypatch):
    """Asking for more patients than there are names both numbers."""
    monkeypatch.setattr(demo, "PATIENTS", 16)
    with pytest.raises(DataError, match="30 patients are too few to draw 16"):
        prepare(tmp_path, cache, host)


def test_empty_cache_offline_names_the_line_to_type(tmp_path, host):
    """Without the patches and without a connection the demo says how to get them."""
    with pytest.raises(ConfigError, match="medtrust data get derm-patches"):
        prepare(tmp_path / "out", tmp_path / "cache", host)
