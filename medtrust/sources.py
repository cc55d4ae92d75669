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
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from medtrust.conditions import read_conditions
from medtrust.errors import ConfigError, PluginError, SafetyError
from medtrust.fingerprint import fingerprint
from medtrust.images import ImageSet, Readers, Slices, open_set
from medtrust.sampling import sample_to
from medtrust.types import TRUST_TIERS, Intensity, SetName

if TYPE_CHECKING:
    from medtrust.host import Contribution, Host
    from medtrust.inspection import Observation
    from medtrust.progress import Progress
    from medtrust.types import Generator, GeneratorSpec, ImageReader

__all__ = [
    "GeneratorSource",
    "describe_generator",
    "open_generator",
    "open_source",
    "parse_source",
    "readers_of",
    "request_of",
]

_SPEC = re.compile(r"(?P<kind>[A-Za-z][\w./-]*)(?::(?P<path>[^?]*))?(?:\?(?P<options>.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class GeneratorSource:
    """A parsed `kind:path?option=value`.

    Args:
        kind: Name of the generator.
        path: What stands after the colon, as a path; None where nothing does.
        options: The options, as text.
        target: What stands after the colon, as it was written.
    """

    kind: str
    path: Path | None
    options: Mapping[str, str]
    target: str = ""


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
        target = match["path"] or ""
        return GeneratorSource(match["kind"], Path(target) if target else None, options, target)
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


def open_generator(
    source: GeneratorSource, host: Host, device: str, *, allow_code: bool = False, offline: bool = False
) -> Generator:
    """Open a generator through its plugin, if what its spec declares is allowed here.

    Args:
        source: Which generator, and its artefact.
        host: Finds the plugin.
        device: cpu or cuda.
        allow_code: The artefact may bring code and have it run.
        offline: No socket may be opened.

    Raises:
        ConfigError: The artefact does not exist, or the generator's extra is not installed.
        SafetyError: The generator runs code that comes with its artefact, and that was not allowed.
    """
    contribution = host.find("generator", source.kind)
    spec: GeneratorSpec = contribution.spec
    if spec.trust == "code" and not allow_code:
        raise SafetyError(
            f"generator {source.kind} runs code that comes with its artefact; "
            "if you trust where it came from, allow that with --allow-code"
        )
    if spec.network and offline:
        raise ConfigError(f"generator {source.kind} talks to a service, which --offline forbids; run with --online")
    if contribution.status != "ok":
        raise ConfigError(f"generator {source.kind} cannot be used: {contribution.status}")
    factory = host.load(contribution)()
    if spec.target == "path" and source.path is not None and not source.path.exists():
        raise ConfigError(f"{source.path} does not exist; it was named as the artefact of generator {source.kind}")
    generator = factory.open(source.target if spec.target == "text" else source.path, source.options, device)
    missing = [name for name in ("spec", "conditions", "caps", "sample") if not hasattr(generator, name)]
    if missing:
        raise PluginError(
            f"generator {source.kind} has no {' and no '.join(missing)}; its authors can derive it from "
            "medtrust.Generator, and `medtrust.types.Generator` says what each one is"
        )
    checked: Generator = generator
    return checked


def describe_generator(source: GeneratorSource, generator: Generator, host: Host) -> dict[str, Any]:
    """Say in the report what was sampled from: its kind and name, its trust tier, and which artefact it was exactly.

    A generator that has an `artifact` attribute adds those facts to the artefact's digest. Of the tiers that the spec
    and the generator state, the less trusting one counts.
    """
    spec: GeneratorSpec = host.find("generator", source.kind).spec
    artifact: dict[str, Any] = {"format": spec.name, **getattr(generator, "artifact", {})}
    if spec.target == "path" and source.path is not None:
        artifact |= fingerprint(source.path)
    name = source.path.name if source.path else source.kind
    trust = max(spec.trust, generator.caps.trust, key=TRUST_TIERS.index)
    return {"kind": spec.family, "name": name, "generator": source.kind, "trust": trust, "artifact": artifact}


def request_of(source: GeneratorSource, version: str) -> dict[str, object]:
    """Say what tells one request for samples from another: kind, version, options, and the checkpoint's files."""
    files: list[list[object]] = []
    if source.path is not None and source.path.exists():
        top = source.path
        paths = sorted(path for path in top.rglob("*") if path.is_file()) if top.is_dir() else [top]
        files = [[path.relative_to(top).as_posix(), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
    elif source.target:
        files = [[source.target]]
    state = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    return {"kind": source.kind, "version": version, "options": dict(source.options), "checkpoint": state}


def open_source(
    text: str | Path,
    name: SetName,
    host: Host,
    *,
    patients: str | None,
    intensity: Intensity | None,
    slices: Slices | None,
    samples: Path,
    n: int,
    seed: int,
    device: str,
    progress: Progress,
    watch: Observation | None = None,
    condition: str | None = None,
    allow_code: bool = False,
    offline: bool = False,
) -> tuple[ImageSet, dict[str, Any], Generator | None]:
    """Open a set; a generator is sampled into `samples` first.

    Returns:
        The set, what to say of the subject in the report (kind, name and how it was sampled), and the generator.
    """
    known = {c.spec.name for c in host.contributions("generator")} | {
        c.full_name for c in host.contributions("generator")
    }
    source = parse_source(text, known.__contains__)
    if isinstance(source, Path):
        if condition is not None:
            raise ConfigError(f"--condition asks a generator, and {source} holds images; leave it out")
        images = open_set(source, name, readers_of(host), patients=patients, intensity=intensity, slices=slices)
        return images, {"kind": "folder", "name": _title(source)}, None
    generator = open_generator(source, host, device, allow_code=allow_code, offline=offline)
    # samples of an earlier run with another seed or n would join the set
    shutil.rmtree(samples, ignore_errors=True)
    request = request_of(source, host.find("generator", source.kind).spec.version)
    asked, names = None, None
    if condition is not None:
        asked, names, request["condition"] = read_conditions(condition, generator.conditions, readers_of(host))
    sample_to(
        generator,
        n,
        samples,
        seed=seed,
        progress=progress,
        request=request,
        condition=asked,
        names=names,
        watch=watch,
    )
    images = open_set(samples, name, readers_of(host), intensity=intensity or generator.spec.intensity)
    told = {**describe_generator(source, generator, host), "n": n, "seed": seed}
    return images, {**told, "condition": request["condition"]} if condition is not None else told, generator
