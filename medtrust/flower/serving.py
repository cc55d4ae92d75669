"""The coordinator's processes: a guarded SuperLink, the run of the Flower App, and the report at the end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtrust.errors import ConfigError, Insufficient, MedtrustError
from medtrust.writing import ensure_folder, write_atomically

if TYPE_CHECKING:
    from medtrust.federated import Pool, Statement, Study

__all__ = ["Tls", "collect", "environment", "pool_of", "quiet", "serve", "told"]

_LOOK = 20.0
_MOST_REASONS = 5
_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
_APP = """[project]
name = "medtrust-federated"
version = "1.0.0"
description = "medtrust's federated evaluation; its code is the installed package medtrust"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "medtrust"

[tool.flwr.app.components]
serverapp = "medtrust.flower.apps:server"
clientapp = "medtrust.flower.apps:client"

[tool.flwr.app.config]
folder = ""
"""


@dataclass(frozen=True)
class Tls:
    """Certificate files of the coordinator.

    Args:
        ca: Certificate that signed it; the sites get a copy.
        certificate: Its certificate, for its name and for 127.0.0.1.
        key: Its private key.
    """

    ca: Path
    certificate: Path
    key: Path


def environment(home: Path) -> dict[str, str]:
    """Environment in which Flower's programs run: no telemetry, no look for updates, nothing installed at run time.

    Args:
        home: Flower's own folder of settings, instead of the user's.

    Raises:
        ConfigError: Flower is not installed.
    """
    try:
        flower = distribution("flwr")
    except PackageNotFoundError as error:
        raise ConfigError("Flower is not installed: pip install 'medtrust[flower]'") from error
    scripts = next(Path(str(flower.locate_file(f))).resolve().parent for f in flower.files or () if f.name == "flwr")
    ours = str(Path(__file__).resolve().parents[2])
    return {
        **os.environ,
        **_QUIET,
        "FLWR_HOME": str(home),
        # the SuperLink finds its helpers by name, and they must find this very medtrust
        "PATH": os.pathsep.join([str(scripts), os.environ.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join(filter(None, [ours, os.environ.get("PYTHONPATH", "")])),
        "PYTHONUNBUFFERED": "1",
    }


def quiet() -> None:
    """Keep Flower in this process from talking to anybody but the coordinator; call it before Flower is imported."""
    os.environ.update(_QUIET)


def serve(
    study: Path,
    folder: Path,
    *,
    host: str,
    port: int,
    tls: Tls | None,
    node_keys: list[Path],
    wait: float,
    patience: float,
    resend: float = 5.0,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Wait for the sites, collect what the study wants, and stop.

    Args:
        study: The study's file.
        folder: The coordinator's folder; a second run in it goes on with what came before.
        host: Address to listen on.
        port: Port to listen on; the only one.
        tls: Certificates; None serves this machine alone.
        node_keys: Public node keys (OpenSSH); where there are any, no other node is admitted.
        wait: Seconds to wait for the sites.
        patience: Seconds to wait for a site in each later stage of a secure sum.
        resend: Seconds after which an unanswered question is asked again.
        say: Where the log goes.

    Returns:
        What `transport.json` holds.

    Raises:
        ConfigError: Options that do not go together, or a port in use.
        Insufficient: Too few sites came; what came is kept in the folder.
        MedtrustError: One of Flower's processes stopped.
    """
    if tls is None and host not in ("127.0.0.1", "::1", "localhost"):
        raise ConfigError(f"{host} is reached by other machines: name a certificate (--tls-cert, --tls-key, --tls-ca)")
    if node_keys and tls is None:
        raise ConfigError("node keys are checked over TLS alone: name a certificate (--tls-cert, --tls-key, --tls-ca)")
    _prepare(study, ensure_folder(folder), port, tls, wait, patience, resend)
    log, seen = folder / "coordinator.log", 0
    log.touch()
    seen = log.stat().st_size
    with _superlink(folder, host, port, tls, bool(node_keys)) as (process, env):
        _flwr(env, folder, *(("supernode", "register", str(key.resolve()), "coordinator") for key in node_keys))
        say(f"waiting for the sites at {host}:{port}, at most {wait:.0f} s")
        override = f"folder={json.dumps(str(folder.resolve()))}"
        started = json.loads(
            _flwr(env, folder, ("run", "flower/app", "coordinator", "--run-config", override, "--format", "json"))
        )
        looked = time.monotonic()
        while not (folder / "transport.json").exists():
            seen = _follow(log, seen, say)
            if process.poll() is not None:
                raise MedtrustError(f"the SuperLink stopped: read {folder / 'flower/superlink.log'}")
            if time.monotonic() - looked > _LOOK:
                _still_running(env, folder, started["run-id"])
                looked = time.monotonic()
            time.sleep(0.2)
        _follow(log, seen, say)
        result: dict[str, Any] = json.loads((folder / "transport.json").read_bytes())
    if result["problem"]:
        raise Insufficient(f"{result['problem']}. What came is kept in {folder}")
    return result


def collect(folder: Path, study: Study) -> list[Statement] | Pool:
    """What a finished run left in the folder, ready for `medtrust.federated.merge`.

    Args:
        folder: The coordinator's folder.
        study: The study.
    """
    from medtrust.federated import Statement

    if study.secure_sums:
        return pool_of(folder / "sum.medtrust", study)
    return [
        Statement.from_bytes(path.read_bytes(), study) for path in sorted((folder / "statements").glob("*.statement"))
    ]


def told(result: Mapping[str, Any]) -> dict[str, Any]:
    """What the report says of the way: who was refused and why; nothing that differs between equal runs.

    Args:
        result: What `serve` returned.
    """
    refused = {site: _brief(log["refused"]) for site, log in result["sites"].items() if log["refused"]}
    strangers = _brief([reason for reasons in result["strangers"].values() for reason in reasons])
    return {"kind": result["transport"], "refused": refused, "strangers": strangers}


def _brief(reasons: list[str]) -> list[str]:
    """A few short sentences: what was refused may have been written to fill a page, or to number the nodes."""
    plain = {re.sub(r"\bnode \d+", "a node", "".join(c for c in r if c.isprintable()))[:200] for r in reasons}
    return sorted(plain)[:_MOST_REASONS]


def pool_of(path: Path, study: Study) -> Pool:
    """Read a secure sum.

    Args:
        path: `sum.medtrust`.
        study: The study.

    Raises:
        DataError: The file is damaged, or of another study.
    """
    from medtrust.errors import DataError
    from medtrust.federated import from_sum
    from medtrust.federated.packing import unpack

    header, arrays = unpack(path.read_bytes(), str(path))
    if header.get("study") != study.digest:
        raise DataError(f"{path} is the sum of another study: name the folder of this one")
    layout = tuple((str(name), tuple(int(n) for n in shape)) for name, shape in header["layout"])
    return from_sum(study, layout, arrays["sum"], header["sites"])


def _prepare(
    study: Path, folder: Path, port: int, tls: Tls | None, wait: float, patience: float, resend: float
) -> None:
    try:
        content = study.read_bytes()
    except OSError as error:
        raise ConfigError(f"the study {study} cannot be read ({error.strerror})") from error
    kept = folder / "study.medtrust"
    if kept.exists() and kept.read_bytes() != content:
        raise ConfigError(f"the folder {folder} belongs to another study: name another folder")
    for old in (folder / "transport.json", *(folder / "flower").glob("state.db*")):
        old.unlink(missing_ok=True)
    write_atomically(kept, content)
    settings = {"wait": wait, "patience": patience, "resend": resend}
    write_atomically(folder / "settings.json", json.dumps(settings).encode())
    write_atomically(folder / "flower/app/pyproject.toml", _APP.encode())
    trust = f"root-certificates = {json.dumps(str(tls.ca.resolve()))}\ninsecure = false" if tls else "insecure = true"
    write_atomically(
        folder / "flower/home/config.toml",
        (
            f'[superlink]\ndefault = "coordinator"\n[superlink.coordinator]\naddress = "127.0.0.1:{port}"\n{trust}\n'
        ).encode(),
    )


@contextmanager
def _superlink(
    folder: Path, host: str, port: int, tls: Tls | None, registered: bool
) -> Iterator[tuple[subprocess.Popen[bytes], Mapping[str, str]]]:
    env = environment((folder / "flower/home").resolve())
    options = ["--host", host, "--port", str(port), "--database", str((folder / "flower/state.db").resolve())]
    options += ["--isolation", "subprocess", "--disable-runtime-dependency-installation"]
    if tls:
        options += ["--ssl-ca-certfile", str(tls.ca), "--ssl-certfile", str(tls.certificate)]
        options += ["--ssl-keyfile", str(tls.key)]
    else:
        options += ["--insecure"]
    if registered:
        options += ["--enable-supernode-auth"]
    if _taken(port):
        raise ConfigError(f"port {port} is in use: stop what uses it, or choose another with --port")
    with (folder / "flower/superlink.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and words
            [sys.executable, "-m", "medtrust.flower.superlink", *options],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 120
        while not _taken(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise MedtrustError(f"the SuperLink did not start: read {folder / 'flower/superlink.log'}")
            time.sleep(0.1)
        yield process, env
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _taken(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _flwr(env: Mapping[str, str], folder: Path, *commands: tuple[str, ...]) -> str:
    """Run Flower's command line, once per command, in one process, and return what it prints."""
    if not commands:
        return ""
    each = "[app(words, standalone_mode=False) for words in json.loads(sys.argv[1])]"
    code = f"import json, sys; from flwr.cli.app import app; {each}"
    done = subprocess.run(  # noqa: S603 - our own interpreter and words
        [sys.executable, "-c", code, json.dumps(commands)],
        env=dict(env),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-500:]
        raise MedtrustError(f"`flwr {' '.join(commands[0])}` failed ({said}); see {folder / 'flower/superlink.log'}")
    return done.stdout


def _still_running(env: Mapping[str, str], folder: Path, run: str) -> None:
    listed = json.loads(_flwr(env, folder, ("list", "coordinator", "--run-id", run, "--format", "json")))["runs"]
    ended = [each for each in listed if str(each["status"]).startswith("finished")]
    if ended and not (folder / "transport.json").exists():
        raise MedtrustError(f"the ServerApp {ended[0]['status']} ({ended[0]['status-details']}); start the run again")


def _follow(log: Path, seen: int, say: Callable[[str], None]) -> int:
    with log.open("rb") as stream:
        stream.seek(seen)
        whole, _, _rest = stream.read().rpartition(b"\n")
    for line in whole.decode("utf-8", "replace").splitlines():
        say(line)
    return seen + len(whole) + bool(whole)
