"""Bring one archive from the user's package index through pip, without running a line of what it holds.

pip knows the user's index, proxy, certificates and credentials, so it does the fetching. A wheel is only downloaded.
For a source archive pip insists on asking its build system for metadata, which would run foreign code; a build system
of ours stands in under the same name and answers from the archive's PKG-INFO. pip compares the pinned SHA-256 first.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from medtrust.errors import DataError, SafetyError

__all__ = ["fetch_archive", "sha256_of"]

TIMEOUT_SECONDS = 1800
_BUILD_SYSTEMS = ("setuptools/build_meta.py", "hatchling/build.py")

_STAND_IN = '''\
"""Answers pip's question for metadata from PKG-INFO and builds nothing."""

import pathlib
import shutil
import sys

__legacy__ = sys.modules[__name__]


def get_requires_for_build_wheel(config_settings=None):
    return []


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    folder = pathlib.Path(metadata_directory, "fetched.dist-info")
    folder.mkdir()
    shutil.copyfile("PKG-INFO", folder / "METADATA")
    return folder.name


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    raise RuntimeError("this archive is data; it is not built")
'''


def fetch_archive(package: str, version: str, sha256: str, folder: Path, flags: Sequence[str] = ()) -> Path:
    """Download one wheel or source archive and check its digest.

    Args:
        package: Name on the package index.
        version: Exact version.
        sha256: Digest of the archive in hexadecimal; nothing else is accepted.
        folder: Where the archive goes; made when missing.
        flags: Further options of `pip download` that select the file, such as `--no-binary :all:`.

    Returns:
        The archive.

    Raises:
        DataError: There is no pip, or the index does not answer or does not hold the file.
        SafetyError: The file that came has another digest.
    """
    if importlib.util.find_spec("pip") is None:
        raise DataError(
            f"{package} {version} is fetched with pip, which this Python lacks; run `{sys.executable} -m ensurepip`"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="medtrust-fetch-") as name:
        place = Path(name)
        for module in _BUILD_SYSTEMS:
            stand_in = place / "stand-in" / module
            stand_in.parent.mkdir(parents=True)
            (stand_in.parent / "__init__.py").touch()
            stand_in.write_text(_STAND_IN)
        (place / "wanted.txt").write_text(f"{package}=={version} --hash=sha256:{sha256}\n")
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"),
            *("--no-deps", "--require-hashes", "--no-build-isolation", "--use-pep517", "--dest", str(place / "got")),
            *(flags or ("--only-binary", ":all:")),
            *("--requirement", str(place / "wanted.txt")),
        ]
        environment = {**os.environ, "PYTHONPATH": str(place / "stand-in")}
        _run(command, environment, f"{package} {version}")
        got = sorted((place / "got").iterdir())
        if len(got) != 1:
            raise DataError(f"pip brought {len(got)} files for {package} {version} instead of one; try again")
        found = sha256_of(got[0])
        if found != sha256:
            raise SafetyError(f"{got[0].name} has the SHA-256 {found}, not the pinned {sha256}; it was not kept")
        target = folder / got[0].name
        # The temporary folder may lie on another disk, so copy beside the target and rename.
        partial = folder / f".{target.name}.{os.getpid()}"
        partial.write_bytes(got[0].read_bytes())
        return partial.replace(target)


def sha256_of(path: Path) -> str:
    """Hash a file, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _run(command: list[str], environment: dict[str, str], what: str) -> None:
    try:
        done = subprocess.run(  # noqa: S603, an argument list of our own, without a shell
            command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(f"pip did not bring {what} within {TIMEOUT_SECONDS} s; check the connection") from error
    if done.returncode == 0:
        return
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise SafetyError(f"the package index offers another {what} than the pinned one; nothing was kept")
    lines = [line for line in done.stderr.splitlines() if line.lower().startswith(("error", "×"))]
    reason = re.sub(r"^(error: |× )", "", lines[-1], flags=re.IGNORECASE) if lines else f"exit status {done.returncode}"
    raise DataError(f"pip could not bring {what} ({reason}); check the connection and pip's index settings")
