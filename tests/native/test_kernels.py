"""The CPU kernels without Python, under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

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
FLAGS = {
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"],
}
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """The test program and all kernels, built with the sanitizers."""
    if CXX is None:
        pytest.skip("no C++ compiler on the PATH")
    folder = tmp_path_factory.mktemp("kernels")
    probe = folder / "probe.cpp"
    probe.write_text("int main() { return 0; }\n")
    if subprocess.run([CXX, *SANITIZE, str(probe), "-o", str(folder / "probe")], capture_output=True).returncode:
        pytest.skip("the compiler has no address and undefined-behaviour sanitizers")
    common = [CXX, "-std=c++17", "-O1", "-g1", "-Wno-psabi", "-fopenmp", *SANITIZE]
    common += ["-DMEDTRUST_X86"] if X86 else []

    def compiled(source: Path) -> Path | None:
        isa = source.stem.rpartition("_")[2]
        if isa in FLAGS and not X86:
            return None
        target = folder / f"{source.stem}.o"
        command = [*common, *FLAGS.get(isa, []), "-c", str(source), "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = [str(target) for target in pool.map(compiled, SOURCES) if target]
    done = subprocess.run([*common, *objects, "-o", str(folder / "kernels")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "kernels"


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512"])
def test_kernels_stay_within_their_buffers(program, isa):
    """Every CPU kernel takes empty, single, odd and extreme input without a report, and gives known values."""
    environment = {**os.environ, "MEDTRUST_CPU": isa, "ASAN_OPTIONS": "detect_leaks=1"}
    done = subprocess.run([str(program)], env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip(f"cannot be forced here: {done.stdout.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == [isa, "0", "failures"]
