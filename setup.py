"""Builds the native extension; everything else is in pyproject.toml.

MEDTRUST_CUDA=auto|0|1      auto builds the CUDA kernels where both nvcc and an NVIDIA driver are present
MEDTRUST_CUDA_ARCHS=80;90   architectures for the CUDA kernels; the last one is kept as PTX too
"""

from __future__ import annotations

import concurrent.futures
import ctypes.util
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
CSRC = ROOT / "csrc"
DEFAULT_ARCHS = ("80", "86", "89", "90", "100", "120")
X86 = platform.machine().lower() in ("x86_64", "amd64")
# Never -march=native: each translation unit names its own instruction set and cpuid picks at run time.
ISA_FLAGS = {
    "scalar": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"],
}
# Matrix units, each with its flags beside AVX-512's; left out together where the compiler does not know one of them.
MATRIX_FLAGS = {
    "avx512bf16": [*ISA_FLAGS["avx512"], "-mavx512bf16"],
    "amx": [*ISA_FLAGS["avx512"], "-mamx-tile", "-mamx-int8", "-mamx-bf16"],
}
SLOWER = "SSIM, nearest neighbours, PRDC and MMD will run on their torch twins, 3 to 100 times slower."


class BuildStop(SystemExit):
    """Ends the build with one sentence that says what to do."""


def find_nvcc() -> str | None:
    """Path of nvcc, from CUDA_HOME or PATH."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if home and (Path(home) / "bin" / "nvcc").exists():
        return str(Path(home) / "bin" / "nvcc")
    return shutil.which("nvcc")


def driver_archs() -> list[str]:
    """Compute capabilities of the devices that the installed NVIDIA driver shows; empty without a driver."""
    name = ctypes.util.find_library("cuda")
    if name is None:
        return []
    cuda = ctypes.CDLL(name)
    count = ctypes.c_int(0)
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    archs = set()
    for device in range(count.value):
        major, minor = ctypes.c_int(), ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device)  # COMPUTE_CAPABILITY_MAJOR
        cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
        archs.add(f"{major.value}{minor.value}")
    return sorted(archs, key=int)


def choose_cuda() -> tuple[str | None, list[str]]:
    """nvcc and the architectures to build for, or (None, []) for the CPU alone."""
    wish = os.environ.get("MEDTRUST_CUDA", "auto")
    if wish not in ("auto", "0", "1"):
        raise BuildStop(f"medtrust: MEDTRUST_CUDA={wish} is not one of auto, 0, 1.")
    named = [a for a in os.environ.get("MEDTRUST_CUDA_ARCHS", "").replace(",", ";").split(";") if a]
    nvcc = find_nvcc()
    if wish == "0":
        return None, []
    if wish == "1":
        if nvcc is None:
            raise BuildStop("medtrust: MEDTRUST_CUDA=1 needs nvcc: install the CUDA toolkit, or set CUDA_HOME to it.")
        return nvcc, named or supported(nvcc, DEFAULT_ARCHS)
    devices = driver_archs() if nvcc else []
    if not devices:
        missing = "nvcc" if nvcc is None else "an NVIDIA driver with a device"
        say(f"building for the CPU alone ({missing} is not here; MEDTRUST_CUDA=1 builds the CUDA kernels regardless)")
        return None, []
    return nvcc, named or devices


def supported(nvcc: str, archs: tuple[str, ...]) -> list[str]:
    """Those of the architectures that this nvcc can compile for."""
    listing = subprocess.run(  # noqa: S603 - the compiler that the builder chose
        [nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True
    ).stdout
    return [arch for arch in archs if f"compute_{arch}" in listing.split()]


def say(line: str) -> None:
    """One line to the person at the keyboard; pip shows it with -v."""
    print(f"medtrust: {line}", file=sys.stderr)


class BuildNative(build_ext):
    """Compiles each source with its own flags, in parallel and only where something changed."""

    def run(self) -> None:
        """Build, or install without the extension where there is no compiler at all."""
        if sys.platform == "win32" or self.compiler_command() is None:
            say(f"WARNING: no supported C++ compiler was found, so the native kernels are left out. {SLOWER}")
            self.extensions = []
            return
        super().run()

    def compiler_command(self) -> str | None:
        """The C++ compiler: CXX, else the first of c++, g++ and clang++ on the PATH."""
        names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
        return next((found for name in names if (found := shutil.which(name))), None)

    def build_extension(self, ext: Extension) -> None:
        """Compile csrc/ into one shared library."""
        import pybind11  # a build requirement, absent when only metadata is asked for

        cxx = self.compiler_command()
        assert cxx is not None
        nvcc, archs = choose_cuda()
        includes = [f"-I{sysconfig.get_paths()['include']}", f"-I{pybind11.get_include()}"]
        openmp = openmp_flags(cxx, Path(self.build_temp))
        common = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-Wall", "-Wextra"]
        common += ["-Wno-psabi", *openmp]  # -Wno-psabi: no vector crosses a translation unit
        defines = ["-DMEDTRUST_X86"] if X86 else []
        if nvcc:
            defines += ["-DMEDTRUST_CUDA", f'-DMEDTRUST_ARCHS="{";".join(archs)}"']

        matrix = X86 and accepts(cxx, sorted({flag for flags in MATRIX_FLAGS.values() for flag in flags}))
        defines += ["-DMEDTRUST_MATRIX"] if matrix else []

        jobs: list[tuple[list[str], Path]] = []
        for source in sorted([CSRC / "bindings.cpp", *CSRC.glob("cpu/*.cpp")]):
            isa = source.stem.rpartition("_")[2]
            if (isa in ("avx2", "avx512") and not X86) or (isa in MATRIX_FLAGS and not matrix):
                continue
            flags = [*common, *defines, *(MATRIX_FLAGS.get(isa) or ISA_FLAGS.get(isa, []))]
            flags += includes if source.name == "bindings.cpp" else []
            jobs.append(([cxx, *flags, "-c", str(source)], self.object_path(source, flags)))
        if nvcc:
            codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in archs]
            codes.append(f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}")
            flags = ["-std=c++17", "-O3", "-Xcompiler=-fPIC,-fvisibility=hidden", "--threads=0", *codes, *defines]
            for source in sorted(CSRC.glob("cuda/*.cu")):
                jobs.append(([nvcc, *flags, "-c", str(source)], self.object_path(source, flags)))

        objects = [obj for _, obj in jobs]
        stale = [(command, obj) for command, obj in jobs if is_stale(obj)]
        with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            list(pool.map(lambda job: compile_one(*job), stale))

        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        shared = ["-shared"] if sys.platform != "darwin" else ["-bundle", "-undefined", "dynamic_lookup"]
        # The library is linked beside its place and moved in: a process that has the old one mapped keeps it.
        fresh = target.with_name(f".{target.name}.{os.getpid()}")
        if nvcc:
            link = [nvcc, "-shared", "-cudart=static", *[f"-Xcompiler={flag}" for flag in openmp]]
            link += [f"-ccbin={cxx}", *[f"-gencode=arch=compute_{a},code=sm_{a}" for a in archs]]
        else:
            link = [cxx, *shared, *openmp]
        call([*link, *map(str, objects), "-o", str(fresh)])
        os.replace(fresh, target)

    def object_path(self, source: Path, flags: list[str]) -> Path:
        """Where an object goes: the flags are in its name, so changing them compiles anew."""
        digest = hashlib.sha256("\0".join(flags).encode()).hexdigest()[:12]
        return Path(self.build_temp) / f"{source.stem}-{digest}.o"


def is_stale(obj: Path) -> bool:
    """True where the object is older than a file that it was made from."""
    if not obj.exists():
        return True
    newest = max(path.stat().st_mtime for path in CSRC.rglob("*") if path.suffix in (".h", ".cuh", ".cpp", ".cu"))
    listed = obj.with_suffix(".d")
    if listed.exists():
        names = listed.read_text().replace("\\\n", " ").split()[1:]
        files = [Path(name) for name in names]
        newest = max((f.stat().st_mtime if f.exists() else float("inf")) for f in files)
    return newest > obj.stat().st_mtime


def compile_one(command: list[str], obj: Path) -> None:
    """Compile one source and record what it included."""
    obj.parent.mkdir(parents=True, exist_ok=True)
    call([*command, "-o", str(obj), "-MD", "-MF", str(obj.with_suffix(".d"))])


def call(command: list[str]) -> None:
    """Run a compiler; its own message is the error."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - the builder's compiler
    if done.stderr:
        sys.stderr.write(done.stderr)
    if done.returncode:
        raise BuildStop(f"medtrust: this command failed, see its message above:\n  {' '.join(command)}")


def accepts(cxx: str, flags: list[str]) -> bool:
    """True where the compiler knows the flags."""
    command = [cxx, *flags, "-x", "c++", "-fsyntax-only", os.devnull]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603 - the builder's compiler


def openmp_flags(cxx: str, folder: Path) -> list[str]:
    """-fopenmp where the compiler takes it; without it the kernels run on one thread."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / "openmp_probe.cpp"
    probe.write_text("#include <omp.h>\nint main() { return omp_get_max_threads() < 1; }\n")
    command = [cxx, "-fopenmp", str(probe), "-o", str(folder / "openmp_probe")]
    if subprocess.run(command, capture_output=True, check=False).returncode == 0:  # noqa: S603 - the builder's compiler
        return ["-fopenmp"]
    say("WARNING: the compiler has no OpenMP, so the native kernels will use one thread")
    return []


SOURCES = sorted(str(path.relative_to(ROOT)) for path in CSRC.rglob("*") if path.is_file())

setup(
    ext_modules=[Extension("medtrust._C", sources=[], depends=SOURCES)],  # depends: what a source archive must hold
    cmdclass={"build_ext": BuildNative},
)
