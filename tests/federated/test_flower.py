"""Flower itself: a SuperLink, a ServerApp and three sites, each a process of its own on loopback."""

from __future__ import annotations

import json
import math
import re
import shlex
import signal
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="the transport over Flower needs the extra medtrust[flower]")

import httpx
from federated_sites import key_of
from flower_files import ROOT, free_port, start, write_federation
from needles import found, needles, stored

from medtrust.federated import Statement, merge
from medtrust.flower.certificate import make_certificate
from medtrust.flower.joining import node_public
from medtrust.flower.serving import collect, environment, told

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
        self.watched = {"PYTHONPATH": str(Path(__file__).parent / "watching"), "WATCHED": str(folder / "watched")}

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
        self.started.append(start(self.folder / "serve.log", *words, FLWR_LOG_LEVEL="DEBUG", **self.watched))
        return self.started[-1]

    def join(self, name: str, fault: str = "none", stage: str = "") -> subprocess.Popen[bytes]:
        words = (SITE, str(self.folder / name), f"127.0.0.1:{self.port}", fault, stage, self.ca)
        self.started.append(start(self.folder / name / "join.log", *words, **self.watched))
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


def _stayed_at_home(watched: str) -> None:
    """No process talked to another machine, looked one up, or installed anything."""
    lines = watched.splitlines()
    connected = [line for line in lines if line.startswith("connect")]
    assert len(connected) > 10
    assert [line for line in connected if "127.0.0.1" not in line and "'::1'" not in line] == []
    resolved = {line.split(maxsplit=1)[1] for line in lines if line.startswith("resolve")}
    assert resolved <= {"127.0.0.1", "b'127.0.0.1'", "localhost", "::1", "None"}
    started = [line for line in lines if line.startswith("start")]
    assert any("flwr-serverapp" in line for line in started)
    assert [line for line in started if " uv" in line or "pip" in line] == []


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
        _stayed_at_home((tmp_path / "watched").read_text())
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


@pytest.mark.slow
def test_over_tls_registered_nodes_alone_and_the_fleet_api_alone(tmp_path):
    """Certificates, node keys, a stranger without one, and the side doors of the SuperLink from another address."""
    with Run(tmp_path, "sums") as run:
        tls = make_certificate(["coordinator.example"], tmp_path / "tls")
        run.ca = str(tls.ca)
        keys = []
        for name in run.names:
            keys.append(tmp_path / f"{name}.node.pub")
            keys[-1].write_text(node_public(key_of(name)))
        server = run.serve(
            tls=[str(path) for path in (tls.ca, tls.certificate, tls.key)],
            node_keys=[str(path) for path in keys],
        )
        sites = [run.join(name) for name in run.names[:2]]
        _until(lambda: "joined as node" in run.said("serve.log"), 150)
        stranger = run.join(run.names[2], "unregistered")
        assert stranger.wait(90) == 1
        assert "turns this node away" in run.said(f"{run.names[2]}/join.log")
        context = ssl.create_default_context(cafile=run.ca)
        here, there = (
            httpx.Client(
                verify=context, base_url=f"https://127.0.0.1:{run.port}", transport=_from(address, context), timeout=30
            )
            for address in ("127.0.0.1", "127.0.0.2")
        )
        for path in ("/v1/control/start-run", "/v1/runtime/get-nodes", "/docs", "/health"):
            answer = there.post(path)
            assert (answer.status_code, answer.text) == (403, "sites reach the Fleet API alone\n")
            assert here.post(path).status_code != 403
        assert there.post("/v1/fleet/pull-messages").status_code not in (403, 404, 405)
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{run.port}/health", timeout=5)
        sites.append(run.join(run.names[2]))
        assert server.wait(150) == 0, run.said("serve.log")
        assert [process.wait(30) for process in sites] == [0, 0, 0]
        assert run.result()["took_part"] == run.names


@pytest.mark.slow
def test_flowers_own_supernode_takes_part(tmp_path):
    """A site that trusts its coordinator's apps can use `flower-supernode`; it finds the same ClientApp."""
    with Run(tmp_path, "statements") as run:
        server = run.serve()
        others = [run.join(name) for name in run.names[:2]]
        home = tmp_path / run.names[2]
        named = {
            "study": tmp_path / "study.medtrust",
            "statement": home / "site.statement",
            "key": home / "site.key",
            "folder": home / "state",
        }
        config = " ".join(f"{name}='{path}'" for name, path in named.items())
        code = "import sys; from flwr.supernode.cli import flower_supernode; sys.argv[0] = 'x'; flower_supernode()"
        options = ["--insecure", "--superlink", f"127.0.0.1:{run.port}", "--port", str(free_port())]
        env = environment(tmp_path / "flwr")
        run.started.append(start(tmp_path / "node.log", "-c", code, *options, "--node-config", config, **env))
        assert server.wait(200) == 0, run.said("serve.log") + run.said("node.log")
        assert [process.wait(30) for process in others] == [0, 0]
        assert run.result()["took_part"] == run.names


def _from(address: str, context: ssl.SSLContext) -> httpx.HTTPTransport:
    return httpx.HTTPTransport(local_address=address, verify=context)


def _until(true: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.3)


@pytest.mark.slow
def test_the_walk_through_of_the_page(tmp_path):
    """The commands of docs/flower.md, each in a process of its own, in the order of the page."""
    text = (ROOT / "docs/flower.md").read_text().split("## Walk-through")[1].split("\n## ")[0]
    commands = [shlex.split(line) for line in re.findall(r"^\$ medtrust (.*)$", text, re.MULTILINE)]
    assert [words[1] for words in commands] == ["certificate", "serve", "join", "join", "join"]
    write_federation(tmp_path, 3, release="sums")
    for name, letter in zip(("site 0", "site 1", "site 2"), "abc", strict=True):
        (tmp_path / name).rename(tmp_path / letter)
    port = str(free_port())
    with Run(tmp_path / "unused", "sums") as run:
        codes = []
        for words in commands:
            here = [word.replace("9092", port) for word in words]
            run.started.append(start(tmp_path / f"{words[1]}.log", "-m", "medtrust", *here, cwd=tmp_path))
            if words[1] == "certificate":
                codes.append(run.started[-1].wait(60))
        codes += [process.wait(200) for process in run.started[2:]]
        verdict = run.started[1].wait(60)
        assert codes == [0, 0, 0, 0], (tmp_path / "join.log").read_text() + (tmp_path / "serve.log").read_text()
        assert verdict in (0, 1, 3), (tmp_path / "serve.log").read_text()
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert report["run"]["federated"]["took_part"] == ["site 0", "site 1", "site 2"]
    assert report["run"]["federated"]["transport"] == {"kind": "flower", "refused": {}, "strangers": []}
    assert (tmp_path / "report/report.html").stat().st_size > 10_000
    for name in ("sum.medtrust", "coordinator.log", "transport.json", "transcript", "flower"):
        assert (tmp_path / "coordinator" / name).exists()
        assert f"`{name}" in (ROOT / "docs/flower.md").read_text()
