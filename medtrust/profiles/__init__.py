"""Ready settings for one medical discipline, one TOML file each: data, no code."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from medtrust.errors import ConfigError

__all__ = ["READY_PROFILES", "read_profile"]

READY_PROFILES = ("ct", "mr", "xray", "pathology", "dermatology", "ophthalmology")


def read_profile(source: str) -> Mapping[str, Any]:
    """Read the settings of a profile.

    Args:
        source: Name of a ready profile, or the path of a .toml file.

    Returns:
        Settings by key, as in medtrust.toml, and `plugins` with options by plugin.

    Raises:
        ConfigError: It does not exist, is not TOML, or has no title or reason.
    """
    ready = source in READY_PROFILES
    path = files("medtrust").joinpath("profiles", f"{source}.toml") if ready else Path(source)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigError(
            f"profile {source} cannot be read ({problem.strerror}); give a .toml file or one of "
            f"{', '.join(READY_PROFILES)}"
        ) from problem
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigError(f"profile {source} is not valid TOML ({problem}); correct the file") from problem
    for name in ("title", "why"):
        if not isinstance(table.pop(name, None), str):
            raise ConfigError(f'profile {source} lacks {name} = "…"; say for which images its settings are, and why')
    return table
