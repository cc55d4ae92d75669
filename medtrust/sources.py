"""From what the user named, a path or a generator, to an image set."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from medtrust.errors import ConfigError
from medtrust.images import ImageSet, Readers, open_set, write_set
from medtrust.types import Intensity, SetName

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from medtrust.host import Contribution, Host
    from medtrust.progress import Progress
    from medtrust.types import Generator, ImageReader

__all__ = ["GeneratorSource", "open_generator", "open_source", "parse_source", "readers_of", "sample_to"]

_SPEC = re.compile(r"(?P<kind>[A-Za-z][\w./-]*)(?::(?P<path>[^?]*))?(?:\?(?P<options>.*))?", re.DOTALL)
CHUNK = 64


@dataclass(frozen=True, slots=True)
class GeneratorSource:
    """A parsed `kind:path?option=value`."""

    kind: str
    path: Path | None
    options: Mapping[str, str]


def parse_source(text: str | Path, kinds: Callable[[str], bool]) -> Path | GeneratorSource:
    """Tell a path from a generator.

    Args:
        text: What the user gave.
        kinds: Says whether a name is a known kind of generator.

    Raises:
        ConfigError: It is neither.
    """
    path = Path(text)
    if path.exists():
        return path
    match = _SPEC.fullmatch(str(text))
    if match and kinds(match["kind"]):
        options = dict(parse_qsl(match["options"] or "", keep_blank_values=True))
        return GeneratorSource(match["kind"], Path(match["path"]) if match["path"] else None, options)
    raise ConfigError(
        f"{text} does not exist; give a folder, a manifest.csv, an .npz, or a generator as kind:path?option=value "
        "(see `medtrust plugins list`)"
    )


def _title(source: Path) -> str:
    place = source.resolve()
    return place.parent.name if place.name == "manifest.csv" else place.name


def readers_of(host: Host) -> Readers:
    """Collect the file formats that the installed plugins read."""
    usable = [c for c in host.contributions("format") if c.status == "ok"]
    return Readers([(c.spec, partial(_reader, host, c)) for c in usable])


def _reader(host: Host, contribution: Contribution) -> ImageReader:
    reader: ImageReader = host.load(contribution)()
    return reader


def open_generator(source: GeneratorSource, host: Host, device: str) -> Generator:
    """Open a generator through its plugin."""
    factory = host.load(host.find("generator", source.kind))()
    if source.path is not None and not source.path.exists():
        raise ConfigError(f"{source.path} does not exist; it was named as the checkpoint of generator {source.kind}")
    generator: Generator = factory.open(source.path, source.options, device)
    return generator


def sample_to(generator: Generator, n: int, folder: Path, *, seed: int, progress: Progress) -> None:
    """Sample `n` images into a folder that `open_set` can read."""
    with progress.stage("sampling", n) as stage:

        def images() -> Iterator[tuple[str, np.ndarray]]:
            for first in range(0, n, CHUNK):
                batch = generator.sample(min(CHUNK, n - first), seed=seed, first=first)
                for i, pixels in enumerate(batch.pixels):
                    yield f"sample-{first + i:06d}", pixels
                    stage.advance()

        write_set(folder, images(), generator.intensity)


def open_source(
    text: str | Path,
    name: SetName,
    host: Host,
    *,
    patients: str | None,
    intensity: Intensity | None,
    samples: Path,
    n: int,
    seed: int,
    device: str,
    progress: Progress,
) -> tuple[ImageSet, dict[str, str | int]]:
    """Open a set; a generator is sampled into `samples` first.

    Returns:
        The set, and what to say of the subject in the report: kind, name and how it was sampled.
    """
    known = {c.spec.name for c in host.contributions("generator")} | {
        c.full_name for c in host.contributions("generator")
    }
    source = parse_source(text, known.__contains__)
    if isinstance(source, Path):
        images = open_set(source, name, readers_of(host), patients=patients, intensity=intensity)
        return images, {"kind": "folder", "name": _title(source)}
    generator = open_generator(source, host, device)
    # samples of an earlier run with another seed or n would join the set
    shutil.rmtree(samples, ignore_errors=True)
    sample_to(generator, n, samples, seed=seed, progress=progress)
    images = open_set(samples, name, readers_of(host), intensity=intensity or generator.intensity)
    family = host.find("generator", source.kind).spec.family
    subject = {"kind": family, "name": source.path.name if source.path else source.kind, "generator": source.kind}
    return images, {**subject, "n": n, "seed": seed}
