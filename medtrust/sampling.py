"""From a generator to a folder of images: streamed, watched, and resumed where a killed run stopped."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtrust.errors import ConfigError, MedtrustError, PluginError
from medtrust.images import write_set
from medtrust.types import SampleBatch
from medtrust.writing import ensure_folder, write_atomically

if TYPE_CHECKING:
    import numpy as np

    from medtrust.inspection import Observation
    from medtrust.progress import Progress
    from medtrust.types import Generator

__all__ = ["CHUNK", "RECORD", "sample_to"]

CHUNK = 64  # images asked for at once, from a multiple of it on: the same requests however often a run is resumed
RECORD = "sampling.json"
MANIFEST = "manifest.csv"
_CHOSEN = ".conditions.jsonl"
_SCHEMA = "medtrust.sampling/1"


def sample_to(
    generator: Generator,
    n: int,
    folder: Path,
    *,
    seed: int,
    progress: Progress,
    request: Mapping[str, Any] | None = None,
    condition: Sequence[Any] | None = None,
    names: Sequence[str] | None = None,
    watch: Observation | None = None,
) -> None:
    """Sample `n` images into a folder that `open_set` can read; what is there already from the same request is kept.

    Args:
        generator: Draws the images.
        n: How many.
        folder: Made when missing.
        seed: Seed of the series.
        progress: Told each image.
        request: What tells this request from another, beside n and seed: kind, checkpoint, options, conditions.
        condition: What to ask for; sample i gets number i modulo its length.
        names: What to call these conditions in the manifest; the conditions themselves when not given.
        watch: Sees every image that is drawn.

    Raises:
        ConfigError: The folder holds something else, or cannot be resumed.
        PluginError: The generator returned another number of images than it was asked for.
    """
    _claim(generator, folder, {"schema": _SCHEMA, **(request or {}), "n": n, "seed": seed})
    chosen = _read_chosen(folder)
    there = {path.stem for path in folder.iterdir()}
    with progress.stage("sampling", n) as stage, (folder / _CHOSEN).open("a", encoding="utf-8") as log:
        for first in range(0, n, CHUNK):
            count = min(CHUNK, n - first)
            missing = [i for i in range(first, first + count) if _name(i) not in there]
            if missing:
                batch = _draw(generator, count, seed, first, condition, watch)
                labels = _labels(batch, first, condition, names)
                for i, label in labels.items():
                    if i not in chosen:
                        chosen[i] = label
                        log.write(json.dumps([i, label]) + "\n")
                log.flush()
                write_set(folder, _named(batch.pixels, first, missing), generator.spec.intensity)
            stage.advance(count)
    if chosen:
        _write_manifest(folder, n, chosen, generator.conditions.kind)
    (folder / _CHOSEN).unlink()


def _claim(generator: Generator, folder: Path, request: Mapping[str, Any]) -> None:
    """Take an empty folder, or one that the same request has begun."""
    record = folder / RECORD
    content = (json.dumps(request, indent=1, sort_keys=True) + "\n").encode()
    if not folder.exists() or not any(folder.iterdir()):
        ensure_folder(folder)
        write_atomically(record, content)
        return
    if not record.is_file() or record.read_bytes() != content:
        raise ConfigError(f"{folder} is not empty, and holds no samples of this request; choose a new folder")
    if not generator.caps.seedable:
        raise ConfigError(f"{folder} is begun, but this generator cannot repeat itself; choose a new folder")
    for partial in folder.glob(".*.partial"):
        partial.unlink()


def _name(i: int) -> str:
    return f"sample-{i:06d}"


def _draw(
    generator: Generator,
    count: int,
    seed: int,
    first: int,
    condition: Sequence[Any] | None,
    watch: Observation | None,
) -> SampleBatch:
    began = time.perf_counter()
    asked = None if condition is None else [condition[i % len(condition)] for i in range(first, first + count)]
    try:
        # a generator that knows no conditions need not take the argument
        more = {} if asked is None else {"condition": asked}
        batch = generator.sample(count, seed=seed, first=first, **more)
    except MedtrustError:
        raise
    except Exception as error:
        raise PluginError(f"the generator failed while sampling: {type(error).__name__}: {error}") from error
    if len(batch.pixels) != count:
        raise PluginError(f"the generator was asked for {count} images and returned {len(batch.pixels)}")
    if watch is not None:
        watch.see(batch, first, time.perf_counter() - began)
    return batch


def _named(pixels: np.ndarray, first: int, missing: Sequence[int]) -> Iterator[tuple[str, np.ndarray]]:
    return ((_name(i), pixels[i - first]) for i in missing)


def _labels(
    batch: SampleBatch, first: int, condition: Sequence[Any] | None, names: Sequence[str] | None
) -> dict[int, str]:
    """Say in words what each sample was asked for; empty where there is nothing to say."""
    places = range(first, first + len(batch.pixels))
    if condition is not None and names is not None:
        return {i: str(names[i % len(condition)]) for i in places}
    values = batch.condition
    if values is None and condition is not None:
        values = [condition[i % len(condition)] for i in places]
    if values is None or not all(isinstance(value, (str, int, float, tuple)) for value in values):
        return {}
    return {i: "|".join(v) if isinstance(v, tuple) else str(v) for i, v in zip(places, values, strict=True)}


def _read_chosen(folder: Path) -> dict[int, str]:
    """Read what an earlier run noted: in the manifest if it ended, else in its log, whose last line may be torn."""
    chosen: dict[int, str] = {}
    manifest, path = folder / MANIFEST, folder / _CHOSEN
    if manifest.is_file():
        with manifest.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))[1:]
        chosen = {i: row[2] for i, row in enumerate(rows)}
    if not path.is_file():
        return chosen
    *whole, _ = path.read_text(encoding="utf-8").split("\n")
    for line in whole:
        i, label = json.loads(line)
        chosen[int(i)] = str(label)
    path.write_text("".join(line + "\n" for line in whole), encoding="utf-8")
    return chosen


def _write_manifest(folder: Path, n: int, chosen: Mapping[int, str], kind: str) -> None:
    suffixes = {path.stem: path.suffix for path in folder.iterdir()}
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("file", "patient", "label" if kind in ("label", "multilabel") else "condition"))
    rows.writerows((f"{_name(i)}{suffixes[_name(i)]}", _name(i), chosen.get(i, "")) for i in range(n))
    write_atomically(folder / MANIFEST, text.getvalue().encode())
