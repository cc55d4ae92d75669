"""From a name and a kind to a folder that `pip install` takes."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from pathlib import Path

import jinja2

from medtrust.errors import ConfigError
from medtrust.hookspecs import API_VERSION

__all__ = ["KINDS", "check_name", "write_plugin"]

KINDS = ("metric", "generator", "features", "explainer", "format")
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_COMMON = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "gitignore": ".gitignore",
    "ci.yml": ".github/workflows/ci.yml",
    "init.py": "src/{package}/__init__.py",
    "py.typed": "src/{package}/py.typed",
}
_OF_KIND = {
    "plugin.py": "src/{package}/plugin.py",
    "module.py": "src/{package}/{module}.py",
    "test_conformance.py": "tests/test_conformance.py",
    "test_module.py": "tests/test_{module}.py",
}


def check_name(name: str) -> str:
    """Check the name of a distribution that is to be made, and return the name of its package.

    Raises:
        ConfigError: It is no good name, or one that something else has.
    """
    if not _NAME.fullmatch(name) or len(name) > 60:
        raise ConfigError(
            f"{name!r} is no name for a distribution: lower-case letters, digits and single hyphens, a letter first, "
            "such as edge-sharpness"
        )
    package = name.replace("-", "_")
    if keyword.iskeyword(package) or keyword.issoftkeyword(package):
        raise ConfigError(f"{name!r} is a word of Python; choose another name, such as medical-{name}")
    if name == "medtrust" or name.startswith("medtrust-"):
        raise ConfigError(f"{name!r}: names that begin with medtrust are those of medtrust itself; choose another")
    if package in sys.stdlib_module_names or importlib.util.find_spec(package) is not None:
        raise ConfigError(f"a package called {package} is installed already; choose another name than {name!r}")
    return package


def write_plugin(name: str, kind: str, folder: Path) -> tuple[Path, ...]:
    """Write a distribution into `folder`/`name`, which must not exist.

    Args:
        name: Name of the distribution, such as "edge-sharpness"; its package is `edge_sharpness`.
        kind: One of `KINDS`.
        folder: Where to put it.

    Returns:
        The files, in the order in which a reader wants them.

    Raises:
        ConfigError: The name is no good, there is no such kind, or something lies there already.
    """
    if kind not in KINDS:
        raise ConfigError(f"there is no kind {kind!r}; kinds: {', '.join(KINDS)}")
    package = check_name(name)
    target = folder / name
    words = {
        "name": name,
        "package": package,
        "module": {"format": "reader"}.get(kind, kind),
        "kind": kind,
        "title": name.replace("-", " ").capitalize(),
        "cls": "".join(part.capitalize() for part in name.split("-")),
        "api": API_VERSION,
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("medtrust.scaffold"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - it writes Python and TOML from a checked name, no HTML
    )
    files = {
        pattern.format_map(words): environment.get_template(f"{place}/{source}.j2").render(words)
        for place, patterns in ((kind, _OF_KIND), ("common", _COMMON))
        for source, pattern in patterns.items()
    }
    try:
        target.mkdir(parents=True)
    except FileExistsError as there:
        raise ConfigError(f"{target} exists already and is left as it is; choose another name or --folder") from there
    for place, text in files.items():
        (target / place).parent.mkdir(parents=True, exist_ok=True)
        (target / place).write_text(text, encoding="utf-8")
    return tuple(target / place for place in files)
