"""The CUDA sources of the feature ops, run thread by thread on the CPU, give the float64 twins' values.

What the device path does in Python runs too: the emulated kernels stand in for the extension's.
"""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from medtrust.ops import _device, reference
from medtrust.ops.discrepancy import KINDS

HERE = Path(__file__).parent / "emulated"
CXX = shutil.which("g++") or shutil.which("clang++")
DTYPES = [torch.float32, torch.float64]


class Rows(ctypes.Structure):
    """csrc/neighbours.h: Rows."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("is_double", ctypes.c_bool),
    ]


def native(argument: Any) -> Any:
    """An argument of the extension as the C entry points take it."""
    if isinstance(argument, tuple):
        return ctypes.byref(Rows(*argument))
    if isinstance(argument, list):
        return (ctypes.c_int64 * len(argument))(*argument)
    if isinstance(argument, bool):
        return ctypes.c_int(argument)
    return ctypes.c_double(argument) if isinstance(argument, float) else ctypes.c_int64(argument)


class Emulated:
    """Has the extension's CUDA functions; counts their calls."""

    def __init__(self, folder: Path) -> None:
        self.calls: list[str] = []
        targets = {source: folder / f"{source}.so" for source in ("neighbours", "mmd", "halve")}
        options = ["-std=c++20", "-O1", "-shared", "-fPIC", "-pthread", "-w", f"-I{HERE}", "-x", "c++"]
        compilers = [
            subprocess.Popen([CXX, *options, HERE / f"{source}_entry.cpp", "-o", target], stderr=subprocess.PIPE)
            for source, target in targets.items()
        ]
        for compiler in compilers:
            _, said = compiler.communicate()
            assert compiler.returncode == 0, said.decode()
        self._functions = {source: ctypes.CDLL(str(target)) for source, target in targets.items()}

    def _call(self, source: str, name: str, arguments: tuple[Any, ...]) -> None:
        self.calls.append(name)
        *inputs, stream = arguments
        assert stream == 0
        getattr(self._functions[source], f"emulated_{name}")(*map(native, inputs))

    def neighbours_scan_cuda(self, *arguments: Any) -> None:
        self._call("neighbours", "scan", arguments)

    def neighbours_distances_cuda(self, *arguments: Any) -> None:
        self._call("neighbours", "distances", arguments)

    def neighbours_balls_cuda(self, *arguments: Any) -> None:
        self._call("neighbours", "balls", arguments)

    def mmd_cuda_tiles(self, n: int, m: int) -> int:
        function = self._functions["mmd"].emulated_mmd_tiles
        function.restype = ctypes.c_int64
        return int(function(ctypes.c_int64(n), ctypes.c_int64(m)))

    def mmd_cuda(self, *arguments: Any) -> None:
        self._call("mmd", "mmd", arguments)

    def halve_cuda(self, *arguments: Any) -> None:
        self._call("halve", "halve", arguments)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The CUDA sources compiled for the CPU."""
    if CXX is None:
        pytest.skip("no C++ compiler to build the emulation with")
    return Emulated(tmp_path_factory.mktemp("emulated"))


@pytest.fixture
def emulated(built, monkeypatch):
    """The emulated extension, with small tiles, no stream, and poison in all memory that torch hands out."""
    monkeypatch.setattr(_device, "on_device", lambda tensor: contextlib.nullcontext(0))
    monkeypatch.setattr(_device, "ROWS", 4)
    monkeypatch.setattr(_device, "COLS", 1100)
    monkeypatch.setattr(_device, "SWEPT", 1000)
    built.calls.clear()
    with poisoned_memory():
        yield built


@contextlib.contextmanager
def poisoned_memory():
    """torch.empty gives NaN and the largest integers."""
    fill, deterministic = (
        torch.utils.deterministic.fill_uninitialized_memory,
        torch.are_deterministic_algorithms_enabled(),
    )
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = fill
        torch.use_deterministic_algorithms(deterministic)


def cloud(n: int, d: int, seed: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 + torch.randn((n, d), generator=generator, dtype=torch.float64)).to(dtype)


def found(lib: Emulated, queries: Tensor, points: Tensor, k: int, groups: Any = (None, None)) -> tuple[Tensor, Tensor]:
    return _device.nearest(lib, queries, points, k, min(k + 16, len(points)), groups)


def assert_equal_to_twin(
    lib: Emulated, queries: Tensor, points: Tensor, k: int, groups: Any = (None, None)
) -> tuple[Tensor, Tensor]:
    got, expected = found(lib, queries, points, k, groups), reference.nearest(queries, points, k, *groups)
    assert torch.equal(got[1], expected[1])
    torch.testing.assert_close(got[0], expected[0], rtol=1e-12, atol=0)
    return got


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "m", "d", "k"), [(1, 1, 1, 1), (3, 7, 5, 7), (5, 1300, 17, 4), (2, 90, 130, 60)])
def test_nearest(emulated, n, m, d, k, dtype):
    """One row, tiles and chunks crossed, and k near the number of references give the twin's neighbours."""
    assert_equal_to_twin(emulated, cloud(n, d, 1, dtype), cloud(m, d, 2, dtype), k)
    assert emulated.calls.count("distances") == 1, "no row may need a sweep here"


def test_nearest_in_any_split(emulated):
    """A query has the same bits alone and among others."""
    queries, points = cloud(5, 9, 3, torch.float32), cloud(200, 9, 4, torch.float32)
    together = found(emulated, queries, points, 3)
    alone = [found(emulated, queries[i : i + 1], points, 3) for i in range(5)]
    for i in range(2):
        assert torch.equal(together[i], torch.cat([one[i] for one in alone]))


def test_groups_ties_and_sweeps(emulated):
    """Groups are left out; more copies than spare candidates are swept in float64 and stay in order of index."""
    base = cloud(6, 4, 5, torch.float32)
    points = base.repeat(30, 1)
    groups = torch.arange(6), torch.arange(180) % 36
    assert_equal_to_twin(emulated, base, points, 2, groups)
    assert emulated.calls.count("distances") > 1, "the copies must have been swept"
    few = torch.zeros(6, dtype=torch.int64), torch.cat([torch.ones(1), torch.zeros(179)]).long()
    squared, indices = assert_equal_to_twin(emulated, base, points, 2, few)
    assert indices[:, 1].tolist() == [-1] * 6
    assert bool(squared[:, 1].isinf().all())


def test_small_distances_survive(emulated):
    """Copies 1e-7 apart and far from the origin keep their distance."""
    points = cloud(100, 24, 6, torch.float64) + 1000
    queries = points[:4].clone()
    queries[:, 0] += torch.tensor([0, 1e-7, 1e-6, 1e-5], dtype=torch.float64)
    assert assert_equal_to_twin(emulated, queries, points, 1)[1][:, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize(("n", "m", "d"), [(1, 1, 2), (5, 1111, 5), (6, 33, 20)])
def test_balls(emulated, n, m, d, inclusive, dtype):
    """Counts and flags equal the twin's, on lattice points whose distances tie with the radius too."""
    generator = torch.Generator().manual_seed(7)
    lattice = tuple(torch.randint(0, 3, (rows, d), generator=generator).to(dtype) for rows in (min(n, 5), min(m, 40)))
    for queries, points in ((cloud(n, d, 8, dtype), cloud(m, d, 9, dtype)), lattice):
        radii = [torch.randint(1, 2 * d, (len(rows),), generator=generator).double() for rows in (queries, points)]
        got = _device.balls(emulated, queries, points, *radii, inclusive)
        squared = (queries.double()[:, None] - points.double()[None]).square().sum(2)
        inside = torch.le if inclusive else torch.lt
        in_real, in_fake = inside(squared, radii[1][None]), inside(squared, radii[0][:, None])
        for one, other in zip(got, (in_real.sum(1), in_fake.any(0), in_real.any(0)), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kernel", "scale"), [("poly3", 0.1), ("rbf", 0.05)])
@pytest.mark.parametrize(("n", "m", "d"), [(2, 3, 1), (64, 65, 16), (70, 64, 19)])
def test_kernel_sums(emulated, n, m, d, kernel, scale, dtype):
    """All three sums equal the twin's, for one tile and several, whole and cut; twice the same bits."""
    real, fake = cloud(n, d, 10, dtype), cloud(m, d, 11, dtype)
    got = _device.kernel_sums(emulated, real, fake, KINDS[kernel], scale)
    torch.testing.assert_close(got, reference.kernel_sums(real, fake, kernel, scale), rtol=1e-12, atol=0)
    assert torch.equal(got, _device.kernel_sums(emulated, real, fake, KINDS[kernel], scale))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
@pytest.mark.parametrize(("planes", "height", "width"), [(1, 2, 2), (3, 7, 9), (2, 40, 31), (1, 1, 5)])
def test_halve(emulated, planes, height, width, dtype):
    """2x2 means leave out odd edges; every dtype."""
    generator = torch.Generator().manual_seed(height)
    images = torch.randint(0, 256, (planes, height, width), generator=generator, dtype=torch.int32).to(dtype)
    means = torch.full((planes, height // 2, width // 2), torch.nan)
    code = {torch.uint8: 0, torch.uint16: 1, torch.float32: 2}[dtype]
    emulated.halve_cuda(images.data_ptr(), planes, height, width, code, means.data_ptr(), 0)
    pairs = images.float()[:, : height // 2 * 2, : width // 2 * 2]
    expected = pairs.reshape(planes, height // 2, 2, width // 2, 2).mean((2, 4))
    torch.testing.assert_close(means, expected, rtol=1e-7, atol=0)
