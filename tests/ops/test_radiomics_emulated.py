"""The CUDA radiomics, run thread by thread on the CPU, give the float64 twin's values from poisoned memory."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from medtrust.ops import _device, reference_radiomics
from medtrust.ops._radiomics_names import FAMILIES, names_of
from medtrust.ops.texture import GREYS

HERE = Path(__file__).parent / "emulated"
CXX = shutil.which("g++") or shutil.which("clang++")
BINNING, LEVELS = [0.0, 16.0, 100.0], 16


class Emulated:
    """Has the extension's CUDA functions for radiomics."""

    def __init__(self, library: Path) -> None:
        self._functions = ctypes.CDLL(str(library))
        self._functions.emulated_radiomics_scratch.restype = ctypes.c_int64

    @staticmethod
    def _rules(shape: list[int], grey: int, binning: list[float], levels: int, merged: bool, bits: int) -> tuple:
        sizes, numbers = (ctypes.c_int64 * 4)(*shape), (ctypes.c_double * 3)(*binning)
        return (
            sizes, ctypes.c_int64(grey), numbers, ctypes.c_int64(levels), ctypes.c_int(merged), ctypes.c_int64(bits)
        )  # fmt: skip

    def radiomics_cuda_scratch(self, *rules: Any) -> int:
        return int(self._functions.emulated_radiomics_scratch(*self._rules(*rules)))

    def radiomics_cuda(self, images: int, mask: int, *rest: Any) -> None:
        *rules, scratch, values, states, stream = rest
        assert stream == 0
        addresses = [ctypes.c_void_p(address) for address in (images, mask or None, scratch, values, states)]
        self._functions.emulated_radiomics(*addresses[:2], *self._rules(*rules), *addresses[2:])


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The CUDA source compiled for the CPU."""
    if CXX is None:
        pytest.skip("no C++ compiler to build the emulation with")
    target = tmp_path_factory.mktemp("emulated") / "radiomics.so"
    command = [CXX, "-std=c++20", "-O1", "-shared", "-fPIC", "-pthread", "-w", f"-I{HERE}", "-x", "c++"]
    command += ["-DMEDTRUST_TEAM=16"]
    done = subprocess.run(
        [*command, str(HERE / "radiomics_entry.cpp"), "-o", str(target)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return Emulated(target)


@pytest.fixture
def emulated(built, monkeypatch):
    """The emulated extension, with no stream, and poison in all memory that torch hands out."""
    monkeypatch.setattr(_device, "on_device", lambda tensor: contextlib.nullcontext(0))
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield built
    torch.use_deterministic_algorithms(before)


def described(lib, images, mask=None, levels=LEVELS, merged=False, families=tuple(FAMILIES)):
    """Values and states of the emulated kernels and of the twin."""
    binning = [BINNING[0], float(levels), BINNING[2]]
    bits = sum(1 << place for place, name in enumerate(FAMILIES) if name in families)
    rules = (GREYS[images.dtype], binning, levels, merged, bits)
    got = _device.radiomics(lib, images, mask, rules, len(names_of(families, 1)))
    return got, reference_radiomics.describe(images, mask, binning, levels, merged, list(families))


def assert_close(got, expected):
    assert torch.equal(got[1], expected[1])
    torch.testing.assert_close(got[0], expected[0], rtol=1e-10, atol=1e-9)


def smooth(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Grey values 0..100 with zones of all sizes."""
    generator = torch.Generator().manual_seed(seed)
    rough = torch.rand((shape[0] * shape[1], 1, 5, 5), generator=generator)
    wide = torch.nn.functional.interpolate(rough, shape[2:], mode="bilinear").reshape(shape)
    return 100 * (0.8 * wide + 0.2 * torch.rand(shape, generator=generator))


@pytest.mark.parametrize(
    ("dtype", "merged"),
    [
        (torch.uint16, False),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in itertools.product((torch.uint8, torch.int16, torch.float32), (False, True))
        ),
    ],
)
def test_types_and_aggregation(emulated, dtype, merged):
    """Every type of pixel, both ways to treat directions, several channels under one mask."""
    images = smooth((2, 2, 23, 31), 1).round().to(torch.int32).to(dtype)
    mask = torch.rand((2, 23, 31), generator=torch.Generator().manual_seed(2)) < 0.7
    assert_close(*described(emulated, images, mask, merged=merged))


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 1, 1, 40), (2, 1, 40, 1), (1, 1, 3, 2), (1, 1, 17, 16)])
def test_sizes(emulated, shape):
    """One pixel, one row, one column; a region without any pair."""
    assert_close(*described(emulated, smooth(shape, 3)))


@pytest.mark.parametrize("levels", [1, 2, pytest.param(256, marks=pytest.mark.slow)])
def test_levels(emulated, levels):
    """One level, two, and the most: zones beyond the counted sizes, several of one size, are put in order."""
    images = smooth((1, 1, 40, 50), 4)
    for i in range(4):
        images[0, 0, 10 * i : 10 * i + 9, :] = 25.0 * i
        images[0, 0, 10 * i : 10 * i + 9, 24:26] = 99.0
    assert_close(*described(emulated, images, levels=levels))


@pytest.mark.parametrize("pattern", ["constant", "noise", "board", "spiral"])
def test_zones(emulated, pattern):
    """Zones that meet late, wind, or are the whole image are one."""
    y, x = torch.meshgrid(torch.arange(33), torch.arange(34), indexing="ij")
    images = {
        "constant": torch.full((33, 34), 40.0),
        "noise": torch.rand((33, 34), generator=torch.Generator().manual_seed(5)) * 100,
        "board": 30.0 * (x % 2 + 2 * (y % 2)),
        "spiral": 80.0 * ((torch.maximum((x - 17).abs(), (y - 16).abs()) + (x > y)) % 3 > 0),
    }[pattern]
    assert_close(*described(emulated, images[None, None].float(), levels=4))


@pytest.mark.parametrize("families", [("glszm",), ("firstorder", "gldm"), ("glrlm", "ngtdm")])
def test_families(emulated, families):
    """Families left out leave no gap in the columns."""
    assert_close(*described(emulated, smooth((2, 1, 12, 13), 6), families=families))


def test_values_far_from_zero_and_signs(emulated):
    """Quantiles of negative, positive, equal and far-out values; a small spread far from zero."""
    generator = torch.Generator().manual_seed(7)
    images = torch.randn((4, 1, 20, 21), generator=generator) * torch.tensor([1e-3, 1, 1e5, 0])[:, None, None, None]
    images[0] += 1000
    got, expected = described(emulated, images, families=("firstorder",))
    torch.testing.assert_close(got[0], expected[0], rtol=1e-9, atol=1e-9)


def test_states(emulated):
    """An empty region, a NaN inside and a NaN outside of it are told apart; the other planes are described."""
    images, mask = smooth((4, 1, 9, 11), 8), torch.ones((4, 9, 11), dtype=torch.bool)
    images[1, 0, 3, 4], images[2, 0, 3, 4] = torch.nan, torch.inf
    mask[0], mask[1, 3, 4] = False, False
    got, expected = described(emulated, images, mask)
    assert expected[1].tolist() == [1, 0, 2, 0]
    assert_close(got, expected)


def test_any_split(emulated, monkeypatch):
    """Planes described a few at a time, for want of scratch, have the bits of the whole batch; so has a second run."""
    images, mask = smooth((3, 2, 14, 15), 9), torch.ones((3, 14, 15), dtype=torch.bool)
    whole, _ = described(emulated, images, mask)
    again, _ = described(emulated, images, mask)
    monkeypatch.setattr(_device, "SCRATCH", 1)
    single, _ = described(emulated, images, mask)
    assert torch.equal(whole[0], again[0])
    assert torch.equal(whole[0], single[0])
