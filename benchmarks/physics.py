"""What a scanner model keeps that the same network without it loses: `python benchmarks/physics.py [--only ct]`.

Three sets, each split by slice into train and holdout. `flow` (the twin) and its hybrid have one network and one recipe
and are fitted on the same images.

- ct: patches cut at native resolution out of the slices of a chest CT, with the noise of that scanner.
- brain: slices of a brain MR whose background was blanked; the scan is repeated with complex noise, at one contrast.
- contrasts: five spin-echo contrasts of a brain template: fractions of grey and white matter and of fluid, the
  relaxation times of the literature, and complex noise.

Each set is of one person (or template), so the units of the intervals are slices, and what is found is said of that
scan.
The statistics are those of the physics metrics; a gap is the one that these metrics report.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch

from medtrust.host import build_host
from medtrust.images import digest, open_set
from medtrust.progress import QuietProgress, make_progress
from medtrust.recipes import cache_folder, get_recipe
from medtrust.sources import readers_of
from medtrust.types import ImageHeader, ImageRecord, Intensity
from medtrust_physics.background import background_ratio
from medtrust_physics.compare import gap
from medtrust_physics.noise import noise_shape
from medtrust_physics.relaxation import signal
from medtrust_physics.signal import dictionary, signal_residual
from medtrust_physics.tissues import tissue_levels
from peers import ROOT, machine

RESULT = ROOT / "benchmarks" / "results" / "physics.json"
SEED, SYNTHETIC = 1, 64
TR, TE = (500.0, 1000.0, 2500.0, 4000.0, 4000.0), (15.0, 15.0, 40.0, 80.0, 120.0)
TISSUE = {"white": (770.0, 500.0, 70.0), "grey": (860.0, 833.0, 83.0), "fluid": (1000.0, 2569.0, 329.0)}
RECIPE = {"steps": "100", "batch": "16"}
HU, MAGNITUDE = Intensity(-1024, 3071, "HU"), Intensity(0, 4095, "a.u.")
Images = list[tuple[str, np.ndarray]]  # slice, pixels [C, H, W]


def ct() -> tuple[Images, Intensity, tuple[float, float]]:
    """Patches 48 x 48 with tissue, four per slice."""
    root = get_recipe("ct-rider", cache=cache_folder(), progress=make_progress())
    images = open_set(root, "train", readers_of(build_host()))
    rng, found = np.random.default_rng(SEED), []
    spacing = (0.0, 0.0)
    for record in images:
        if record.header.modality != "CT":
            continue
        spacing = tuple(record.header.spacing_mm[-2:])
        taken = 0
        for _ in range(200):
            y, x = rng.integers(100, 364, 2)
            patch = record.pixels[0, y : y + 48, x : x + 48].astype(np.float32)
            if np.mean(patch > -200) > 0.5:
                found.append((record.name, patch[None]))
                taken += 1
            if taken == 4:
                break
    return found, HU, spacing


def noisy(images: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Magnitude of a scan whose two channels have noise of this standard deviation."""
    return np.hypot(images + rng.normal(0, sigma, images.shape), rng.normal(0, sigma, images.shape)).astype(np.float32)


def brain() -> tuple[Images, Intensity, tuple[float, float]]:
    """Every fifth pixel of the 256 x 256 slices, from 16 starts."""
    root = get_recipe("ct-visible-human", cache=cache_folder(), progress=make_progress())
    rng, found = np.random.default_rng(SEED), []
    for record in open_set(root / "BrainExample", "train", readers_of(build_host())):
        for start in range(16):
            fine = record.pixels[:, start // 4 :: 5, start % 4 :: 5][:, :48, :48].astype(np.float32)
            found.append((record.name, noisy(fine, 15.0, rng)))
    return found, MAGNITUDE, (4.3, 4.3)


def contrasts() -> tuple[Images, Intensity, tuple[float, float]]:
    """Five contrasts of the template's slices at 5 mm, from four starts."""
    root = get_recipe("mni152", cache=cache_folder(), progress=make_progress())
    volumes = {}
    for name in ("gm", "wm", "t1"):
        volumes[name] = np.asarray(nibabel.load(next(root.glob(f"*_{name}_*"))).dataobj, np.float32)
    grey, white = (volumes[n] / volumes[n].max() for n in ("gm", "wm"))
    inside = volumes["t1"] > 0.05 * volumes["t1"].max()
    fluid = (inside * (1 - grey - white)).clip(0)
    rng, found = np.random.default_rng(SEED), []
    protocol = torch.tensor([TR, TE, [0.0] * 5])
    for z in range(45, 145):
        for start in range(4):
            scan = np.zeros((5, 48, 48), np.float32)
            for name, share in (("grey", grey), ("white", white), ("fluid", fluid)):
                plane = share[start % 2 * 2 :, start // 2 * 2 :, z]
                rows, columns = plane.shape[0] // 5, plane.shape[1] // 5
                coarse = plane[: 5 * rows, : 5 * columns].reshape(rows, 5, columns, 5).mean((1, 3))
                pd, t1, t2 = (torch.tensor(value) for value in TISSUE[name])
                part = signal(pd, t1, t2, *protocol).numpy()[:, None, None] * coarse
                top, left = (48 - rows) // 2, (48 - columns) // 2
                scan[:, top : top + rows, left : left + columns] += part
            found.append((f"z{z}", noisy(scan, 8.0, rng)))
    return found, MAGNITUDE, (5.0, 5.0)


def records(images: Images, intensity: Intensity, spacing: tuple[float, float], modality: str) -> list[ImageRecord]:
    """As the trainers and the statistics take them."""
    found = []
    for i, (unit, pixels) in enumerate(images):
        header = ImageHeader(pixels.shape, "float32", intensity=intensity, modality=modality, spacing_mm=spacing)
        found.append(ImageRecord(pixels, f"{i}", unit, header, digest(pixels, intensity)))
    return found


def split(images: Images, block: int) -> tuple[Images, Images]:
    """Train and holdout: blocks of neighbouring slices, three of five are for training."""
    order = {unit: i for i, unit in enumerate(dict.fromkeys(unit for unit, _ in images))}
    sides: tuple[Images, Images] = ([], [])
    for unit, pixels in images:
        sides[order[unit] // block % 5 >= 3].append((unit, pixels))
    return sides


def rows(records: Sequence[ImageRecord], statistic: Callable[[ImageRecord], Any]) -> np.ndarray:
    """Mean of the statistic per unit, [units, K]."""
    found: dict[str, list[Any]] = {}
    for record in records:
        row = statistic(record)
        if row is not None:
            found.setdefault(record.patient, []).append(row)
    if not found:
        return np.empty((0, 1))
    with np.errstate(all="ignore"):
        return np.stack([np.nanmean(np.stack(part), 0) for part in found.values()])


SETS: Mapping[str, tuple[Callable[[], Any], str, Mapping[str, str], int, str]] = {
    "ct": (ct, "ct-physics", {}, 10, "CT"),
    "brain": (brain, "mr-physics", {"tr": "2300", "te": "22"}, 1, "MR"),
    "contrasts": (
        contrasts, "mr-physics", {"tr": "/".join(map(str, TR)), "te": "/".join(map(str, TE))}, 5, "MR",
    ),
}  # fmt: skip
ENTRIES = dictionary(np.array(TR), np.array(TE))
STATISTICS: Mapping[str, Mapping[str, Callable[[ImageRecord], Any]]] = {
    "ct": {"noise_shape": noise_shape, "tissue_hu": lambda r: tissue_levels(r)[[2, 3]]},
    "brain": {"rayleigh_background": background_ratio, "noise_shape": noise_shape},
    "contrasts": {
        # without the air around the head, which would be half of the pixels
        "signal_residual": lambda r: signal_residual(
            ImageRecord(r.pixels[:, 12:36, 12:36], r.name, r.patient, r.header, r.digest), ENTRIES
        ),
        "rayleigh_background": lambda r: background_ratio(
            ImageRecord(r.pixels[:1], r.name, r.patient, r.header, r.digest)
        ),
    },
}


def study(name: str) -> list[dict[str, Any]]:
    """Train both on one set, and hold what they draw against it."""
    load, kind, scanner, block, modality = SETS[name]
    images, intensity, spacing = load()
    train, holdout = (records(side, intensity, spacing, modality) for side in split(images, block))
    host, out, drawn = build_host(), Path(tempfile.mkdtemp()), {}
    cards, seconds = {}, {}
    for label, of_kind, more in (("twin", "flow", {}), ("hybrid", kind, scanner)):
        factory = host.load(host.find("generator", of_kind))()
        began = time.perf_counter()
        path = factory.train(
            train, intensity, out / label, seed=SEED, progress=QuietProgress(), options={**RECIPE, **more}
        )
        seconds[label] = round(time.perf_counter() - began, 1)
        generator = factory.open(path, {}, "cpu")
        cards[label] = generator.card
        pixels = generator.sample(SYNTHETIC, seed=SEED).pixels
        drawn[label] = records([(f"{label}{i}", p) for i, p in enumerate(pixels)], intensity, spacing, modality)
    shutil.rmtree(out)
    found = []
    for statistic, measure in STATISTICS[name].items():
        real = rows(train, measure)
        for label, other in (("real again", holdout), *drawn.items()):
            measured = rows(other, measure)
            row: dict[str, Any] = {"set": name, "statistic": statistic, "images": label, "units": len(measured)}
            if len(measured) >= 8:
                answer = gap(real, measured, 0.95, SEED)
                row |= {"mean": np.nanmean(measured, 0).round(4).tolist(), "gap": round(answer.value, 5)}
                row |= {"lo": round(answer.interval.lo, 5), "hi": round(answer.interval.hi, 5)}
            row |= {"train_mean": np.nanmean(real, 0).round(4).tolist(), "train_units": len(real)}
            if label in cards:
                row |= {"train_seconds": seconds[label]}
                physics = cards[label].get("physics", {})
                row |= {k: round(v, 4) for k, v in physics.items() if isinstance(v, float)}
            found.append(row)
            print(json.dumps(row), flush=True)
    return found


def main() -> None:
    """Run the sets that are asked for; the others keep their rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=sorted(SETS))
    only = parser.parse_args().only
    torch.set_num_threads(1)
    kept = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []
    for name in SETS:
        if only in (None, name):
            kept = [row for row in kept if row["set"] != name] + study(name)
    result = {"machine": machine(1), "recipe": RECIPE, "synthetic": SYNTHETIC, "rows": kept}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
