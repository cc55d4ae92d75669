"""The feature store: nothing is lost, nothing damaged is believed, and processes may share it."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from medtrust.cache import _OPEN_SHARDS, FeatureStore, space_key
from medtrust.errors import ConfigError
from medtrust.types import Intensity

KEY = space_key("ab" * 32, Intensity(0, 255, "level"))


def digests(*numbers: int) -> list[str]:
    return [hashlib.sha256(str(n).encode()).hexdigest() for n in numbers]


def rows(n: int, d: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def known(store: FeatureStore, key: str, ids: list[str]) -> list[bool]:
    return [row is not None for row in store.lookup(key, ids)]


def values_of(store: FeatureStore, key: str, ids: list[str]) -> torch.Tensor:
    assert all(known(store, key, ids))
    return torch.stack([row for row in store.lookup(key, ids) if row is not None])


def shards(root: Path) -> list[Path]:
    return sorted((root / KEY).glob("*.safetensors"))


def test_what_is_added_is_found_by_this_and_the_next_process(tmp_path: Path) -> None:
    """Rows come back bit for bit, in the order asked for, and unknown rows are None."""
    values = rows(4)
    store = FeatureStore(tmp_path / "new" / "place")
    store.add(KEY, digests(1, 2, 3, 4), values)
    for opened in (store, FeatureStore(tmp_path / "new" / "place")):
        found = opened.lookup(KEY, digests(4, 99, 1, 4))
        assert found[1] is None
        assert torch.equal(torch.stack([found[0], found[2], found[3]]), values[[3, 0, 3]])


def test_an_empty_store_knows_nothing(tmp_path: Path) -> None:
    """Before anything is added there is no row, and asking makes no folder."""
    assert FeatureStore(tmp_path / "none").lookup(KEY, digests(1, 2)) == [None, None]
    assert not (tmp_path / "none").exists()
    assert FeatureStore(tmp_path).lookup(KEY, []) == []


def test_space_range_and_unit_are_part_of_the_key() -> None:
    """Whatever the features depend on beside the pixels gives another key, and the same facts the same one."""
    declared = [
        Intensity(0, 255, "level"),
        Intensity(0, 256, "level"),
        Intensity(-1, 255, "level"),
        Intensity(0, 255, "HU"),
        Intensity(0, 255, "level", (0, 100)),
    ]
    keys = {space_key(space, intensity) for space in ("aa", "bb") for intensity in declared}
    assert len(keys) == 10
    assert space_key("aa", Intensity(0, 255, "level")) == space_key("aa", Intensity(0.0, 255.0, "level"))


def test_spaces_do_not_mix(tmp_path: Path) -> None:
    """The same image has other rows in another space."""
    store = FeatureStore(tmp_path)
    other = space_key("cd" * 32, Intensity(0, 255, "level"))
    store.add(KEY, digests(1), rows(1))
    store.add(other, digests(1), rows(1, d=3, seed=1))
    assert torch.equal(values_of(store, other, digests(1)), rows(1, d=3, seed=1))
    assert torch.equal(values_of(store, KEY, digests(1)), rows(1))


def test_known_rows_are_not_written_again(tmp_path: Path) -> None:
    """Adding what is there writes no file; adding a mixture writes the new rows."""
    store = FeatureStore(tmp_path)
    store.add(KEY, digests(1, 2), rows(2))
    store.add(KEY, digests(2, 1), rows(2).flip(0))
    assert len(shards(tmp_path)) == 1
    store.add(KEY, digests(2, 3, 3), torch.cat([rows(2)[1:], rows(1, seed=3), rows(1, seed=3)]))
    assert len(shards(tmp_path)) == 2
    found = values_of(FeatureStore(tmp_path), KEY, digests(1, 2, 3))
    assert torch.equal(found, torch.cat([rows(2), rows(1, seed=3)]))


def test_rows_of_one_space_may_differ_in_width(tmp_path: Path) -> None:
    """A space whose width follows the image size keeps rows of every size."""
    store = FeatureStore(tmp_path)
    store.add(KEY, digests(1), rows(1))
    store.add(KEY, digests(2), rows(1, d=8))
    found = FeatureStore(tmp_path).lookup(KEY, digests(2, 1))
    assert [row.tolist() for row in found if row is not None] == [rows(1, d=8)[0].tolist(), rows(1)[0].tolist()]


def test_what_was_read_does_not_pile_up(tmp_path: Path) -> None:
    """However many shards were read, few are open; rows in closed ones are found again."""
    FeatureStore(tmp_path).add(KEY, digests(0), rows(1))
    store = FeatureStore(tmp_path)
    for n in range(1, 30):
        store.add(KEY, digests(n), rows(1, seed=n))
    for n in (*range(30), 3, 29, 0):
        assert torch.equal(values_of(store, KEY, digests(n)), rows(1, seed=n))
    assert len(shards(tmp_path)) == 30
    assert len(store._open) == _OPEN_SHARDS
    if Path("/proc/self/maps").exists():
        assert Path("/proc/self/maps").read_text().count(str(tmp_path)) <= _OPEN_SHARDS


def test_a_shard_that_goes_away_meanwhile_is_made_again(tmp_path: Path) -> None:
    """Another process may prune what this one has listed: its rows are unknown, and can be added again."""
    store = FeatureStore(tmp_path)
    store.add(KEY, digests(1, 2), rows(2))
    store.add(KEY, digests(3), rows(1, seed=3))
    first = max(shards(tmp_path), key=lambda path: path.stat().st_size)  # it holds two rows
    first.unlink()
    assert known(store, KEY, digests(1, 2, 3)) == [False, False, True]
    store.add(KEY, digests(1, 2), rows(2))
    assert first.exists()
    assert torch.equal(values_of(store, KEY, digests(2, 1)), rows(2).flip(0))


def test_wrong_shapes_are_refused(tmp_path: Path) -> None:
    """A row count, a width, a dtype or a digest that does not fit is an error, and nothing is written."""
    store = FeatureStore(tmp_path)
    with pytest.raises(ValueError, match="2 digests"):
        store.add(KEY, digests(1, 2), rows(3))
    with pytest.raises(ValueError, match="float32"):
        store.add(KEY, digests(1), rows(1).double())
    with pytest.raises(ValueError, match="64 hexadecimal"):
        store.add(KEY, ["abcd"], rows(1))
    assert not shards(tmp_path)


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "grow"])
def test_a_damaged_shard_is_removed_and_reported_once(tmp_path: Path, damage: str) -> None:
    """A file that no longer matches its name is not believed; the other shards stay, and new rows can be added."""
    store = FeatureStore(tmp_path)
    store.add(KEY, digests(1, 2), rows(2))
    store.add(KEY, digests(3), rows(1, seed=1))
    victim = next(
        path for path in shards(tmp_path) if path.stat().st_size == max(p.stat().st_size for p in shards(tmp_path))
    )
    content = bytearray(victim.read_bytes())
    if damage == "flip":
        content[-5] ^= 4
    victim.write_bytes({"flip": content, "truncate": content[:-9], "empty": b"", "grow": content + b"\0"}[damage])

    opened = FeatureStore(tmp_path)
    assert known(opened, KEY, digests(1, 2, 3)) == [False, False, True]
    (notice,) = opened.take_notices()
    assert victim.name in notice
    assert opened.take_notices() == ()
    assert not victim.exists()
    opened.add(KEY, digests(1, 2), rows(2))
    again = FeatureStore(tmp_path)
    assert all(known(again, KEY, digests(1, 2, 3)))
    assert again.take_notices() == ()


def test_a_foreign_file_with_a_right_name_is_not_believed(tmp_path: Path) -> None:
    """A safetensors file that is intact but holds something else is removed like a damaged one."""
    FeatureStore(tmp_path).add(KEY, digests(1), rows(1))
    for content in (
        save({"other": rows(2)}),
        save({"values": rows(2), "digests": torch.zeros(2, 7, dtype=torch.uint8)}),
    ):
        foreign = tmp_path / KEY / f"{hashlib.sha256(content).hexdigest()}.safetensors"
        foreign.write_bytes(content)
        store = FeatureStore(tmp_path)
        assert all(known(store, KEY, digests(1)))
        assert foreign.name in store.take_notices()[0]
        assert not foreign.exists()


def test_the_least_recently_used_shards_go_first(tmp_path: Path) -> None:
    """A store over its size is pruned when opened, oldest use first; looking something up counts as use."""
    store = FeatureStore(tmp_path)
    keys = [space_key(str(i) * 64, Intensity(0, 1, "a.u.")) for i in range(3)]
    for age, key in enumerate(keys):
        store.add(key, digests(1), rows(1, d=100))
        for path in (tmp_path / key).iterdir():
            os.utime(path, (time.time() - 1000 + age, time.time() - 1000 + age))
    size = sum(path.stat().st_size for path in tmp_path.glob("*/*")) // 3
    FeatureStore(tmp_path).lookup(keys[0], digests(1))
    pruned = FeatureStore(tmp_path, max_bytes=2 * size)
    assert [known(pruned, key, digests(1))[0] for key in keys] == [True, False, True]


def test_leftovers_of_killed_writers_are_cleared(tmp_path: Path) -> None:
    """An old temporary file goes when the store is opened, a fresh one may belong to a living process."""
    FeatureStore(tmp_path).add(KEY, digests(1), rows(1))
    old, fresh = tmp_path / KEY / ".a.safetensors.old", tmp_path / KEY / ".b.safetensors.new"
    old.write_bytes(b"half")
    fresh.write_bytes(b"half")
    os.utime(old, (0, 0))
    store = FeatureStore(tmp_path)
    assert all(known(store, KEY, digests(1)))
    assert store.take_notices() == ()
    assert not old.exists()
    assert fresh.exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A file where the folder should be is an error with its path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file"):
        FeatureStore(tmp_path / "file").add(KEY, digests(1), rows(1))


WRITER = """
import sys, hashlib, torch
from pathlib import Path
from medtrust.cache import FeatureStore
root, key, first, last = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
store = FeatureStore(root)
for i in range(first, last):
    ids = [hashlib.sha256(f"{i}.{j}".encode()).hexdigest() for j in range(8)]
    store.add(key, ids, torch.full((8, 4096), float(i)))
    print(i, flush=True)
"""


def start_writer(root: Path, first: int, last: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(root), KEY, str(first), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_kill_at_any_moment_costs_only_what_was_not_written(tmp_path: Path) -> None:
    """After kill -9 every shard that was announced is whole, and nothing damaged is left behind."""
    writer = start_writer(tmp_path, 0, 100_000)
    assert writer.stdout is not None
    announced = -1
    for line in writer.stdout:
        announced = int(line)
        if announced >= 20:
            os.kill(writer.pid, signal.SIGKILL)
            break
    announced = max([announced, *(int(line) for line in writer.stdout.read().split())])
    assert writer.wait(timeout=30) == -signal.SIGKILL
    store = FeatureStore(tmp_path)
    ids = [hashlib.sha256(f"{i}.{j}".encode()).hexdigest() for i in range(announced + 1) for j in range(8)]
    values = values_of(store, KEY, ids)
    assert torch.equal(values[:, 0], torch.arange(announced + 1).repeat_interleave(8).float())
    assert store.take_notices() == ()


def test_two_processes_may_write_at_once(tmp_path: Path) -> None:
    """Two writers with overlapping images lose nothing and damage nothing."""
    writers = [start_writer(tmp_path, 0, 60), start_writer(tmp_path, 30, 90)]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.close()
    store = FeatureStore(tmp_path)
    ids = [hashlib.sha256(f"{i}.{j}".encode()).hexdigest() for i in range(90) for j in range(8)]
    values = values_of(store, KEY, ids)
    assert torch.equal(values[:, -1], torch.arange(90).repeat_interleave(8).float())
    assert store.take_notices() == ()
