"""The ground floor: seeds, pseudonyms, atomic writes, progress, errors."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from medtrust import errors
from medtrust.errors import ConfigError
from medtrust.progress import PlainProgress, QuietProgress
from medtrust.pseudonyms import KEY_VARIABLE, Pseudonyms
from medtrust.seeding import derive_seed
from medtrust.types import MetricSpec
from medtrust.writing import write_atomically


def test_seeds_differ_by_name_and_repeat():
    """Each named part has its own seed, the same in every process."""
    seeds = {derive_seed(0, "metric", name) for name in "abcdef"} | {derive_seed(1, "metric", "a")}
    assert len(seeds) == 7
    assert all(0 <= seed < 2**63 for seed in seeds)
    code = "from medtrust.seeding import derive_seed; print(derive_seed(3, 'x', 7))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(answer.stdout) == derive_seed(3, "x", 7)


def test_pseudonyms_depend_on_the_key():
    """The same name under another key is another pseudonym, and no part of the name shows."""
    a, b = Pseudonyms(b"a" * 32), Pseudonyms(b"b" * 32)
    assert a.of("SMITH^JOHN") == a.of("SMITH^JOHN") != b.of("SMITH^JOHN")
    assert len(a.of("x")) == 12
    assert "SMITH" not in a.of("SMITH^JOHN").upper()


def test_pseudonym_key_is_made_once_and_private(monkeypatch):
    """Without a key in the environment, one is made for the user, readable by nobody else."""
    monkeypatch.delenv(KEY_VARIABLE)
    first = Pseudonyms().of("x")
    assert Pseudonyms().of("x") == first
    path = Path(os.environ["XDG_CONFIG_HOME"]) / "medtrust" / "pseudonym.key"
    assert path.stat().st_mode & 0o077 == 0
    path.write_bytes(b"short")
    with pytest.raises(ConfigError, match="damaged"):
        Pseudonyms()


def test_short_pseudonym_key_is_refused(monkeypatch):
    """A key that could be guessed is refused."""
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    with pytest.raises(ConfigError, match="16"):
        Pseudonyms()


def test_atomic_write_replaces_whole_files(tmp_path):
    """A write that fails half-way leaves the old content and no litter."""
    path = tmp_path / "new" / "report.json"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]


def test_unwritable_folder_is_a_sentence(tmp_path):
    """A file where a folder should be gives an error that names it and the way out."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"file.*choose another"):
        write_atomically(tmp_path / "file" / "x.json", b"")


def test_plain_progress_speaks_in_lines():
    """Logs get one line per stage, with the count."""
    out = io.StringIO()
    progress = PlainProgress(out, every=0.0)
    with progress.stage("decoding", 3) as stage:
        for _ in range(3):
            stage.advance()
    lines = out.getvalue().splitlines()
    assert lines[-1].startswith("decoding: 3/3 in ")
    assert any("left" in line for line in lines)


def test_quiet_progress_is_silent(capsys):
    """The Python interface prints nothing."""
    progress = QuietProgress()
    with progress.stage("x", 1) as stage:
        stage.advance()
    progress.say("hidden")
    assert capsys.readouterr() == ("", "")


def test_exit_codes_are_the_promised_ones():
    """Each error class carries the exit code that the README promises."""
    codes = {name: getattr(errors, name).exit_code for name in errors.__all__}
    assert codes["ConfigError"] == codes["DataError"] == 2
    assert codes["SafetyError"] == 4
    assert codes["SelectionError"] == 5
    assert codes["PluginError"] == 70


def test_result_ids_follow_the_pillar():
    """A metric without declared results has the one id made of pillar and name."""
    spec = MetricSpec(name="fd", version="1", factory="a:b", pillar="fidelity")
    assert spec.result_ids == ("fidelity.fd",)


def test_importing_medtrust_imports_no_torch():
    """The package, its command line and its plugin list stay light."""
    code = (
        "import sys, medtrust, medtrust.cli, medtrust.host; medtrust.host.build_host().plugins(); "
        "print(sorted({'torch', 'numpy', 'PIL', 'scipy', 'rich', 'jinja2'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
