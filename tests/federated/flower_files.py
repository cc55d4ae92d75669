"""A federation as files and processes: what a coordinator and its sites have on their disks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from federated_sites import WHY, federation, key_of, study_of

from medtrust.federated import SigningKey, Study, site_statement

ROOT = Path(__file__).parent.parent.parent


def write_key(path: Path, key: SigningKey) -> Path:
    path.write_bytes(key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    return path


def write_federation(folder: Path, n: int, *, release: str, seed: int = 3) -> Study:
    """Study, and per site a folder with its key and statement; sites are called "site 0", "site 1" …"""
    rng = np.random.default_rng(seed)
    sites = federation(rng, [60 + 7 * k for k in range(n)], width=6, gap=0.3)
    synthetic = rng.normal(size=(90, 6)) + 0.1
    rules = {"patients": 50, "lowered": WHY}
    study = study_of(list(sites), synthetic, dim=6, release=release, folds=2, rules=rules)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.medtrust").write_bytes(study.to_bytes())
    for name, data in sites.items():
        home = folder / name
        home.mkdir(mode=0o700)
        write_key(home / "site.key", key_of(name))
        (home / "site.statement").write_bytes(site_statement(study, name, data, key_of(name)).to_bytes())
    return study


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(log: Path, *words: str, cwd: Path = ROOT, **environment: str) -> subprocess.Popen[bytes]:
    """Start a Python program of the tree; what it says goes to a file."""
    env = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", **environment}
    with log.open("ab") as stream:
        return subprocess.Popen(
            [sys.executable, *words], env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        )
