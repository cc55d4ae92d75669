"""`medtrust demo`: the whole road on real images, from public data to a judged report."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medtrust.api import audit
from medtrust.errors import ConfigError, DataError
from medtrust.host import build_host
from medtrust.images import open_set, write_set
from medtrust.recipes import cache_folder, get_recipe
from medtrust.sampling import sample_to
from medtrust.seeding import derive_seed
from medtrust.sources import GeneratorSource, open_generator, readers_of

if TYPE_CHECKING:
    from medtrust.host import Host
    from medtrust.images import ImageSet
    from medtrust.progress import Progress
    from medtrust.report import TrustReport

__all__ = ["DemoSets", "prepare_demo", "run_demo"]

RECIPE = "derm-patches"
PATIENTS = 600  # in train and in holdout each: even, and enough for the copy test to see two copies in a hundred
SAMPLES = 700
TRAINING: Mapping[str, str] = {"augment": "dihedral"}  # a patch of skin has no upright orientation
MARK = ".medtrust-demo"


@dataclass(frozen=True, slots=True)
class DemoSets:
    """Where the demo's sets lie, and the names of the synthetic images that are planted copies."""

    train: Path
    holdout: Path
    synthetic: Path
    planted: tuple[str, ...]


def run_demo(
    out: Path,
    *,
    seed: int,
    plant_copies: float,
    cache: Path | None,
    offline: bool,
    progress: Progress,
    generator: str = "vae",
    options: Mapping[str, str] = TRAINING,
    metrics: str | Sequence[str] = "all",
) -> TrustReport:
    """Prepare the demo's sets and audit them.

    Args:
        out: Folder for images, checkpoint and report.
        seed: Decides the split, the training, the samples and the planted copies.
        plant_copies: Share of the synthetic set to replace by edited training images.
        cache: Folder of the cache; the user's own when None.
        offline: Use the cache only.
        progress: Where to report.
        generator: Kind of generator to train.
        options: How to train it.
        metrics: "all", or names.

    Returns:
        The judged report, also written to `out`.
    """
    cache = cache or cache_folder()
    host = build_host()
    sets = prepare_demo(
        out,
        seed=seed,
        plant_copies=plant_copies,
        cache=cache,
        offline=offline,
        progress=progress,
        generator=generator,
        options=options,
        host=host,
    )
    return audit(
        train=sets.train,
        holdout=sets.holdout,
        synthetic=sets.synthetic,
        metrics=metrics,
        policy="demo",
        out=out,
        evidence="full",
        seed=seed,
        cache=cache,
        offline=offline,
        progress=progress,
        host=host,
    )


def prepare_demo(
    out: Path,
    *,
    seed: int,
    plant_copies: float,
    cache: Path,
    offline: bool,
    progress: Progress,
    generator: str = "vae",
    options: Mapping[str, str] = TRAINING,
    host: Host,
) -> DemoSets:
    """Fetch real images, split them by patient, train a generator on one half and sample from it.

    The generator is trained anew each time, which is what the demo shows; one that `out` holds already from the same
    images, recipe and seed is used as it is.

    Args:
        out: Folder of the sets (`sets/`) and the checkpoint (`generator/`).
        seed: Decides the split, the training, the samples and the planted copies.
        plant_copies: Share of the synthetic set to replace by edited training images.
        cache: Folder of the cache.
        offline: Use the cache only.
        progress: Where to report.
        generator: Kind of generator to train.
        options: How to train it.
        host: Finds the generator and the file formats.

    Returns:
        Where the sets lie, and which synthetic images are copies.

    Raises:
        ConfigError: `out` holds something else, the images are not to be had, or there are fewer patients than copies.
    """
    copies = round(plant_copies * SAMPLES)
    if copies > PATIENTS:
        raise ConfigError(f"{copies} copies of as many patients cannot be planted, train has {PATIENTS}; plant fewer")
    folder = _fresh(out)
    patches = open_set(get_recipe(RECIPE, cache=cache, progress=progress, offline=offline), "train", readers_of(host))
    train, holdout = split_patients(patches, PATIENTS, derive_seed(seed, "demo", "split"))
    for name, images in (("train", train), ("holdout", holdout)):
        _write_real(folder / name, name, images)
    factory = host.load(host.find("generator", generator))()
    checkpoint = out / "generator"
    factory.train(
        open_set(folder / "train", "train", readers_of(host)),
        patches.intensity,
        checkpoint,
        seed=derive_seed(seed, "demo", "train"),
        progress=progress,
        options=options,
    )
    model = open_generator(GeneratorSource(generator, checkpoint, {}), host, "cpu")
    sample_to(model, SAMPLES, folder / "synthetic", seed=derive_seed(seed, "demo", "sample"), progress=progress)
    planted = plant(folder, train, copies, derive_seed(seed, "demo", "plant"))
    if planted:
        progress.say(f"planted {len(planted)} edited training images in the synthetic set; which: {folder}/planted.csv")
    return DemoSets(folder / "train", folder / "holdout", folder / "synthetic", planted)


def split_patients(images: ImageSet, n: int, seed: int) -> tuple[ImageSet, ImageSet]:
    """Draw `n` patients for train and `n` others for holdout.

    Raises:
        DataError: There are not enough patients.
    """
    import numpy as np

    patients = sorted(set(images.patients))
    if len(patients) < 2 * n:
        raise DataError(f"{len(patients)} patients are too few to draw {n} for train and {n} for holdout")
    drawn = np.random.default_rng(seed).permutation(len(patients))
    sides = {patients[i]: 0 if place < n else 1 for place, i in enumerate(drawn[: 2 * n])}
    rows = [[i for i, patient in enumerate(images.patients) if sides.get(patient) == side] for side in (0, 1)]
    return images.take(rows[0]), images.take(rows[1])


def plant(folder: Path, train: ImageSet, count: int, seed: int) -> tuple[str, ...]:
    """Replace `count` synthetic images by edited images of as many training patients.

    The list goes to `planted.csv` beside the sets, where the audit does not look.

    Returns:
        Names of the replaced images.
    """
    import numpy as np

    from medtrust.stats.planting import LIGHT_EDITS, edit_image

    rng = np.random.default_rng(seed)
    by_patient: dict[str, list[int]] = {}
    for i, patient in enumerate(train.patients):
        by_patient.setdefault(patient, []).append(i)
    owners = rng.permutation(sorted(by_patient))[:count]
    files = sorted((folder / "synthetic").glob("*.png"))  # beside them lies the note of how they were drawn
    rows = []
    for k, (place, owner) in enumerate(zip(rng.permutation(len(files))[:count], owners, strict=True)):
        record = train[int(rng.choice(by_patient[owner]))]
        edit = LIGHT_EDITS[k % len(LIGHT_EDITS)]
        edited = np.rint(edit_image(record.pixels, edit, rng)).clip(0, 255).astype(np.uint8)
        files[place].unlink()
        write_set(files[place].parent, [(files[place].stem, edited)], train.intensity)
        rows.append((files[place].name, record.name, edit))
    with (folder / "planted.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("file", "source", "edit"), *sorted(rows)])
    return tuple(sorted(name for name, _, _ in rows))


def _fresh(out: Path) -> Path:
    """Empty the folder of the sets, if an earlier demo made it."""
    folder = out / "sets"
    if folder.exists() and not (folder / MARK).exists():
        raise ConfigError(f"{folder} exists and was not made by a demo; choose another folder with --out")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARK).touch()
    return folder


def _write_real(folder: Path, prefix: str, images: ImageSet) -> None:
    names = [f"{prefix}-{i:04d}" for i in range(len(images))]
    write_set(folder, ((name, record.pixels) for name, record in zip(names, images, strict=True)), images.intensity)
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        rows = ((f"{name}.png", patient) for name, patient in zip(names, images.patients, strict=True))
        csv.writer(file, lineterminator="\n").writerows([("file", "patient"), *rows])
