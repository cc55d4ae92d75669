"""Do distances rank generators as a person would? Three generators of derm-patches, and two ways to spoil real images.

    python benchmarks/ranking.py --features radiomics,efficientnet-lite0,inception --out benchmarks/results/ranking.json

Real patches are split by patient into train and holdout. The generators: `vae` trained for 20 steps, `vae` trained for
600 steps, and a resampler that turns training images, mirrors them and adds faint noise: it copies, so that nothing of
fidelity is left to wish for (and nothing of privacy to hope for). Blurred holdout images must lose precision, holdout
images of one kind only (the darkest third) must lose recall.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from medtrust.cache import FeatureStore
from medtrust.demo import split_patients
from medtrust.extraction import standardise, survey
from medtrust.host import build_host
from medtrust.images import ImageSet, digest, open_set
from medtrust.progress import QuietProgress
from medtrust.recipes import cache_folder, get_recipe
from medtrust.seeding import derive_seed
from medtrust.sources import GeneratorSource, open_generator, readers_of, sample_to
from medtrust.spaces import load_spaces
from medtrust.stats import frechet_interval, manifold_interval
from medtrust.types import FeatureMatrix, ImageRecord

LEVEL = 0.95
TRAINED = {"vae, 20 steps": 20, "vae, 600 steps": 600}
Edit = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Edited:
    """Records made of others, read like an image set."""

    name: str
    records: tuple[ImageRecord, ...]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def indices(self) -> Sequence[int]:
        return range(len(self.records))

    def batches(self, size: int, *, workers: int) -> list[Edited]:
        return [self]


def edited(name: str, images: ImageSet, rows: Sequence[int], edit: Edit, seed: int) -> Edited:
    """Edit the images of some rows; the k-th copy of one image differs by its random numbers."""
    records = []
    for k, row in enumerate(rows):
        record = images[int(row)]
        pixels = edit(record.pixels.astype(np.float64), np.random.default_rng((seed, k)))
        pixels = np.rint(pixels).clip(0, 255).astype(np.uint8)
        records.append(replace(record, pixels=pixels, digest=digest(pixels, images.intensity)))
    return Edited(name, tuple(records))


def resample(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn, mirror, and add noise of 1.5 levels."""
    turned = np.rot90(pixels, int(rng.integers(4)), axes=(1, 2))
    mirrored = turned[:, :, ::-1] if rng.random() < 0.5 else turned
    return mirrored + rng.normal(0, 1.5, pixels.shape)


def blur(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian, one pixel."""
    return gaussian_filter(pixels, (0, 1, 1), mode="nearest")


def same(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return pixels


def darkest(images: ImageSet, share: float) -> list[int]:
    """Rows of the darkest images."""
    means = [float(record.pixels.mean()) for record in images]
    return sorted(np.argsort(means, kind="stable")[: round(share * len(means))].tolist())


def sets_of(patients: int, samples: int, work: Path, steps: dict[str, int], seed: int = 0) -> dict[str, Any]:
    """Prepare every set; trained checkpoints and samples stay in `work`."""
    host = build_host()
    readers = readers_of(host)
    place = get_recipe("derm-patches", cache=cache_folder(), progress=QuietProgress())
    train, holdout = split_patients(open_set(place, "train", readers), patients, derive_seed(seed, "demo", "split"))
    rng = np.random.default_rng(derive_seed(seed, "resample"))
    out: dict[str, Any] = {"train": train, "holdout": holdout}
    for name, count in steps.items():
        factory, checkpoint = host.load(host.find("generator", "vae"))(), work / f"vae{count}"
        folder = work / f"s-vae{count}"
        if not folder.exists():
            options = {"augment": "dihedral", "steps": str(count)}
            factory.train(
                train, train.intensity, checkpoint, seed=derive_seed(seed, "rank"), progress=QuietProgress(),
                options=options,
            )  # fmt: skip
            model = open_generator(GeneratorSource("vae", checkpoint, {}), host, "cpu")
            sample_to(model, samples, folder, seed=1, progress=QuietProgress())
        out[name] = open_set(folder, "synthetic", readers)
    drawn = rng.integers(len(train), size=samples)
    out["resampled train"] = edited("synthetic", train, drawn, resample, seed)
    out["holdout, blurred"] = edited("synthetic", holdout, range(len(holdout)), blur, seed)
    out["holdout, darkest third"] = edited("synthetic", holdout, darkest(holdout, 1 / 3), same, seed)
    return out


def measure(features: dict[str, FeatureMatrix], scaled: bool, seed: int) -> list[dict[str, Any]]:
    """Fréchet distance, precision and recall of each set against train, with intervals by patient."""
    rows = []
    matrices = standardise(features) if scaled else features  # type: ignore[arg-type]
    train = matrices["train"]  # type: ignore[index]
    for name, matrix in matrices.items():
        if name == "train":
            continue
        own = matrix.patients if name == "holdout" or name.startswith("holdout") else None
        a, b = train.values.double(), matrix.values.double()
        fd = frechet_interval(a, b, train.patients, own, level=LEVEL, seed=seed)
        prdc = manifold_interval(a, b, train.patients, own, level=LEVEL, seed=seed)
        row = {"set": name, "n": len(b), "fd": _figures(fd), "fd_plug_in": round(fd.plug_in, 4)}
        for statistic in ("precision", "recall"):
            row[statistic] = _figures(prdc[statistic])
        rows.append(row)
    return rows


def _figures(found: Any) -> list[float]:
    return [round(float(v), 4) for v in (found.value, found.interval.lo, found.interval.hi)]


def study(spaces: Sequence[str], patients: int, samples: int, work: Path, steps: dict[str, int]) -> dict[str, Any]:
    """Run the study.

    Args:
        spaces: Feature spaces.
        patients: Patients in train and in holdout.
        samples: Images from each generator.
        work: Folder for checkpoints and samples.
        steps: Steps of training by name of the generator, worst first.

    Returns:
        Rows by space.
    """
    host = build_host()
    chosen = {name: host.find("features", name) for name in spaces}
    extractors = load_spaces(chosen, host, {}, offline=True, cache_dir=cache_folder())
    sets = sets_of(patients, samples, work, steps)
    store = FeatureStore(work / "features")
    found = {name: survey(each, extractors, sets["train"].intensity, store) for name, each in sets.items()}
    out = {}
    for space, extractor in extractors.items():
        features = {name: each.features[space] for name, each in found.items()}
        out[space] = measure(features, bool(getattr(extractor, "standardise", False)), 0)
    return out


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", default="radiomics,efficientnet-lite0")
    parser.add_argument("--patients", type=int, default=600)
    parser.add_argument("--samples", type=int, default=700)
    parser.add_argument("--work", type=Path, default=Path("ranking"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = study(options.features.split(","), options.patients, options.samples, options.work, TRAINED)
    for space, lines in rows.items():
        print(f"\n| {space} | n | FD | precision | recall |\n|{'---|' * 5}")
        for line in lines:
            shown = [f"{v[0]:.3g} [{v[1]:.3g}, {v[2]:.3g}]" for v in (line["fd"], line["precision"], line["recall"])]
            print(f"| {line['set']} | {line['n']} | {' | '.join(shown)} |")
    if options.out:
        facts = {"torch": torch.__version__, "machine": platform.machine(), "level": LEVEL, "train": options.patients}
        options.out.write_text(json.dumps({"facts": facts, "spaces": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
