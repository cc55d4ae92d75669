"""Conditional generators, trained and audited from the command line: what was asked for is held against what came."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from medtrust.cli import main
from medtrust.conditions import read_conditions
from medtrust.errors import ConfigError
from medtrust.images import write_set
from medtrust.types import ConditionSpec, Intensity

SMALL = ["batch=32", "width=16", "lr=0.004"]
SIDE = 16


def halves(folder, n, seed, shuffled=False):
    """Images bright on one side, rough or smooth; the manifest says which, or has the texture dealt out anew."""
    rng = np.random.default_rng(seed)
    right, rough = rng.integers(0, 2, (2, n))
    pixels = 60 + rng.normal(0, 1, (n, 1, SIDE, SIDE)) * np.where(rough, 24, 6)[:, None, None, None]
    for i, side in enumerate(right):
        pixels[i, :, :, SIDE // 2 * side : SIDE // 2 * side + SIDE // 2] += 80
    names = [f"{folder.name}-{i:03d}" for i in range(n)]
    files = write_set(folder, zip(names, pixels.clip(0, 255).astype(np.uint8), strict=True), Intensity(0, 255, "level"))
    told = rng.permutation(rough) if shuffled else rough
    with (folder / "manifest.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "patient", "label", "caption"])
        for path, side, texture in zip(files, right, told, strict=True):
            name = ("smooth", "rough")[texture]
            # the half that is not bright is the dark spot that a caption speaks of
            spot = ("right", "left")[side]
            rows.writerow([path.name, path.stem, name, f"a medium plain image with a spot on the {spot}"])
    masks = folder.with_name(f"{folder.name}-masks")
    masks.mkdir()
    for path, side in zip(files, right, strict=True):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[:, SIDE // 2 * side : SIDE // 2 * side + SIDE // 2] = 1
        np.save(masks / f"{path.stem}.npy", mask)
    return folder


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    return {
        "train": halves(root / "train", 96, 1),
        "holdout": halves(root / "holdout", 64, 2),
        "shuffled": halves(root / "shuffled", 96, 1, shuffled=True),
    }


def fit(kind, data, out, *options):
    words = [part for option in (*SMALL, *options) for part in ("--option", option)]
    assert main(["train", kind, "--data", str(data), "--out", str(out), *words]) == 0
    return out


def audited(sets, spec, metric, out, *more):
    words = ["audit", "--train", str(sets["train"]), "--holdout", str(sets["holdout"]), "--synthetic", spec]
    words += ["--metrics", metric, "--policy", "research", "--out", str(out), "--n-synthetic", "64", *more]
    assert main(words) in (0, 1, 3)
    report = json.loads((out / "report.json").read_text())
    return report["subject"], {row["id"]: row for row in report["results"]}


def test_labels_are_kept_up_to_the_ceiling(sets, tmp_path):
    """A generator that learned its labels keeps them; one that was told any label does not, and is found out."""
    kept = {}
    for name in ("train", "shuffled"):
        model = fit("flow", sets[name], tmp_path / name, "label=label", "steps=120")
        subject, rows = audited(
            sets, f"flow:{model}", "label_consistency", tmp_path / f"{name}-report", "--condition", "smooth=3,rough=1"
        )
        assert len(subject["condition"]) == 64  # a digest
        (kept[name],) = [row for name, row in rows.items() if "label_consistency" in name]
    for row in kept.values():
        assert row["null"]["value"] > 0.9  # the ceiling
    assert kept["train"]["interval"]["lo"] > 0.5  # chance
    assert kept["shuffled"]["interval"]["hi"] < 0.8
    assert kept["shuffled"]["estimate"]["value"] < kept["train"]["estimate"]["value"] - 0.2


def test_masks_are_found_again(sets, tmp_path):
    """Synthetic images lie where their masks say, nearly as often as real ones do, and not where another's does."""
    masks = {name: sets[name].with_name(f"{name}-masks") for name in ("train", "holdout")}
    model = fit("mask", sets["train"], tmp_path / "model", f"masks={masks['train']}", "steps=120")
    config = tmp_path / "medtrust.toml"
    folders = {**masks, "synthetic": masks["holdout"]}
    lines = ["[plugins.fidelity.mask_consistency.masks]", *(f'{name} = "{path}"' for name, path in folders.items())]
    config.write_text("\n".join(lines))
    asked = ["--condition", str(masks["holdout"]), "--config", str(config)]
    _, rows = audited(sets, f"mask:{model}", "mask_consistency", tmp_path / "report", *asked)
    dice, swap = rows["fidelity.mask_dice"], rows["fidelity.mask_swap"]
    assert dice["estimate"]["value"] > 0.8
    assert dice["null"]["value"] > 0.9
    assert swap["interval"]["lo"] > 0


def test_captions_are_matched(sets, tmp_path):
    """Of its own caption, its mirror and another's, an image fits its own best."""
    model = fit("caption", sets["train"], tmp_path / "model", "captions=caption", "steps=120")
    sentences = tmp_path / "captions.txt"
    sentences.write_text("".join(f"a medium plain image with a spot on the {side}\n" for side in ("left", "right")))
    asked = ["--condition", str(sentences)]
    _, rows = audited(sets, f"caption:{model}", "text_consistency", tmp_path / "report", *asked)
    for name in ("text_match", "text_laterality"):
        assert rows[f"fidelity.{name}"]["interval"]["lo"] > 0.5


def test_classes_are_dealt_out_by_their_shares():
    """Every beginning of the series has them as nearly as it can; a share that means nothing is refused."""
    spec = ConditionSpec("label", ("a", "b", "c"))
    dealt, names, _ = read_conditions("a=0.6, b=0.3, c=0.1", spec, None)
    assert tuple(dealt) == names
    for n in (10, 57, 1000):
        assert [abs(list(dealt[:n]).count(k) - s * n) < 1 for k, s in zip("abc", (0.6, 0.3, 0.1), strict=True)] == [
            True
        ] * 3
    assert set(read_conditions("b=1", spec, None)[0]) == {"b"}
    assert list(read_conditions("b", spec, None)[0]) == ["b"]
    for wrong in ("a=0.5,d=0.5", "a=0.5,a=0.5", "a=-1,b=2", "a=x", "a=nan,b=1"):
        with pytest.raises(ConfigError, match="CLASS=SHARE"):
            read_conditions(wrong, spec, None)


def test_a_condition_for_a_folder_is_refused(sets, tmp_path, capsys):
    """Images that are there already cannot be asked for anything."""
    words = ["audit", "--train", str(sets["train"]), "--synthetic", str(sets["holdout"]), "--condition", "left"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    assert "leave it out" in capsys.readouterr().err
