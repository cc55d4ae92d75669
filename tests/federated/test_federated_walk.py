"""The walk-through of docs/federated.md, command by command, and what the page says of the specs."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from audit_sets import random_patches, write_folder

from medtrust.cli import main
from medtrust.federated.reading import read_settings
from medtrust.federated.study import RESULTS
from medtrust.host import build_host

PAGE = (Path(__file__).parents[2] / "docs" / "federated.md").read_text()
COMMANDS = [line.removeprefix("$ medtrust ") for line in PAGE.splitlines() if line.startswith("$ medtrust ")]


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """Everything the page shows, on small random images in place of the demo's: codes by command, and the folder."""
    folder = tmp_path_factory.mktemp("walk")
    rng = np.random.default_rng(0)
    for name in ("train", "holdout"):
        write_folder(folder / "demo/sets" / name, random_patches(rng, 300), [f"{name}-{i}" for i in range(300)])
    write_folder(folder / "demo/sets/synthetic", random_patches(rng, 150))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        exec(compile(blocks("python")[0], "hospitals.py", "exec"), {})
        Path("study.toml").write_text(blocks("toml")[0])
        codes = {command: main(shlex.split(command)) for command in COMMANDS if command.startswith("federated")}
    return folder, codes


def test_every_command_of_the_page_runs(walked) -> None:
    folder, codes = walked
    assert len(codes) == 8
    merged = codes.popitem()[1]
    assert set(codes.values()) == {0}
    assert merged in (0, 1, 3)  # the verdict on random images
    report = json.loads((folder / "report/report.json").read_text())
    told = report["run"]["federated"]
    assert told["took_part"] == ["aachen", "basel", "cadiz"]
    assert all(about["patients"] == {"train": 100, "holdout": 100} for about in told["sites"].values())
    rows = {row["id"]: row for row in report["results"] if not row["subgroup"]}
    assert {row for row in rows if rows[row]["status"] == "ok"} == {
        "fidelity.fd[radiomics]", "fidelity.mmd[radiomics]", "fidelity.intensity", "privacy.cpm", "privacy.ct",
        "equity.site_difference[radiomics]",
    }  # fmt: skip
    page = (folder / "report/report.html").read_text()
    assert "What each site revealed" in page
    assert (folder / "aachen/aachen.key").stat().st_mode & 0o077 == 0


def test_nothing_private_leaves(walked) -> None:
    """Neither statements nor report hold a patient's or a file's name."""
    folder, _ = walked
    for path in (*folder.glob("*.statement"), *(folder / "report").iterdir()):
        content = path.read_bytes()
        assert b"train-1" not in content
        assert b"image-00" not in content


def test_bad_files_are_named(walked, capsys) -> None:
    """A statement that was cut off, one of a stranger, and a key that others can read."""
    folder, _ = walked
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("cut.statement").write_bytes(Path("aachen.statement").read_bytes()[:-5])
        assert main(["federated", "merge", "study.medtrust", "cut.statement"]) == 4
        assert "'aachen' was refused: its content was changed or cut off" in capsys.readouterr().err
        assert main(["federated", "merge", "study.medtrust", "study.toml"]) == 4
        assert "no signed statement" in capsys.readouterr().err
        Path("aachen/aachen.key").chmod(0o644)
        site = ["federated", "site", "study.medtrust", "--name", "aachen", "--key", "aachen/aachen.key"]
        assert main([*site, "--train", "aachen/train", "--holdout", "aachen/holdout"]) == 2
        assert "can be read by others" in capsys.readouterr().err
        assert main(["federated", "keygen", "aachen/aachen.key"]) == 2
        assert "exists" in capsys.readouterr().err


def test_a_metric_that_needs_all_rows_is_refused(walked, capsys) -> None:
    folder, _ = walked
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("kid.toml").write_text(blocks("toml")[0].replace('"mmd"', '"kid"'))
        assert main(["federated", "study", "kid.toml", "--synthetic", "demo/sets/synthetic"]) == 2
    assert "metric kid cannot be had from sums" in capsys.readouterr().err


def test_the_page_lists_what_specs_call_mergeable() -> None:
    """The table has one line per metric, and specs name exactly the results that studies know."""
    specs = {c.spec.name: c.spec.mergeable for c in build_host().contributions("metric") if c.spec.mergeable}
    assert sorted(result for pairs in specs.values() for result, _ in pairs) == sorted(RESULTS)
    for name, pairs in specs.items():
        assert re.search(rf"^\| `{name}` \| `{pairs[0][0]}", PAGE, re.MULTILINE), name


def test_the_settings_of_the_page_are_read(tmp_path) -> None:
    """Every fragment that the page shows belongs into a study."""
    base = blocks("toml")[0]
    for at, part in enumerate(blocks("toml")[1:]):
        place = tmp_path / f"{at}.toml"
        place.write_text(base + part)
        read_settings(place)
