"""The tutorial is run as it stands, on invented patches and with fewer training steps."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
from audit_sets import random_patches, write_folder

from medtrust.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"


def test_the_tutorial_runs_from_images_to_gate(tmp_path, monkeypatch, capsys) -> None:
    """Each command is run in the page's order: the honest samples are not accused, the planted ones are."""
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text()
    for name, code in re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", text, re.DOTALL):
        Path(name).write_text(code)
    rng = np.random.default_rng(31)
    write_folder(tmp_path / "images", random_patches(rng, 2000, size=16), [f"P{i // 2:03d}" for i in range(2000)])
    said, codes = {}, {}
    for line in re.findall(r"^\$ (.*)$", text, re.MULTILINE):
        if line.startswith("cp -r"):
            continue  # the public patches; here are others
        if line == "python plant.py":
            exec(compile(Path("plant.py").read_text(), "plant.py", "exec"), {})
            continue
        words = shlex.split(line)[1:]
        if words[0] == "train":
            words += ["--option", "steps=2"]
        if words[0] == "sample":
            words[words.index("--n") + 1] = "300"
        if words[0] == "audit":
            words += ["--quiet", "--metrics", "cpm,prdc,duplicates", "--cache", str(tmp_path / "cache")]
        codes[line] = main(words)
        said[words[0]] = capsys.readouterr().out
    reports = {name: json.loads(Path(name, "report.json").read_text()) for name in ("report", "planted")}
    copying = {name: next(g for g in r["gates"] if g["id"] == "copying") for name, r in reports.items()}
    assert (copying["report"]["finding"], copying["planted"]["verdict"]) == ("PASS", "FAIL")
    assert set(codes.values()) <= {0, 1, 3}
    assert [code for line, code in codes.items() if "--out planted" in line] == [1]
    assert "images/train.csv: 1000 images of 500 patients" in said["data"]
    assert "1. copying: PASS" in said["gate"]
    assert (tmp_path / "compare.html").exists()
