"""setup.py: what it builds, and what it says when it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def build(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Build the extension from the repository into tmp_path."""
    command = [
        sys.executable,
        "setup.py",
        "-q",
        "build_ext",
        f"--build-lib={tmp_path}/lib",
        f"--build-temp={tmp_path}/temp",
    ]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("MEDTRUST_") and k not in ("CXX", "CUDA_HOME")}
    return subprocess.run(
        command, cwd=ROOT, env={**inherited, **environment}, capture_output=True, text=True, check=False
    )


def built(tmp_path: Path) -> list[Path]:
    return list(tmp_path.glob("lib/medtrust/_C*"))


def test_without_compiler_nothing_is_built_and_the_build_succeeds(tmp_path):
    """Without a compiler the package installs, and one warning says what will be slower."""
    done = build(tmp_path, CXX="/nowhere/c++")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("WARNING") == 1
    assert "SSIM, nearest neighbours" in done.stderr
    assert built(tmp_path) == []


def test_cuda_without_nvcc_stops_with_the_fix(tmp_path):
    """MEDTRUST_CUDA=1 without nvcc stops before compiling and says how to get it."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler on the PATH")
    done = build(tmp_path, MEDTRUST_CUDA="1", CXX=compiler, PATH=str(tmp_path))
    assert done.returncode != 0
    assert "MEDTRUST_CUDA=1 needs nvcc: install the CUDA toolkit, or set CUDA_HOME to it" in done.stderr


def test_unknown_wish_is_refused(tmp_path):
    """A misspelt MEDTRUST_CUDA is an error, not a guess."""
    if shutil.which("c++") is None and shutil.which("g++") is None:
        pytest.skip("no C++ compiler on the PATH")
    done = build(tmp_path, MEDTRUST_CUDA="yes")
    assert done.returncode != 0
    assert "not one of auto, 0, 1" in done.stderr


def tools(folder: Path, *names: str) -> str:
    """A PATH with these programs alone."""
    folder.mkdir()
    for name in names:
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not on the PATH")
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec {found} "$@"\n')
        script.chmod(0o755)
    return str(folder)


@pytest.mark.slow
def test_package_installs_without_a_compiler(tmp_path):
    """pip installs the package where no compiler is on the PATH; the ops then run, with one warning each."""
    source = tmp_path / "source"
    kept = ("csrc", "medtrust", "plugins", "setup.py", "pyproject.toml", "README.md", "LICENSE")
    for name in kept:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith("MEDTRUST_") and k not in ("CXX", "PYTHONPATH")
    }
    environment["PATH"] = tools(tmp_path / "bin")
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "-v", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*command, f"--target={target}", str(source)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "no supported C++ compiler was found, so the native kernels are left out" in done.stdout + done.stderr
    assert not list(target.glob("medtrust/_C*"))
    code = (
        # an editable install of the tests' own environment would lend its extension to the package under test
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]\n"
        "import warnings, torch; from medtrust import ops; import medtrust; print(medtrust.__file__)\n"
        "x = torch.rand(1, 1, 16, 16)\n"
        "with warnings.catch_warnings(record=True) as caught: value = ops.ssim(x, x, data_range=1)\n"
        "print(ops.info()['native'], float(value), len(caught))"
    )
    environment["PYTHONPATH"] = str(target)
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert told.stdout.split() == [str(target / "medtrust" / "__init__.py"), "False", "1.0", "1"], told.stderr


@pytest.mark.slow
def test_compiler_alone_builds_for_the_cpu(tmp_path):
    """With a C++ compiler and no nvcc the build says that it leaves CUDA out, and why."""
    done = build(tmp_path, PATH=tools(tmp_path / "bin", "c++", "as", "ld"))
    assert done.returncode == 0, done.stderr
    assert "building for the CPU alone (nvcc is not here; MEDTRUST_CUDA=1" in done.stderr
    (library,) = built(tmp_path)
    assert facts_of(library) == ["False"]


def facts_of(library: Path) -> list[str]:
    """What a built extension says about CUDA, in a fresh interpreter."""
    code = f"import sys; sys.path.insert(0, {str(library.parent)!r}); import _C; print(_C.with_cuda, _C.archs)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    return told.stdout.split()


def test_cuda_sources_compile_without_a_device(tmp_path):
    """Where nvcc is found, the CUDA kernels build for a named architecture and the extension says so."""
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not on the PATH")
    done = build(tmp_path, MEDTRUST_CUDA="1", MEDTRUST_CUDA_ARCHS="90")
    assert done.returncode == 0, done.stderr
    (library,) = built(tmp_path)
    assert facts_of(library) == ["True", "90"]


@pytest.mark.slow
def test_second_build_compiles_nothing(tmp_path):
    """A build with nothing changed keeps every object."""
    if shutil.which("c++") is None and shutil.which("g++") is None:
        pytest.skip("no C++ compiler on the PATH")
    assert build(tmp_path, MEDTRUST_CUDA="0").returncode == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("temp/**/*.o")}
    assert len(before) >= 5
    assert build(tmp_path, MEDTRUST_CUDA="0").returncode == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("temp/**/*.o")} == before
