"""What the documentation shows is run: code, commands, links."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from audit_sets import write_sets

import medtrust
from medtrust.cli import cli, main
from medtrust.config import load_config
from medtrust.images import write_set
from medtrust.types import Intensity

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


@pytest.fixture
def reader_folder(tmp_path, monkeypatch):
    """The folders that the README speaks of."""
    sets = write_sets(tmp_path / "real", seed=2, patients=30, synthetic=40)
    sets["synthetic"].rename(tmp_path / "generated")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readme_code_runs(reader_folder):
    """The Python example gives a verdict and a p-value."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    report = names["report"]
    assert report.verdict in {"PASS", "WARN", "FAIL", "INCONCLUSIVE"}
    assert 0 <= report["privacy.cpm"].test.p <= 1


def test_the_readme_command_runs(reader_folder):
    """The command line of the README writes the files that it names."""
    text = (ROOT / "README.md").read_text()
    (command,) = re.findall(r"^\$ medtrust (audit .*)$", text, re.MULTILINE)
    assert main([*shlex.split(command), "--quiet"]) in (0, 1, 3)
    for name in ("report.json", "report.html", "run.json"):
        assert f"`{name}`" in text
        assert (reader_folder / "report" / name).exists()


def test_the_generator_of_ten_lines_is_audited(tmp_path, monkeypatch):
    """The page's own generator has ten lines, installs, and goes through an audit that finds its declarations kept."""
    # a name of its own: the plugin guide's test imports another `my_package` in the same process
    text = (ROOT / "docs" / "generators.md").read_text().replace("my_package", "ten_lines")
    files = dict(re.findall(r"```\w+\n# (\S+\.\w+)[^\n]*\n(.*?)```", text, re.DOTALL))
    lines = files["ten_lines/noise.py"].split("class Noise")[1].splitlines()
    assert len([line for line in lines if line.strip()]) <= 10
    site = tmp_path / "site"
    facts = site / "ten_lines-1.dist-info"
    for name in ("ten_lines/noise.py", "ten_lines/plugin.py"):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(files[name])
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: ten_lines\nVersion: 1\n")
    (facts / "entry_points.txt").write_text("[medtrust]\nten_lines = ten_lines.plugin\n")
    monkeypatch.syspath_prepend(str(site))
    noise = np.random.default_rng(0).integers(0, 256, (60, 1, 32, 32), dtype=np.uint8)
    write_set(tmp_path / "real", ((f"r{i}", image) for i, image in enumerate(noise)), Intensity(0, 255, "level"))
    report = medtrust.audit(train=tmp_path / "real", synthetic="noise", metrics="fd", out=tmp_path / "out")
    assert report["fidelity.declared"].estimate.value == 0
    assert report.subject["name"] == "noise"
    assert json.loads((tmp_path / "out" / "run.json").read_text())["generator"]["images"] == 60


def test_the_sampling_loop_of_the_page_runs():
    """The example with a network of one's own gives images."""
    text = (ROOT / "docs" / "generators.md").read_text()
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "sampling_loop" in block]
    names: dict[str, object] = {}
    exec(compile(code, "generators.md", "exec"), names)
    assert names["images"].shape == (4, 1, 32, 32)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    """Every relative link of a page names a file of the repository."""
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_and_options_exist(page):
    """Every `medtrust …` command of a page exists, and so does each of its options."""
    for line in re.findall(r"(?:^\$ |`)medtrust ([a-z][^`\n]*)", page.read_text(), re.MULTILINE):
        words = shlex.split(line.replace("…", "X").split(" #")[0])
        command = cli
        while words and hasattr(command, "commands"):
            if words[0].startswith("-") or not re.fullmatch(r"[a-z]+(\|[a-z]+)*", words[0]):
                break
            for name in words[0].split("|"):
                assert name in command.commands, f"{page.name}: medtrust {line}"
            command = command.commands[words.pop(0).split("|")[0]]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for word in words:
            if word.startswith("--"):
                assert word.split("=")[0] in known | {"--help"}, f"{page.name}: medtrust {line}"


def test_every_defence_names_a_test_that_exists():
    """The threat model names its proofs; a renamed or deleted one shows here."""
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "security.md").read_text()))
    written = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 20
    assert not [name for name in named if f"def {name}(" not in written]


def test_the_settings_of_scale_md_are_known(tmp_path):
    """The page's medtrust.toml is read as it stands."""
    (text,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "scale.md").read_text(), re.DOTALL)
    (tmp_path / "medtrust.toml").write_text(text)
    settings = load_config({}, file=tmp_path / "medtrust.toml")
    assert settings.get("engine") == "ray"
    assert settings.get("ray_address").endswith(":6379")


@pytest.mark.slow
def test_the_code_of_scale_md_runs(reader_folder):
    """The Python example audits on a cluster of its own, and run.json holds the proof that the page shows."""
    pytest.importorskip("ray", reason="the engine ray needs Ray: pip install 'medtrust[ray]'")
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "scale.md").read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, "scale.md", "exec"), names)
    assert names["report"]["fidelity.fd[radiomics]"].status == "ok"
    counted = json.loads((reader_folder / "report" / "run.json").read_text())["engine"]["counted"]
    assert counted["train"]["images"] == 60
    assert set(counted["train"]) == {"images", "shards", "content_sha256"}
