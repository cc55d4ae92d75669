"""What stands between an artefact and the person who names it: permission, and a fingerprint in the report."""

from __future__ import annotations

import hashlib
from importlib.metadata import EntryPoint

import pytest

from medtrust.cli import main
from medtrust.errors import ConfigError, SafetyError
from medtrust.fingerprint import fingerprint
from medtrust.host import build_host
from medtrust.sources import describe_generator, open_generator, parse_source

PLUGIN = """
from medtrust import Generator, GeneratorSpec, ImageSpec, hookimpl

@hookimpl
def medtrust_generators():
    here = dict(version="1", factory="careful_plugin:Factory")
    yield GeneratorSpec(name="numbers", **here)
    yield GeneratorSpec(name="program", trust="code", target="text", **here)
    yield GeneratorSpec(name="service", network=True, target="text", **here)
    yield GeneratorSpec(name="absent", requires=("no_such_package",), extra="none", **here)

class Factory(Generator):
    spec = ImageSpec((1, 2, 2), "uint8", (0, 255), "level")

    def sample(self, n, *, seed, condition=None, first=0, **opts):
        raise NotImplementedError

    def open(self, target, options, device):
        generator = Factory()
        generator.target, generator.artifact = target, {"version": "7"}
        return generator
"""


@pytest.fixture
def host(tmp_path, monkeypatch):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "careful_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path / "plugins"))
    return build_host(entry_points=[EntryPoint("careful", "careful_plugin", "medtrust")])


def source(text):
    return parse_source(text, lambda kind: True)


def test_code_needs_permission(host):
    """A generator that runs what came with its artefact opens only when that was allowed."""
    with pytest.raises(SafetyError, match="--allow-code"):
        open_generator(source("program:a.b:make"), host, "cpu")
    assert open_generator(source("program:a.b:make"), host, "cpu", allow_code=True).target == "a.b:make"


def test_a_service_is_refused_offline(host):
    """--offline stops a generator that would open a socket; its address arrives as it was written."""
    with pytest.raises(ConfigError, match="--offline"):
        open_generator(source("service:http://127.0.0.1:1/v2"), host, "cpu", offline=True)
    assert open_generator(source("service:http://127.0.0.1:1/v2"), host, "cpu").target == "http://127.0.0.1:1/v2"


def test_a_missing_extra_is_named(host):
    """What is not installed is said in a sentence, not in an ImportError."""
    with pytest.raises(ConfigError, match="no_such_package"):
        open_generator(source("absent"), host, "cpu")


def test_the_report_names_the_artefact(host, tmp_path):
    """Format, SHA-256, size and trust tier, and what the generator adds."""
    model = tmp_path / "model.bin"
    model.write_bytes(b"weights")
    named = source(f"numbers:{model}")
    described = describe_generator(named, open_generator(named, host, "cpu"), host)
    digest = hashlib.sha256(b"weights").hexdigest()
    assert described["trust"] == "data"
    assert described["artifact"] == {"format": "numbers", "sha256": digest, "files": 1, "bytes": 7, "version": "7"}


def test_a_missing_artefact_is_named(host, tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.bin does not exist"):
        open_generator(source(f"numbers:{tmp_path / 'nothing.bin'}"), host, "cpu")


def test_a_folder_is_identified_by_names_and_content(tmp_path):
    """As `sha256sum` over its files prints them: renaming, adding or changing a file changes it, touching does not."""
    folder = tmp_path / "model"
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "two").write_bytes(b"2")
    (folder / "one").write_bytes(b"1")
    lines = f"{hashlib.sha256(b'2').hexdigest()}  b/two\n{hashlib.sha256(b'1').hexdigest()}  one\n"
    first = fingerprint(folder)
    assert first == {"sha256": hashlib.sha256(lines.encode()).hexdigest(), "files": 2, "bytes": 2}
    (folder / "one").touch()
    assert fingerprint(folder) == first
    (folder / "one").rename(folder / "three")
    assert fingerprint(folder)["sha256"] != first["sha256"]


def test_a_link_in_an_artefact_is_refused(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").symlink_to("/etc/hostname")
    with pytest.raises(SafetyError, match="is a link"):
        fingerprint(tmp_path / "model")


def test_the_command_line_says_so_too(tmp_path, capsys):
    """Whoever types `medtrust sample` for a trained checkpoint that is not there gets a sentence and exit code 2."""
    assert main(["sample", f"vae:{tmp_path / 'none'}", "--n", "1", "--out", str(tmp_path / "out"), "--offline"]) == 2
    assert "does not exist" in capsys.readouterr().err
