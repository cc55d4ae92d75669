"""The command line as a user meets it: exit codes, one-line errors, nothing half-written."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from audit_sets import random_patches, write_folder, write_sets
from PIL import Image

from medtrust.cli import main


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_sets(tmp_path_factory.mktemp("sets"), seed=1)


def audit(sets: dict[str, Path], out: Path, *more: str) -> int:
    words = [word for name, path in sets.items() for word in (f"--{name}", str(path))]
    return main(["audit", *words, "--out", str(out), "--quiet", *more])


def refusal(capsys: pytest.CaptureFixture[str], code: int, expected: int, *parts: str) -> str:
    """Check that the command said one line and nothing else."""
    captured = capsys.readouterr()
    assert code == expected, captured.err
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("medtrust: ")
    for part in parts:
        assert part in lines[0]
    return lines[0]


def test_an_audit_writes_a_report_and_exits_by_its_verdict(sets, tmp_path, capsys):
    """report.json, report.html and run.json appear, and the exit code is the report's."""
    code = audit(sets, tmp_path / "out")
    report = json.loads((tmp_path / "out/report.json").read_bytes())
    assert code == report["exit_code"]
    assert report["verdict"] in capsys.readouterr().out
    assert report["data"]["train"]["n_patients"] == 40
    assert report["data"]["synthetic"]["n_images"] == 60
    ids = {row["id"] for row in report["results"]}
    assert {"privacy.cpm", "fidelity.fd[radiomics]", "diversity.recall[radiomics]", "privacy.duplicates"} <= ids
    assert not [row for row in report["results"] if row["status"] == "error"]
    assert (tmp_path / "out/report.html").read_text().startswith("<!")
    assert "seconds" in json.loads((tmp_path / "out/run.json").read_bytes())


def test_the_same_audit_twice_gives_the_same_bytes(sets, tmp_path):
    """Fresh or from the cache, into one folder or another: report.json and report.html are the same bytes."""
    names = ("report.json", "report.html")
    audit(sets, tmp_path / "a")
    first = [(tmp_path / "a" / name).read_bytes() for name in names]
    extracted = json.loads((tmp_path / "a/run.json").read_bytes())["extracted"]
    assert extracted["train"]["radiomics"] == 80
    audit(sets, tmp_path / "b", "--batch-size", "7", "--workers", "1")
    assert [(tmp_path / "b" / name).read_bytes() for name in names] == first
    assert set(json.loads((tmp_path / "b/run.json").read_bytes())["extracted"]["train"].values()) == {0}
    audit(sets, tmp_path / "c", "--cache", str(tmp_path / "elsewhere"))
    assert [(tmp_path / "c" / name).read_bytes() for name in names] == first


def test_evidence_shows_real_images_only_when_asked(sets, tmp_path):
    """Without --evidence no picture leaves; with full, each picture's digest is in the report."""
    copies = tmp_path / "copies"
    shutil.copytree(sets["synthetic"], copies)
    for i in range(6):
        image = np.asarray(Image.open(sets["train"] / f"image-{2 * i:04d}.png")).astype(int)
        Image.fromarray(np.clip(image + 2, 0, 255).astype(np.uint8)).save(copies / f"image-{i:04d}.png")
    planted = {**sets, "synthetic": copies}
    audit(planted, tmp_path / "none")
    assert not (tmp_path / "none/evidence").exists()
    audit(planted, tmp_path / "full", "--evidence", "full")
    report = json.loads((tmp_path / "full/report.json").read_bytes())
    row = next(row for row in report["results"] if row["id"] == "privacy.cpm")
    pictures = [picture for item in row["evidence"] for picture in item["pictures"]]
    assert pictures
    assert all((tmp_path / "full" / picture["path"]).exists() for picture in pictures)
    first = row["evidence"][0]["pictures"]
    assert first[0]["name"] in {f"image-{i:04d}.png" for i in range(6)}
    text = (tmp_path / "full/report.json").read_text()
    assert "train-00" not in text  # no patient and no real file name leaves
    lookup = (tmp_path / "full/private/names.csv").read_text()
    real = next(picture for picture in first if picture["role"] == "train")
    assert real["name"] in lookup


def test_without_a_holdout_copying_is_undecided(sets, tmp_path):
    """No holdout: the copy test says why it cannot answer, and the verdict is INCONCLUSIVE."""
    code = audit({k: v for k, v in sets.items() if k != "holdout"}, tmp_path / "out")
    report = json.loads((tmp_path / "out/report.json").read_bytes())
    row = next(row for row in report["results"] if row["id"] == "privacy.cpm")
    assert row["status"] == "insufficient"
    assert "--holdout" in row["reason"]
    assert (code, report["verdict"]) == (3, "INCONCLUSIVE")


def test_shared_patients_are_an_error(sets, tmp_path, capsys):
    """A patient in train and holdout is refused, not warned of."""
    code = audit({**sets, "holdout": sets["train"]}, tmp_path / "out")
    refusal(capsys, code, 2, "patients are in both train and holdout", "split by patient")
    assert not (tmp_path / "out/report.json").exists()


def _png(path: Path, width: int, height: int, rows: bytes) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def _empty(folder: Path) -> None:
    folder.mkdir()


def _text(folder: Path) -> None:
    write_folder(folder, random_patches(np.random.default_rng(0), 3))
    (folder / "image-0001.png").write_text("this is no image")


def _truncated(folder: Path) -> None:
    write_folder(folder, random_patches(np.random.default_rng(0), 3))
    path = folder / "image-0001.png"
    path.write_bytes(path.read_bytes()[:200])


def _bomb(folder: Path) -> None:
    folder.mkdir()
    _png(folder / "bomb.png", 100_000, 100_000, b"\0" * 1000)


def _mixed_depth(folder: Path) -> None:
    write_folder(folder, random_patches(np.random.default_rng(0), 3))
    Image.fromarray(np.arange(576, dtype=np.uint16).reshape(24, 24)).save(folder / "deep.png")


def _sixteen_bit(folder: Path) -> None:
    folder.mkdir()
    Image.fromarray(np.arange(576, dtype=np.uint16).reshape(24, 24)).save(folder / "deep.png")


def _zip_bomb(folder: Path) -> None:
    folder.mkdir()
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (500_000, 32, 32)})
    with (
        zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("images.npy", "w") as file,
    ):
        file.write(head.getvalue())
        file.write(b"\0" * 30_000_000)


@pytest.mark.parametrize(
    ("make", "code", "parts"),
    [
        (_empty, 2, ("bad", "no image")),
        (_text, 2, ("image-0001.png",)),
        (_truncated, 2, ("image-0001.png",)),
        (_bomb, 4, ("bomb.png",)),
        (_mixed_depth, 2, ("deep.png", "image-0000.png")),
        (_sixteen_bit, 2, ("deep.png", "--intensity")),
        (_zip_bomb, 4, ("bomb.npz",)),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_bad_images_are_one_sentence(make, code, parts, sets, tmp_path, capsys):
    """Each kind of bad input gives one line that names the file, the promised code, and no report."""
    make(tmp_path / "bad")
    found = audit({**sets, "synthetic": tmp_path / "bad"}, tmp_path / "out")
    refusal(capsys, found, code, *parts)
    assert not (tmp_path / "out/report.json").exists()
    assert not list(tmp_path.glob("out/.*"))


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--metrics", "fdd"), ("fdd", "fd")),
        (("--features", "radiomic"), ("radiomic", "radiomics")),
        (("--policy", "no-such-policy.toml"), ("no-such-policy.toml",)),
        (("--features", "inception", "--offline"), ("inception", "medtrust data get inception")),
        (("--weights", "inception"), ("NAME=PATH",)),
        (("--intensity", "5"), ("5", "LO:HI")),
        (("--level", "95"), ("level",)),
        (("--synthetic", "nothing-here"), ("nothing-here",)),
        (("--nonsense",), ("nonsense", "--help")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) and value[0].startswith("--") else "",
)
def test_bad_options_are_one_sentence(words, parts, sets, tmp_path, capsys):
    """Each wrong option gives one line that names it, exit 2, and no report."""
    code = audit(sets, tmp_path / "out", *words)
    refusal(capsys, code, 2, *parts)
    assert not (tmp_path / "out/report.json").exists()


def test_an_unreadable_policy_is_one_sentence(sets, tmp_path, capsys):
    """A policy with an unknown key names file, key and the close match."""
    policy = tmp_path / "policy.toml"
    policy.write_text(
        'schema = "medtrust.policy/1"\n[[gate]]\nid = "x"\nresult = "privacy.cpm"\nop = "<="\nthreshhold = 1\n'
    )
    refusal(capsys, audit(sets, tmp_path / "out", "--policy", str(policy)), 2, "policy.toml", "threshhold", "threshold")


def test_a_report_is_judged_again_and_rendered(sets, tmp_path, capsys):
    """`gate` gives the verdict of another policy, `report` another format, both from report.json alone."""
    audit(sets, tmp_path / "out")
    capsys.readouterr()
    path = str(tmp_path / "out/report.json")
    assert main(["gate", path, "--policy", "ci-smoke"]) in (0, 1, 3)
    assert main(["report", path, "--format", "markdown", "--out", str(tmp_path / "md")]) == 0
    assert (tmp_path / "md/report.md").read_text()
    capsys.readouterr()
    assert main(["report", path, "--format", "junit,badge"]) == 0
    assert main(["report", path, "--verify"]) == 0
    assert "report.junit.xml: what this report gives" in capsys.readouterr().out
    (tmp_path / "out/badge.svg").write_text("<svg/>")
    refusal(capsys, main(["report", path, "--verify"]), 2, "badge.svg", "render it again")
    code = main(["gate", path, "--policy", "ci-smoke", "--explain", "--out", str(tmp_path / "judged")])
    judged = json.loads((tmp_path / "judged/report.json").read_bytes())
    assert (code, judged["policy"]["name"]) == (judged["exit_code"], "ci-smoke")
    assert f"Verdict {judged['verdict']}" in capsys.readouterr().out
    (tmp_path / "changed.json").write_bytes(Path(path).read_bytes().replace(b'"n_images": 60', b'"n_images": 61'))
    capsys.readouterr()
    refusal(capsys, main(["gate", str(tmp_path / "changed.json"), "--policy", "ci-smoke"]), 2, "changed.json")


def test_plugins_are_listed_and_shown(capsys):
    """The list names every metric by its distribution, as text and as JSON."""
    assert main(["plugins", "list"]) == 0
    assert "medtrust/cpm" in capsys.readouterr().out
    assert main(["plugins", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["plugins"]
    assert {"privacy", "fidelity", "features", "formats", "generators", "reports"} <= {p["name"] for p in listed}
    assert main(["plugins", "show", "cpm"]) == 0
    assert "medtrust_privacy" in capsys.readouterr().out
    assert main(["info", "--json"]) == 0
    assert "native core" in json.loads(capsys.readouterr().out)


def test_control_characters_do_not_reach_the_terminal(capsys):
    """An error that quotes a hostile name quotes it printable."""
    assert main(["audit", "--train", "a\x1b[31m", "--synthetic", "b"]) == 2
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert "\\x1b" in err


def test_an_interrupt_exits_130(sets, tmp_path):
    """Ctrl-C in the middle of an audit gives 130 and no report; the next run finishes."""
    words = [word for name, path in sets.items() for word in (f"--{name}", str(path))]
    code = (
        "import sys, medtrust.api, medtrust.cli\n"
        "def stop(*a, **k): raise KeyboardInterrupt\n"
        "medtrust.api.run_plan = stop\n"
        "sys.exit(medtrust.cli.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "audit", *words, "--out", str(tmp_path / "out"), "--quiet"]
    stopped = subprocess.run(command, capture_output=True, text=True, env={**os.environ}, check=False)
    assert stopped.returncode == 130, stopped.stderr
    assert "interrupted" in stopped.stderr
    assert not (tmp_path / "out/report.json").exists()
    assert audit(sets, tmp_path / "out") in (0, 1, 3)
