"""Do the explanations hold? Planted artefacts, random networks, nulls and planted rules, over 20 seeds on real images.

`python benchmarks/explain.py` writes benchmarks/results/explain.json; `--tables` prints the tables of docs/explain.md
from it. The images are those of the recipe derm-patches, split by patient anew for each seed.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medtrust import stats
from medtrust.explaining import attribute
from medtrust.host import build_host
from medtrust.images import normalise, open_set
from medtrust.progress import QuietProgress
from medtrust.recipes import cache_folder, get_recipe
from medtrust.seeding import derive_seed
from medtrust.sources import readers_of
from medtrust.stats import attribution
from medtrust.types import Intensity, Score
from medtrust_explain.artefacts import ARTEFACTS, plant_artefact
from medtrust_explain.c2st import Samples, crossfit
from medtrust_explain.cam import gradcam, hirescam, layercam
from medtrust_explain.gradients import expected_gradients
from medtrust_explain.network import predict, shuffled, train_all
from medtrust_explain.rules import learn_rules
from medtrust_features.radiomics import Radiomics

RESULT = Path(__file__).parent / "results" / "explain.json"
SEEDS, JUDGED = 20, 24
SIDES = {"null": 200, "planted": 300}  # images of each of the two sets
PARTS = ("null", "planted")
SHIFT = 1.5  # standard deviations by which glcm.contrast is moved
METHODS = {"Grad-CAM": gradcam, "HiResCAM": hirescam, "LayerCAM": layercam, "expected gradients": expected_gradients}
BASELINES = ("random", "centred", "edges")
MEASURES = {
    "mass": attribution.mass_inside,
    "pointing": attribution.pointing_hit,
    "AUPRC": attribution.average_precision,
}


def load() -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Images [n, 3, 32, 32] in [0, 1], their pixels as stored, patients."""
    place = get_recipe("derm-patches", cache=cache_folder(), progress=QuietProgress(), offline=False)
    images = open_set(place, "train", readers_of(build_host()))
    records = [record for record in images if record.pixels.shape == (3, 32, 32)]
    raw = torch.from_numpy(np.stack([record.pixels for record in records]))
    unit = torch.from_numpy(normalise(raw.numpy(), images.intensity))
    return unit, raw, [record.patient for record in records]


def described(raw: torch.Tensor) -> torch.Tensor:
    """Radiomic features [n, d], standardised."""
    features = Radiomics().extract(raw, Intensity(0.0, 255.0, "level")).double()
    return (features - features.mean(0)) / features.std(0).clamp_min(1e-9)


def split(patients: list[str], side: int, seed: int) -> np.ndarray[Any, Any]:
    """Rows of two groups of `side` images without a common patient, the first group first."""
    one, two = stats.split_patients(patients, len(patients), seed)
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(part.numpy())[:side] for part in (one, two)])


def planted(images: torch.Tensor, patients: list[str], seed: int, kind: str) -> dict[str, Any]:
    """Train a network to see an artefact, and mark every method on images that it did not learn from."""
    side = SIDES["planted"]
    rows = split(patients, side, derive_seed(seed, "planted"))
    first = np.arange(2 * side) < side
    own = images[torch.from_numpy(rows)].clone()
    rng = np.random.default_rng(derive_seed(seed, kind))
    changed = [plant_artefact(image, kind, rng) for image in own[:side]]
    own[:side] = torch.stack([c.image for c in changed])
    masks = torch.stack([c.mask for c in changed])
    samples = Samples(own, first, [f"{int(f)}:{patients[i]}" for f, i in zip(first, rows, strict=True)])
    # every other patient of either group is judged, the others are learned from
    owners = {owner: number for number, owner in enumerate(dict.fromkeys(samples.patients))}
    judged = np.flatnonzero([owners[owner] % 2 == 0 for owner in samples.patients])
    learn = np.setdiff1d(np.arange(2 * side), judged)
    labels = torch.from_numpy(first[learn].astype(np.float32))
    (network,) = train_all([(own[torch.from_numpy(learn)], labels)], None, [derive_seed(seed, "train", kind)])
    scores = predict(network, own[torch.from_numpy(judged)]).double().numpy()
    told = stats.discriminate([scores], [first[judged]], [[samples.patients[i] for i in judged]], 0.95)
    clean = own[torch.from_numpy(judged[~first[judged]])]
    chosen = torch.from_numpy(judged[first[judged]][:JUDGED])
    x, mask = own[chosen], masks[chosen]
    score = Score(network, network, network.layer, clean)
    found: dict[str, Any] = {"auc": told.auc, "maps": {}, "alike": {}}
    maps = {name: attribute(method, score, x)[0] for name, method in METHODS.items()}
    for name, method in METHODS.items():
        likeness = []
        for draw in range(2):
            other = shuffled(network, derive_seed(seed, "random", draw))
            fresh, _ = attribute(method, Score(other, other, network.layer, clean), x[:12])
            likeness.append(float(attribution.rank_correlation(maps[name][:12], fresh).mean()))
        found["alike"][name] = float(np.mean(likeness))
    maps |= {
        "random": attribution.random_maps(maps["HiResCAM"], seed),
        "centred": attribution.centre_map(*x.shape[-2:]).expand_as(mask).clone(),
        "edges": attribution.edge_map(x),
    }
    for name, one in maps.items():
        found["maps"][name] = {m: float(measure(one, mask).mean()) for m, measure in MEASURES.items()}
    return found


def null(images: torch.Tensor, features: torch.Tensor, patients: list[str], seed: int) -> dict[str, Any]:
    """Real against real: the classifier's interval, and the number of rules."""
    rows = split(patients, SIDES["null"], derive_seed(seed, "null"))
    first = np.arange(len(rows)) < SIDES["null"]
    who = [f"{int(f)}:{patients[i]}" for f, i in zip(first, rows, strict=True)]
    samples = Samples(images[torch.from_numpy(rows)], first, who)
    (folded,) = crossfit([(samples, 2)], 10, derive_seed(seed, "null"))
    judged = folded.judged(samples, 0.95)
    x = features[torch.from_numpy(rows)].numpy()
    none, _ = learn_rules(x, first, who, derive_seed(seed, "rules"))
    at = Radiomics.names.index("glcm.contrast")
    moved = x.copy()
    moved[first, at] += SHIFT
    some, _ = learn_rules(moved, first, who, derive_seed(seed, "rules"))
    named = any(literal.feature == at for rule in some.rules for literal in rule.literals)
    interval = [judged.interval.lo, judged.interval.hi]
    p = folded.p(samples, derive_seed(seed, "p"))
    return {"auc": judged.auc, "interval": interval, "p": p, "rules": len(none.rules), "named": named}


def tables(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines: list[str] = []
    if found.get("planted"):
        lines += [*_of_planted(found["planted"]), ""]
    if found.get("null"):
        lines += _of_null(found["null"])
    return "\n".join(lines) + "\n"


def _of_planted(runs: list[dict[str, Any]]) -> list[str]:
    seeds = len({run["seed"] for run in runs})
    lines = [
        f"Planted artefacts on real images, {seeds} seeds; mean over seeds with its 95 % interval.",
        "The last column is the AUPRC less that of the best of the three baselines in the same seed.",
        "",
        "| artefact, the network's AUC | map | share of mass inside | pointing game | AUPRC | over the best baseline |",
        "|---|---|---|---|---|---|",
    ]
    for kind in ARTEFACTS:
        collected: dict[tuple[str, str], list[float]] = defaultdict(list)
        chosen = [run for run in runs if run["kind"] == kind]
        for run in chosen:
            for name, measures in run["maps"].items():
                for measure, value in measures.items():
                    collected[name, measure].append(value)
        head = f"{kind}, {_with_interval([run['auc'] for run in chosen])}" if chosen else ""
        for name in chosen[0]["maps"] if chosen else ():
            cells = [_with_interval(collected[name, measure]) for measure in MEASURES]
            gains = [run["maps"][name]["AUPRC"] - max(run["maps"][b]["AUPRC"] for b in BASELINES) for run in chosen]
            cells.append("" if name in BASELINES else _with_interval(gains))
            lines.append(f"| {head} | {name} | {' | '.join(cells)} |")
    lines += ["", "| map | rank correlation with networks of random parameters |", "|---|---|"]
    return lines + [f"| {name} | {_with_interval([run['alike'][name] for run in runs])} |" for name in METHODS]


def _of_null(runs: list[dict[str, Any]]) -> list[str]:
    held = sum(run["interval"][0] <= 0.5 <= run["interval"][1] for run in runs)
    return [
        "| real against real, and a planted rule | seeds |",
        "|---|---|",
        f"| the interval of the classifier's AUC contains .5 | {held} of {len(runs)} |",
        f"| no rule is emitted | {sum(not run['rules'] for run in runs)} of {len(runs)} |",
        f"| `glcm.contrast` moved by {SHIFT:g} SD is named | {sum(run['named'] for run in runs)} of {len(runs)} |",
    ]


def _with_interval(values: list[float]) -> str:
    """Mean over seeds with its 95 % interval."""
    middle, reach = float(np.mean(values)), 0.0
    if len(values) > 1:
        reach = stats.t_quantile(0.95, len(values) - 1) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return f"{middle:.2f} ± {reach:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", action="store_true", help="print the tables of the results that are there")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part; repeatable")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    arguments = parser.parse_args()
    if arguments.tables:
        print(tables(json.loads(RESULT.read_text())))
        return
    torch.set_num_threads(1)
    images, raw, patients = load()
    features = described(raw) if "null" in (arguments.part or PARTS) else None
    found: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    found["images_per_side"] = SIDES
    for part in arguments.part or PARTS:
        found[part] = []
        for seed in range(arguments.seeds):
            if part == "null" and features is not None:
                found[part].append({"seed": seed, **null(images, features, patients, seed)})
            else:
                runs = [{"seed": seed, "kind": kind, **planted(images, patients, seed, kind)} for kind in ARTEFACTS]
                found[part] += runs
            RESULT.write_text(json.dumps(found, indent=1) + "\n")
            print(f"{part}: seed {seed} done", flush=True)
    print(tables(found))


if __name__ == "__main__":
    main()
