"""What the host says of a plugin, and how it finds a plugin's sources without importing them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from medtrust import MetricSpec, hookimpl
from medtrust.errors import ConfigError, PluginError
from medtrust.host import Host, build_host
from medtrust.host.locate import locate, missing, source_digest

Hosted = Callable[..., Host]
Install = Callable[..., list[str]]
Listing = Callable[..., tuple[dict, str]]


class Extra:
    """A plugin that is defined on the spot."""

    def __init__(self, *names: str) -> None:
        self.names, self.told = names, []

    @hookimpl
    def medtrust_metrics(self):
        return [MetricSpec(name=name, version="1", factory="json:dumps", pillar="privacy") for name in self.names]

    @hookimpl
    def medtrust_configure(self, config):
        self.told.append(config)


# ------------------------------------------------------------------------------------------- descriptions


def test_plugins_are_json_with_digest_and_failure(hosted: Hosted) -> None:
    """The list survives JSON, is sorted by name, and tells sound from broken."""
    listed = hosted("good", "import_error", "raises_in_hook").plugins()
    assert json.loads(json.dumps(listed)) == listed
    assert [(row["name"], row["status"]) for row in listed] == [
        ("broken_import", "broken"),
        ("good", "ok"),
        ("raises_in_hook", "partly broken"),
    ]
    assert listed[0]["failure"].startswith("import: broken_import.plugin: ModuleNotFoundError")
    assert listed[1]["failure"] is None
    assert [c["name"] for c in listed[1]["contributions"]] == ["mean", "brightness"]
    assert len({row["digest"] for row in listed} - {""}) == 3


def test_describe_tells_everything_that_is_declared(hosted: Hosted) -> None:
    """A plugin by entry point, distribution or both; a contribution by short or full name."""
    host = hosted("good", "raises_in_hook")
    by_plugin = host.describe("good")
    assert by_plugin == host.describe("good-plugin") == host.describe("good-plugin/good")
    assert by_plugin["contributions"][1]["factory"] == "good_plugin.brightness:Brightness"
    by_contribution = host.describe("brightness")
    assert by_contribution == host.describe("good-plugin/brightness")
    assert (by_contribution["kind"], by_contribution["pillar"]) == ("metric", "fidelity")
    assert json.loads(json.dumps(by_contribution)) == by_contribution
    broken = host.describe("raises_in_hook")
    assert broken["failures"][0]["stage"] == "hook"
    assert broken["failures"][0]["remedy"]


def test_describe_refuses_what_it_does_not_know(hosted: Hosted) -> None:
    """Unknown names get a suggestion, ambiguous ones the choices."""
    host = hosted("good", "same_short_name")
    with pytest.raises(ConfigError, match="did you mean 'good'"):
        host.describe("goood")
    with pytest.raises(PluginError, match=r"the metric good-plugin/brightness, the metric rival-plugin/brightness"):
        host.describe("brightness")


def test_bytes_of_a_format_are_described_in_hexadecimal() -> None:
    """The first bytes of a file format are JSON-ready too."""

    class Raw:
        @hookimpl
        def medtrust_formats(self):
            from medtrust import FormatSpec

            yield FormatSpec(name="raw", version="1", factory="a:B", suffixes=(".raw",), magic=((0, b"\xff\x00"),))

    host = build_host(allow=[])
    host.register(Raw(), "raw-plugin")
    assert host.describe("raw")["magic"] == [[0, "ff00"]]


# ------------------------------------------------------------------------------------------- locating


def test_the_digest_follows_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed, added or renamed source changes the digest; a compiled file and a place on disk do not."""
    for place in ("one", "two"):
        (tmp_path / place / "digested" / "part").mkdir(parents=True)
        (tmp_path / place / "digested" / "__init__.py").write_text("")
        (tmp_path / place / "digested" / "plugin.py").write_text("x = 1\n")
        (tmp_path / place / "digested" / "part" / "deep.py").write_text("y = 1\n")

    def digest(place: str) -> str:
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(tmp_path / place))
            return source_digest("digested.plugin")

    first = digest("one")
    assert len(first) == 64
    assert digest("two") == first
    (tmp_path / "two" / "digested" / "plugin.pyc").write_bytes(b"\0")
    assert digest("two") == first
    seen = {first}
    for change in (
        lambda root: (root / "part" / "deep.py").write_text("y = 2\n"),
        lambda root: (root / "part" / "new.py").write_text(""),
        lambda root: (root / "part" / "new.py").rename(root / "part" / "newer.py"),
    ):
        change(tmp_path / "two" / "digested")
        seen.add(digest("two"))
    assert len(seen) == 4
    assert "digested" not in sys.modules


def test_a_top_level_module_is_digested_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The neighbours of a single-file plugin in site-packages are not its sources."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "alone_here.py").write_text("x = 1\n")
    digest = source_digest("alone_here")
    assert len(digest) == 64
    (tmp_path / "neighbour.py").write_text("y = 1\n")
    assert source_digest("alone_here") == digest
    assert source_digest("nobody_has_this") == ""


def test_modules_are_located_without_importing_their_parents(install: Install) -> None:
    """A package that raises on import can still be looked up."""
    install("missing_extra")
    assert locate("missing_extra.parent.child") is not None
    assert locate("missing_extra.parent.other") is None
    assert missing(["json", "json.decoder", "json.nothing", "nobody_has_this", "sys.path"]) == (
        "json.nothing",
        "nobody_has_this",
        "sys.path",
    )
    assert "missing_extra" not in sys.modules
