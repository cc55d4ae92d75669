"""Installs the distributions of tests/data/dists for one test at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from medtrust.host import Host, build_host

DISTS = Path(__file__).parents[1] / "data" / "dists"


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """Put cases on sys.path as pip would; returns the names of their distributions."""
    before = set(sys.modules)

    def put(*cases: str) -> list[str]:
        names = []
        for case in cases:
            monkeypatch.syspath_prepend(str(DISTS / case))
            (info,) = (DISTS / case).glob("*.dist-info")
            names.append(info.stem.partition("-")[0].replace("_", "-"))
        return names

    yield put
    for name, module in list(sys.modules.items()):
        if name not in before and str(DISTS) in str(getattr(module, "__file__", None)):
            del sys.modules[name]


@pytest.fixture
def hosted(install: Callable[..., list[str]]) -> Callable[..., Host]:
    """Build a host that discovers the given cases, and no other installed plugin."""

    def build(*cases: str, **options: bool) -> Host:
        return build_host(allow=install(*cases), **options)

    return build


@pytest.fixture
def dists() -> Path:
    """Where the cases are."""
    return DISTS


@pytest.fixture
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python code in a process of its own, in which the given cases are installed."""

    def run(code: str, *cases: str, **variables: str) -> subprocess.CompletedProcess[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MEDTRUST_")}
        path = {"PYTHONPATH": os.pathsep.join(str(DISTS / case) for case in cases), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env={**kept, **path, **variables}, capture_output=True, text=True, check=True)

    return run
