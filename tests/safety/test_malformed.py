"""Every malformed input gives one line, the promised exit code, and no output; nothing of it is executed."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from audit_sets import write_sets
from malformed import CASES

from medtrust.cli import main

MEMORY = 1024**3  # what a refused input may cost at the most, in bytes beyond what was in use


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_sets(tmp_path_factory.mktemp("sets"), seed=2, patients=4, synthetic=6)


def test_the_corpus_is_large_enough():
    """At least sixty inputs, of both kinds of refusal."""
    assert len(CASES) >= 60
    assert {code for code, _ in CASES.values()} == {2, 4}


@pytest.mark.parametrize("name", sorted(CASES))
@pytest.mark.filterwarnings("ignore")  # what libraries warn of in damaged files is not our subject
def test_malformed_input_is_refused(name, sets, tmp_path, capsys, monkeypatch):
    """One sentence without control characters, the promised code, no file left behind."""
    code, make = CASES[name]
    bad, out = tmp_path / "bad", tmp_path / "out"
    bad.mkdir()
    make(bad)
    monkeypatch.chdir(tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    words = [word for key, path in {**sets, "synthetic": bad}.items() for word in (f"--{key}", str(path))]
    found = main(["audit", *words, "--out", str(out), "--metrics", "duplicates", "--quiet"])
    said = capsys.readouterr().err
    assert found == code, said
    lines = said.strip().splitlines()
    assert len(lines) == 1, said
    assert lines[0].startswith("medtrust: ")
    assert lines[0].isprintable()
    assert len(lines[0]) < 1500
    assert not [p for p in out.rglob("*") if p.is_file()]
    assert not (tmp_path / "executed").exists()
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < MEMORY
