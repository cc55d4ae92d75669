"""The CPU kernels without Python, under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import ast
import os
import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCES = [HERE / "kernels.cpp", *sorted((HERE.parents[1] / "csrc" / "cpu").glob("*.cpp"))]
CXX = shutil.which("g++") or shutil.which("clang++")
X86 = platform.machine().lower() in ("x86_64", "amd64")
SETUP = HERE.parents[1] / "setup.py"


def flag_tables() -> dict[str, dict[str, list[str]]]:
    """ISA_FLAGS and MATRIX_FLAGS of setup.py, which cannot be imported without building."""
    wanted = [
        node
        for node in ast.parse(SETUP.read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("ISA_FLAGS", "MATRIX_FLAGS")
    ]
    found: dict[str, dict[str, list[str]]] = {}
    exec(compile(ast.Module(wanted, []), str(SETUP), "exec"), found)
    return found


ISA_FLAGS, MATRIX_FLAGS = (flag_tables()[name] for name in ("ISA_FLAGS", "MATRIX_FLAGS"))
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """The test program and all kernels, built with the sanitizers."""
    if CXX is None:
        pytest.skip("no C++ compiler on the PATH")
    folder = tmp_path_factory.mktemp("kernels")
    probe = folder / "probe.cpp"
    probe.write_text("int main() { return 0; }\n")

    def accepts(*flags: str) -> bool:
        command = [CXX, *flags, str(probe), "-o", str(folder / "probe")]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    if not accepts(*SANITIZE):
        pytest.skip("the compiler has no address and undefined-behaviour sanitizers")
    common = [CXX, "-std=c++17", "-O1", "-g1", "-Wno-psabi", "-fopenmp", *SANITIZE]
    common += ["-DMEDTRUST_X86"] if X86 else []
    matrix = X86 and accepts(*(flag for flags in MATRIX_FLAGS.values() for flag in flags))
    common += ["-DMEDTRUST_MATRIX"] if matrix else []

    def compiled(source: Path) -> Path | None:
        isa = source.stem.rpartition("_")[2]
        if (isa in ISA_FLAGS and isa != "scalar" and not X86) or (isa in MATRIX_FLAGS and not matrix):
            return None
        target = folder / f"{source.stem}.o"
        command = [*common, *(MATRIX_FLAGS.get(isa) or ISA_FLAGS.get(isa, [])), "-c", str(source), "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = [str(target) for target in pool.map(compiled, SOURCES) if target]
    done = subprocess.run([*common, *objects, "-o", str(folder / "kernels")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "kernels"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("isa", "matrix"),
    [("scalar", "none"), ("avx2", "none"), ("avx512", "none"), ("avx512", "avx512bf16"), ("avx512", "amx")],
)
def test_kernels_stay_within_their_buffers(program, isa, matrix):
    """Every CPU kernel takes empty, single, odd and extreme input without a report, and gives known values."""
    environment = {**os.environ, "MEDTRUST_CPU": isa, "MEDTRUST_MATRIX": matrix, "ASAN_OPTIONS": "detect_leaks=1"}
    done = subprocess.run([str(program)], env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip(f"cannot be forced here: {done.stdout.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == [isa, "0", "failures"]
