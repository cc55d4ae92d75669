"""What import-linter cannot see: the compiled extension, and the front doors that the README promises."""

from __future__ import annotations

import ast
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*(ROOT / "medtrust").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")])


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_only_native_imports_the_extension():
    """One file imports the extension, so that one file knows what to do without it."""
    touching = [p.relative_to(ROOT).as_posix() for p in SOURCES if any("_C" in n.split(".") for n in _imports(p))]
    assert touching in ([], ["medtrust/ops/_native.py"])
    assert "_C" in (ROOT / "medtrust/ops/_native.py").read_text()


def test_plugins_use_the_public_road_only():
    """A built-in plugin imports nothing private of the host: what a stranger cannot do, it cannot."""
    private = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in SOURCES
        if path.is_relative_to(ROOT / "plugins")
        for name in _imports(path)
        if name.startswith("medtrust.")
        and any(part.startswith("_") and part != "__version__" for part in name.split("."))
    }
    assert private == set()


def test_files_stay_short():
    """A file that one cannot hold in one's head is split."""
    long = {p.relative_to(ROOT).as_posix(): n for p in SOURCES if (n := len(p.read_text().splitlines())) > 450}
    assert long == {}


def test_the_wheel_holds_every_package_and_its_data():
    """What an editable install finds anyway is named in pyproject.toml, or a wheel would lack it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    homes = {"medtrust": ROOT / "medtrust", **{p.name: p for p in (ROOT / "plugins").glob("medtrust_*")}}
    packages = {
        ".".join((top, *init.parent.relative_to(home).parts)): init.parent
        for top, home in homes.items()
        for init in home.rglob("__init__.py")
        if "templates" not in init.parts
    }
    assert set(project["packages"]) == set(packages)
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in files:
        path = ROOT / name
        owner = max((p for p in packages.values() if path.is_relative_to(p)), key=lambda p: len(p.parts), default=None)
        if owner is None or (path.suffix == ".py" and "templates" not in path.parts):
            continue
        package = next(n for n, p in packages.items() if p == owner)
        shipped = project["package-data"].get(package, [])
        assert any(path.relative_to(owner).match(pattern) for pattern in shipped), f"{name} would not be in the wheel"
