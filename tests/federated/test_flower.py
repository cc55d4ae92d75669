"""Flower itself: a SuperLink, a ServerApp and three sites, each a process of its own on loopback."""

from __future__ import annotations

import json
import math
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="the transport over Flower needs the extra medtrust[flower]")

from flower_files import free_port, start, write_federation
from needles import found, needles, stored

from medtrust.federated import Statement, merge
from medtrust.flower.serving import collect, told

SITE = str(Path(__file__).parent / "flower_site.py")
SERVE = """
import json, sys
from pathlib import Path
from medtrust.flower.serving import Tls, serve
options = json.loads(sys.argv[3])
tls = Tls(*map(Path, options.pop("tls"))) if options.get("tls") else options.pop("tls", None)
options["node_keys"] = [Path(p) for p in options["node_keys"]]
serve(Path(sys.argv[1]), Path(sys.argv[2]), host="127.0.0.1", tls=tls, **options)
"""


class Run:
    """Processes of one run; whatever happens, none is left behind."""

    def __init__(self, folder: Path, release: str, n: int = 3) -> None:
        self.folder, self.study, self.port = folder, write_federation(folder, n, release=release), free_port()
        self.names = sorted(self.study.keys)
        self.started: list[subprocess.Popen[bytes]] = []
        self.ca = ""

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.started:
            if process.poll() is None:
                process.terminate()
        for process in self.started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def serve(self, **options: object) -> subprocess.Popen[bytes]:
        given = {"port": self.port, "tls": None, "node_keys": [], "wait": 120, "patience": 60, "resend": 3.0, **options}
        words = ("-c", SERVE, str(self.folder / "study.medtrust"), str(self.folder / "coordinator"), json.dumps(given))
        self.started.append(start(self.folder / "serve.log", *words, FLWR_LOG_LEVEL="DEBUG"))
        return self.started[-1]

    def join(self, name: str, fault: str = "none", stage: str = "") -> subprocess.Popen[bytes]:
        words = (SITE, str(self.folder / name), f"127.0.0.1:{self.port}", fault, stage, self.ca)
        self.started.append(start(self.folder / name / "join.log", *words))
        return self.started[-1]

    def statement(self, name: str) -> Statement:
        return Statement.from_bytes((self.folder / name / "site.statement").read_bytes(), self.study)

    def said(self, name: str) -> str:
        return (self.folder / name).read_text(errors="replace")

    def result(self) -> dict:
        return json.loads(self.said("coordinator/transport.json"))


def _with_faults(run: Run, stage: str) -> None:
    """One site is killed with its answer unsent and started again, one sends rubbish, one forges a signature."""
    server = run.serve()
    killed = run.join(run.names[0], "kill", stage)
    others = [run.join(run.names[1], "malformed", stage), run.join(run.names[2], "forged", stage)]
    assert killed.wait(150) == -signal.SIGKILL, run.said("serve.log")
    others.append(run.join(run.names[0]))
    assert server.wait(150) == 0, run.said("serve.log")
    assert [process.wait(30) for process in others] == [0, 0, 0]
    log, sites = run.said("coordinator/coordinator.log"), run.result()["sites"]
    assert f"{run.names[0]} came back as node" in log
    assert f"{stage}: refused {run.names[1]}: " in log
    assert f"{stage}: refused {run.names[2]}: " in log
    assert sites[run.names[0]]["returned"] >= 1
    assert len(sites[run.names[1]]["refused"]) == len(sites[run.names[2]]["refused"]) == 1
    assert run.result()["took_part"] == run.names
    report = merge(run.study, collect(run.folder / "coordinator", run.study), transport=told(run.result()))
    said = report.run["federated"]["transport"]
    assert said["kind"] == "flower"
    assert sorted(said["refused"]) == run.names[1:]
    assert report.run["federated"]["absent"] == []


def test_a_secure_sum_over_flower_with_every_mishap(tmp_path):
    """Killed and restarted, malformed, wrongly signed: the sum is exact all the same, and no part of it is anywhere."""
    with Run(tmp_path, "sums") as run:
        _with_faults(run, "masked")
        vectors = [run.statement(name).summable()[1] for name in run.names]
        pool = collect(tmp_path / "coordinator", run.study)
        from medtrust.federated.packing import unpack

        vector = unpack((tmp_path / "coordinator/sum.medtrust").read_bytes(), "the sum")[1]["sum"]
        assert np.array_equal(vector, [math.fsum(column) for column in zip(*vectors, strict=True)])
        assert pool.sites == tuple(run.names)
        kept = stored(tmp_path / "coordinator")
        assert {"flower/state.db", "flower/superlink.log", "coordinator.log"} <= set(kept)
        assert b"DEBUG" in kept["flower/superlink.log"]
        kept["serve.log"] = (tmp_path / "serve.log").read_bytes()
        for name in run.names:
            assert len(needles(run.statement(name))) > 50
            assert found(run.statement(name), kept) == {}
        # the same search does find the sum, which is what the coordinator is to learn
        assert np.float64(vector[np.argmax(np.abs(vector) % 1 > 0.1)]).tobytes() in kept["sum.medtrust"]


@pytest.mark.slow
def test_statements_over_flower_with_every_mishap(tmp_path):
    """The same with signed statements; here the search does find every site's numbers: the coordinator sees them."""
    with Run(tmp_path, "statements") as run:
        _with_faults(run, "statement")
        kept = stored(tmp_path / "coordinator")
        for name in run.names:
            wanted = needles(run.statement(name))
            assert max(found(run.statement(name), kept).values()) == len(wanted)
            raw = (tmp_path / name / "site.statement").read_bytes()
            assert kept[f"statements/{name}.statement"] == raw
