"""Every test runs with its own cache and a fixed pseudonym key, so that none touches the user's files."""

from __future__ import annotations

import os

import pytest

# set before numpy and torch start their thread pools: the suite runs two processes on two cores
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _own_places(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("MEDTRUST_") and name not in {"MEDTRUST_CPU", "MEDTRUST_DATA"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
    monkeypatch.setenv("MEDTRUST_PSEUDONYM_KEY", "the key of the tests, 24+ long")
