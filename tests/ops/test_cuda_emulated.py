"""The CUDA sources, run thread by thread on the CPU, give the float64 twins' values."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from medtrust.ops import reference
from medtrust.ops._conventions import window_of

HERE = Path(__file__).parent / "emulated"
CXX = shutil.which("g++") or shutil.which("clang++")


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    """The CUDA sources compiled for the CPU."""
    if CXX is None:
        pytest.skip("no C++ compiler to build the emulation with")
    target = tmp_path_factory.mktemp("emulated") / "kernels.so"
    command = [CXX, "-std=c++20", "-O1", "-shared", "-fPIC", "-pthread", "-w", f"-I{HERE}", "-x", "c++"]
    done = subprocess.run(
        [*command, str(HERE / "entry.cpp"), "-o", str(target)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(target))


def address(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


@pytest.mark.parametrize("reflect", [False, True])
@pytest.mark.parametrize(
    ("dtype", "centre", "spread", "data_range"),
    [
        (torch.uint8, 120, 40, 255),
        (torch.uint16, 60000, 20, 400),
        (torch.float32, 1064, 5, 80),
        (torch.float32, 1064, 500, 80),  # beyond the guard: the float64 march
    ],
)
@pytest.mark.parametrize("size", [(11, 11), (12, 140), (45, 150)])
def test_ssim_kernel(emulated, size, dtype, centre, spread, data_range, reflect):
    """Odd sizes, both borders, every dtype and both precisions equal the twin, from poisoned outputs."""
    generator = torch.Generator().manual_seed(size[1] + centre)
    x = centre + spread * torch.randn((2, 1, *size), generator=generator, dtype=torch.float64)
    y = x + spread * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    if dtype != torch.float32:
        x, y = (t.round().clamp(0, 255 if dtype == torch.uint8 else 65535).to(torch.int32) for t in (x, y))
    x, y = x.to(dtype), y.to(dtype)
    taps = torch.tensor(window_of("ssim", "wang", None, None, 1.5).taps, dtype=torch.float64)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    constants = torch.tensor([c1, c2, 1.1, 2 * data_range**2], dtype=torch.float64)
    code = {torch.uint8: 0, torch.uint16: 1, torch.float32: 2}[dtype]
    sizes = [ctypes.c_int64(n) for n in (2, *size, code)]
    head = (address(x), address(y), *sizes, address(taps), ctypes.c_int(reflect), address(constants))
    emulated.emulated_ssim.restype = ctypes.c_int64
    slots = emulated.emulated_ssim(*head, None, None, None)
    scratch = torch.full((2, slots, 2), torch.nan, dtype=torch.float64)
    out = torch.full((2, 2, 1), torch.nan, dtype=torch.float64)
    emulated.emulated_ssim(*head, address(scratch), address(out[0]), address(out[1]))
    expected = reference.ssim_planes(x, y, taps.tolist(), c1, c2, 1.1, reflect)
    torch.testing.assert_close(out, expected, atol=2e-6, rtol=0)
