"""The CUDA sampler sources, run thread by thread on the CPU, give the CPU kernels' bits."""

from __future__ import annotations

import ctypes
import math
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from test_sampling_noise import KNOWN, numbers
from torch import Tensor

from medtrust import ops
from medtrust.ops import _native
from medtrust.ops.sampling import placed

HERE = Path(__file__).parent / "emulated"
CXX = shutil.which("g++") or shutil.which("clang++")
needs_extension = pytest.mark.skipif(_native.extension is None, reason=f"no compiled kernels: {_native.absence}")


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    """The CUDA sources compiled for the CPU."""
    if CXX is None:
        pytest.skip("no C++ compiler to build the emulation with")
    target = tmp_path_factory.mktemp("emulated") / "sampler.so"
    command = [CXX, "-std=c++20", "-O1", "-shared", "-fPIC", "-pthread", "-w", f"-I{HERE}", "-x", "c++"]
    done = subprocess.run(
        [*command, str(HERE / "sampler_entry.cpp"), "-o", str(target)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(target))


def address(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(0 if tensor is None else tensor.data_ptr())


def wide(*values: int) -> list[ctypes.c_int64]:
    return [ctypes.c_int64(value) for value in values]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers(emulated, counter, key, answer):
    """The Philox that CPU and GPU share meets the published answers."""
    arrays = [(ctypes.c_uint32 * len(n))(*n) for n in (numbers(counter), numbers(key))]
    out = (ctypes.c_uint32 * 4)()
    emulated.philox_block_of(*arrays, out)
    assert list(out) == numbers(answer)


@needs_extension
@pytest.mark.parametrize(("count", "first"), [(1, 0), (3, 1), (1030, 0), (1029, 3), (64, 2**40)])
def test_noise(emulated, count, first):
    """Words, uniforms, normals and latents equal the CPU's, aligned or not, from poisoned outputs."""
    for kind in (0, 1, 2):
        expected = torch.ops.medtrust.philox([count], kind, 77, 5, first, torch.device("cpu"))
        out = torch.full_like(expected, -9)
        emulated.emulated_philox(*wide(kind, 77, 5, first, count), address(out))
        assert torch.equal(out, expected)
    mean, logvar = ops.philox_normal((count,), 1), 3 * ops.philox_normal((count,), 2)
    out = torch.full((count,), torch.nan)
    emulated.emulated_reparameterise(address(mean), address(logvar), *wide(77, 5, first, count), address(out))
    assert torch.equal(out, ops.reparameterise(mean, logvar, 77, 5, first=first))


@needs_extension
@pytest.mark.parametrize("kind", ["ddpm", "dpmpp2m_sde", "heun"])
@pytest.mark.parametrize("clamp", [None, (-1.0, 1.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("shape", "first"), [((1, 1030), 0), ((3, 1, 7, 5), 1)])
def test_step(emulated, kind, dtype, clamp, shape, first):
    """Every row equals the CPU's bits: guidance, clamp, memory, noise, uint8, from poisoned outputs."""
    schedule = ops.schedule(kind, 3)
    table, _ = placed(schedule, torch.device("cpu"))
    x, memory = ops.philox_normal(shape, 1) * schedule.init_scale, ops.philox_normal(shape, 2)
    eps, uncond = (ops.philox_normal(shape, s).to(dtype) for s in (3, 4))
    keep = {"x0": 1, "x": 2, None: 0}[schedule.remembers]
    half = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}[dtype]
    offset = first * x[0].numel()
    for row in range(len(schedule)):
        for quantise in (False, True):
            options = {"eps_uncond": uncond, "scale": 2.5, "clamp": clamp, "seed": 9, "first": first}
            wanted = ops.diffusion_step(
                kind,
                x,
                eps,
                schedule=schedule,
                step=row,
                memory=memory,
                quantise=(-1, 1) if quantise else None,
                **options,
            )
            out = torch.full_like(wanted.x, 7 if quantise else torch.nan)
            kept, bad = torch.full(shape, torch.nan), torch.zeros(1, dtype=torch.int32)
            sizes = (ctypes.c_int64 * 7)(x.numel(), half, len(schedule), keep, int(quantise), 9, offset)
            limits = (ctypes.c_float * 5)(2.5, *(clamp or (-math.inf, math.inf)), -1.0, 127.5)
            index = torch.tensor(row)
            inputs = [address(t) for t in (x, eps, uncond, memory, table, index)]
            emulated.emulated_step(sizes, limits, *inputs, address(out), address(kept), address(bad))
            assert torch.equal(out, wanted.x)
            assert int(bad) == 0
            if wanted.memory is not None:
                assert torch.equal(kept, wanted.memory)


def test_counter_off_the_table_poisons_the_image(emulated):
    """A device counter beyond the schedule gives NaN, never a plausible image, and NaN is flagged when quantised."""
    x = torch.zeros(1, 6)
    table = torch.ones(2, 8)
    sizes = (ctypes.c_int64 * 7)(6, 0, 2, 0, 0, 1, 0)
    limits = (ctypes.c_float * 5)(1.0, -1.0, 1.0, 0.0, 1.0)
    index, out, bad = torch.tensor(2), torch.zeros(1, 6), torch.zeros(1, dtype=torch.int32)
    rest = [address(t) for t in (x, None, None, table, index)]
    emulated.emulated_step(sizes, limits, address(x), *rest, address(out), None, address(bad))
    assert bool(out.isnan().all())
    sizes[4] = 1
    levels = torch.full((6,), 9, dtype=torch.uint8)
    emulated.emulated_step(sizes, limits, address(x), *rest, address(levels), None, address(bad))
    assert int(bad) == 1
