"""Ray as an engine: one private cluster for the quick tests, whole audits and murders for the slow ones."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from audit_sets import write_sets
from scale_sets import LEVELS, Corners, Made, Mortal, MortalPlugin, made_set

import medtrust
from medtrust import ops
from medtrust.cli import main
from medtrust.errors import ConfigError, DataError, EngineError
from medtrust.extraction import survey
from medtrust.progress import QuietProgress
from medtrust.scaling import make_engine
from medtrust.spaces import Opening

pytest.importorskip("ray", reason="the engine ray needs Ray: pip install 'medtrust[ray]'")
from medtrust.scaling.ray_engine import _TOKEN, RETRIES, RayEngine
from medtrust.scaling.searching import SpreadSearch

ADDRESS = "127.0.0.1:1"  # nobody answers there


@pytest.fixture(scope="module")
def tally(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deaths") / "tally"


@pytest.fixture(scope="module")
def engine(tally: Path) -> Iterator[RayEngine]:
    """A private cluster of two workers, whose environment tells `Mortal` to die once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MORTAL_TALLY", str(tally))
        patch.setenv("MORTAL_DEATHS", "1")
        with make_engine("ray", workers=2) as machine:
            patch.undo()
            yield machine  # type: ignore[misc]


def ask(machine: RayEngine, images, space=Corners):
    recipes = {"corners": Opening(f"scale_sets:{space.__name__}", {"device": "cpu"})}
    return machine.survey(
        images, {"corners": space()}, recipes, LEVELS, None, batch_size=16, progress=QuietProgress()
    )  # fmt: skip


def test_two_workers_give_the_same_bits(engine: RayEngine) -> None:
    """Features, digests and the data block of a set of two shapes with repeated images."""
    images, alone = made_set(1500, shapes=True), made_set(1500, shapes=True)
    found = ask(engine, images)
    wanted = survey(alone, {"corners": Corners()}, LEVELS, batch_size=16)
    assert found.digests == wanted.digests
    assert torch.equal(found.features["corners"].values, wanted.features["corners"].values)
    assert images.describe() == alone.describe()
    counted = engine.facts()["counted"]["train"]
    assert (counted["images"], counted["shards"]) == (1500, 9)


def test_decoders_may_feed_extractors(engine: RayEngine) -> None:
    """The pipeline of two stages, as on GPUs, gives the same bits."""
    engine.split = True
    try:
        found = ask(engine, made_set(700))
    finally:
        engine.split = False
    wanted = survey(made_set(700), {"corners": Corners()}, LEVELS)
    assert torch.equal(found.features["corners"].values, wanted.features["corners"].values)


def test_a_killed_worker_costs_nothing_but_time(engine: RayEngine, tally: Path) -> None:
    """The process dies by SIGKILL in the middle of a shard; Ray sends the shard again; the bits are the same."""
    found = ask(engine, made_set(1500), Mortal)
    assert len(tally.read_text().splitlines()) == 1
    wanted = survey(made_set(1500), {"corners": Corners()}, LEVELS)
    assert torch.equal(found.features["corners"].values, wanted.features["corners"].values)
    assert found.digests == wanted.digests


def test_a_broken_image_is_one_line(engine: RayEngine) -> None:
    """The first broken image in the order of the set, with the sentence of the reader; the engine lives on."""
    with pytest.raises(DataError, match=r"^made: image 300 is cut off; copy it again\.$"):
        ask(engine, made_set(1500, Made(broken=300)))
    assert len(ask(engine, made_set(20)).digests) == 20


@pytest.mark.parametrize(("n", "m"), [(700, 900), (1, 40), (513, 30)])
def test_spread_searches_give_the_same_bits(engine: RayEngine, n: int, m: int) -> None:
    """Neighbours with and without groups, and the four measures of prdc, ties included."""
    rng = torch.Generator().manual_seed(n)
    queries, references = torch.randn(n, 12, generator=rng).round(decimals=1), torch.randn(m, 12, generator=rng)
    references[: min(n, m) // 2] = queries[: min(n, m) // 2]
    groups = (torch.arange(n) // 3, torch.arange(m) // 3)
    spread = SpreadSearch(engine._map_search, engine._place(), 2, least=0)
    here = [ops.nearest(queries, references, 5), ops.nearest(queries, references, 5, groups)]
    measures = ops.prdc(references, queries.repeat(9, 1), 5)
    with spread.searching():
        there = [ops.nearest(queries, references, 5), ops.nearest(queries, references, 5, groups)]
        assert ops.prdc(references, queries.repeat(9, 1), 5) == measures
    for mine, theirs in zip(here, there, strict=True):
        assert torch.equal(mine.distances, theirs.distances)
        assert torch.equal(mine.indices, theirs.indices)


def test_an_address_that_cannot_be_used_is_one_line(
    engine: RayEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody there, the wrong form, Ray's proxy, an address for the local engine, and another machine offline."""
    sets = write_sets(tmp_path, seed=3, patients=2, synthetic=4)
    words = [word for name, path in sets.items() for word in (f"--{name}", str(path))]
    port = engine._ray.get_runtime_context().gcs_address.rpartition(":")[2]
    for more, expected in (
        (["--engine", "ray", "--ray-address", ADDRESS], "no Ray cluster answers at 127.0.0.1:1 (Connection refused)"),
        (["--engine", "ray", "--ray-address", "10.0.0.5"], "wanted HOST:PORT"),
        (["--engine", "ray", "--ray-address", "ray://h:1"], "Ray's client proxy"),
        (["--ray-address", ADDRESS], "add --engine ray"),
        (["--engine", "ray", "--ray-address", f"127.0.0.1:{port}"], "uses a Ray cluster already"),
        (["--engine", "ray", "--ray-address", "192.0.2.9:6379", "--offline"], "--offline forbids"),
    ):
        assert main(["audit", *words, "--out", str(tmp_path / "out"), "--quiet", *more]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert expected in line
    with pytest.raises(ConfigError, match="not known"):
        make_engine("dask")


def test_real_images_do_not_leave_unnoticed() -> None:
    """Another machine is named, with what it will be told; the loopback is not another machine."""
    engine = RayEngine.__new__(RayEngine)
    engine.address = "10.0.0.5:6379"
    (note,) = engine.notes
    assert "10.0.0.5:6379 is given file paths" in note
    for here in ("127.0.0.1:6379", "localhost:6379", None):
        engine.address = here
        assert engine.notes == ()


# ------------------------------------------------------------------------------------------------ slow


def processes(marker: str = "ray") -> set[int]:
    """Processes of Ray: its daemons and workers."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            text = b" ".join(words[:3])
            if state != "Z" and (b"ray::" in text or b"/ray/" in text):
                found.add(int(entry.name))
    return found


def gone(before: set[int], patience: float = 150.0) -> bool:
    """Whether all processes of Ray that were not there before are gone."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if not processes() - before:
            return True
        time.sleep(0.5)
    return False


@pytest.fixture
def sets(tmp_path: Path) -> dict[str, Path]:
    return write_sets(tmp_path / "sets", seed=1, patients=140, synthetic=280)


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_audit_has_the_same_bytes(sets: dict[str, Path], tmp_path: Path, workers: str) -> None:
    """report.json and report.html of the two engines, each with an empty cache."""
    words = [word for name, path in sets.items() for word in (f"--{name}", str(path))]
    words += ["--metrics", "fd,kid,prdc,cpm,duplicates"]
    codes = []
    for name, more in (("local", []), ("ray", ["--engine", "ray", "--workers", workers])):
        where = ["--out", str(tmp_path / name), "--cache", str(tmp_path / f"cache-{name}"), "--quiet"]
        codes.append(main(["audit", *words, *where, *more]))
    assert codes[0] == codes[1]
    for name in ("report.json", "report.html"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()


@pytest.mark.slow
def test_an_audit_with_a_killed_worker_has_the_same_bytes(
    sets: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A feature space kills its worker twice in mid-run."""
    from medtrust.host import build_host

    reports = []
    for name in ("local", "ray"):
        if name == "ray":
            monkeypatch.setenv("MORTAL_TALLY", str(tmp_path / "tally"))
            monkeypatch.setenv("MORTAL_DEATHS", "2")
        host = build_host()
        host.register(MortalPlugin(), "mortal")
        medtrust.audit(
            **sets, features="mortal", metrics=["fd", "prdc"], engine=name, workers=2 if name == "ray" else 1,
            out=tmp_path / name, cache=tmp_path / f"cache-{name}", host=host,
        )  # fmt: skip
        reports.append((tmp_path / name / "report.json").read_bytes())
    assert len((tmp_path / "tally").read_text().splitlines()) == 2
    assert reports[0] == reports[1]


@pytest.mark.slow
def test_a_shard_that_kills_every_worker_is_blamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the last retry the error names the shard, and says what to do."""
    monkeypatch.setenv("MORTAL_TALLY", str(tmp_path / "tally"))
    monkeypatch.setenv("MORTAL_DEATHS", "1000")
    with make_engine("ray", workers=1) as machine, pytest.raises(EngineError) as caught:
        ask(machine, made_set(16), Mortal)  # type: ignore[arg-type]
    assert f"shard 0 of train (images 0 to 15) ended its worker {RETRIES + 1} times" in str(caught.value)
    assert len((tmp_path / "tally").read_text().splitlines()) == RETRIES + 1


CARD = """
size = 16
channels = 3
range = [0, 1]
mean = 0.5
std = 0.2
resize = "bicubic"
antialias = true
pool = "mean"
"""


@pytest.mark.slow
def test_a_program_stays_confined_on_its_worker(tmp_path: Path) -> None:
    """TorchScript runs in a confined process below each worker, with the same bits, and leaves nothing behind."""
    path = tmp_path / "net.pt"
    torch.manual_seed(0)
    torch.jit.script(torch.nn.Conv2d(3, 5, 3)).save(path)
    path.with_suffix(".toml").write_text(CARD)
    opening = Opening("medtrust_features.custom:Custom", {"weights": path, "device": "cpu"})
    extractor = opening.open()
    wanted = survey(made_set(600), {"custom": extractor}, LEVELS)
    with make_engine("ray", workers=2) as machine:
        folder = machine._folder  # type: ignore[attr-defined]
        found = machine.survey(
            made_set(600), {"custom": extractor}, {"custom": opening}, LEVELS, None,
            batch_size=64, progress=QuietProgress(),
        )  # fmt: skip
        assert len(list(folder.glob("medtrust-*"))) == 2
    assert torch.equal(found.features["custom"].values, wanted.features["custom"].values)
    assert not folder.exists()
    end = time.monotonic() + 30
    while confined := confined_below(str(folder)):
        assert time.monotonic() < end, confined
        time.sleep(0.5)


def confined_below(folder: str) -> list[str]:
    """Processes whose home lies in a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"HOME={folder}".encode() in (entry / "environ").read_bytes():
                found.append(entry.name)
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_what_is_no_ray_cluster_is_one_line(sets: dict[str, Path]) -> None:
    """A port where something else listens."""
    words = [word for name, path in sets.items() for word in (f"--{name}", str(path))]
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        run = subprocess.run(
            [sys.executable, "-m", "medtrust", "audit", *words, "--engine", "ray", "--ray-address", address, "--quiet"],
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    assert run.returncode == 2
    (line,) = [line for line in run.stderr.splitlines() if line.startswith("medtrust: ")]
    assert f"what answers at {address} is no healthy Ray cluster" in line


@pytest.mark.slow
def test_a_running_cluster_is_joined_and_left_alone(engine: RayEngine, sets: dict[str, Path], tmp_path: Path) -> None:
    """An audit by address has the bytes of a local one; the cluster works on, and only with its token."""
    address = engine._ray.get_runtime_context().gcs_address
    words = [word for name, path in sets.items() for word in (f"--{name}", str(path))]
    words += ["--metrics", "fd,kid,prdc,duplicates", "--quiet", "--online"]
    assert main(["audit", *words, "--out", str(tmp_path / "a"), "--cache", str(tmp_path / "ca")]) in (0, 1, 3)
    more = ["--engine", "ray", "--ray-address", address, "--out", str(tmp_path / "b"), "--cache", str(tmp_path / "cb")]
    for token, expected in ((_TOKEN, (0, 1, 3)), ("f" * 64, (2,))):
        environment = {**os.environ, "RAY_AUTH_TOKEN": token, "RAY_AUTH_MODE": "token"}
        run = subprocess.run(
            [sys.executable, "-m", "medtrust", "audit", *words, *more],
            env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert run.returncode in expected, run.stderr
    assert "another token" in run.stderr
    assert (tmp_path / "b/report.json").read_bytes() == (tmp_path / "a/report.json").read_bytes()
    assert "headers without patients" in (tmp_path / "b/run.json").read_text() or address.startswith("127.")
    assert len(ask(engine, made_set(20)).digests) == 20


INTERRUPTED = """
import sys, time
sys.path.insert(0, sys.argv[1])
import scale_sets as t
from medtrust.progress import QuietProgress
from medtrust.scaling import make_engine
from medtrust.spaces import Opening
class Says(QuietProgress):
    def advance(self, n=1):
        print("advanced", flush=True)
with make_engine("ray", workers=2) as machine:
    machine.survey(t.made_set(200_000), {"c": t.Corners()}, {"c": Opening("scale_sets:Corners", {"device": "cpu"})},
                   t.LEVELS, None, batch_size=16, progress=Says())
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "group"), [(signal.SIGINT, True), (signal.SIGINT, False), (signal.SIGKILL, False)])
def test_an_interruption_leaves_no_process(number: int, group: bool) -> None:
    """Ctrl-C (which reaches every process of the terminal), an interruption of the one process, and its death."""
    before = processes()
    words = [sys.executable, "-c", INTERRUPTED, str(Path(__file__).parent.parent)]
    run = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert run.stdout is not None
    assert "advanced" in run.stdout.readline()
    assert processes() - before
    (os.killpg if group else os.kill)(run.pid, number)
    _, err = run.communicate(timeout=60)
    assert run.returncode != 0
    assert number == signal.SIGKILL or "KeyboardInterrupt" in err
    assert gone(before)  # after SIGKILL, Ray's own agents look for their node once a minute
