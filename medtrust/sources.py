"""From what the user named, a path or a generator, to an image set."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from medtrust.errors import ConfigError, PluginError
from medtrust.images import ImageSet, Readers, open_set
from medtrust.sampling import sample_to
from medtrust.types import Intensity, SetName

if TYPE_CHECKING:
    from medtrust.host import Contribution, Host
    from medtrust.inspection import Observation
    from medtrust.progress import Progress
    from medtrust.types import Generator, ImageReader

__all__ = ["GeneratorSource", "open_generator", "open_source", "parse_source", "readers_of", "request_of"]

_SPEC = re.compile(r"(?P<kind>[A-Za-z][\w./-]*)(?::(?P<path>[^?]*))?(?:\?(?P<options>.*))?", re.DOTALL)


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
    generator = factory.open(source.path, source.options, device)
    missing = [name for name in ("spec", "conditions", "caps", "sample") if not hasattr(generator, name)]
    if missing:
        raise PluginError(
            f"generator {source.kind} has no {' and no '.join(missing)}; its authors can derive it from "
            "medtrust.Generator, and `medtrust.types.Generator` says what each one is"
        )
    checked: Generator = generator
    return checked


def request_of(source: GeneratorSource, version: str) -> dict[str, object]:
    """Say what tells one request for samples from another: kind, version, options, and the checkpoint's files."""
    files: list[list[object]] = []
    if source.path is not None:
        top = source.path
        paths = sorted(path for path in top.rglob("*") if path.is_file()) if top.is_dir() else [top]
        files = [[path.relative_to(top).as_posix(), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
    state = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    return {"kind": source.kind, "version": version, "options": dict(source.options), "checkpoint": state}


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
    watch: Observation | None = None,
) -> tuple[ImageSet, dict[str, str | int], Generator | None]:
    """Open a set; a generator is sampled into `samples` first.

    Returns:
        The set, what to say of the subject in the report (kind, name and how it was sampled), and the generator.
    """
    known = {c.spec.name for c in host.contributions("generator")} | {
        c.full_name for c in host.contributions("generator")
    }
    source = parse_source(text, known.__contains__)
    if isinstance(source, Path):
        images = open_set(source, name, readers_of(host), patients=patients, intensity=intensity)
        return images, {"kind": "folder", "name": _title(source)}, None
    generator = open_generator(source, host, device)
    # samples of an earlier run with another seed or n would join the set
    shutil.rmtree(samples, ignore_errors=True)
    spec = host.find("generator", source.kind).spec
    request = request_of(source, spec.version)
    sample_to(generator, n, samples, seed=seed, progress=progress, request=request, watch=watch)
    images = open_set(samples, name, readers_of(host), intensity=intensity or generator.spec.intensity)
    family = spec.family
    subject = {"kind": family, "name": source.path.name if source.path else source.kind, "generator": source.kind}
    return images, {**subject, "trust": generator.caps.trust, "n": n, "seed": seed}, generator
