"""The door to the compiled extension: what it says about itself, and what happens when it cannot be had."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from medtrust import ops
from medtrust.errors import NativeError
from medtrust.ops import _native, discrepancy, neighbours, reference

needs_extension = pytest.mark.skipif(_native.extension is None, reason=f"no compiled kernels: {_native.absence}")


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


@needs_extension
def test_info_names_what_is_in_use():
    """info() names the instruction set, CUDA, architectures and threads."""
    facts = ops.info()
    assert facts["native"] is True
    assert facts["absence"] is None
    assert facts["isa"] in ("scalar", "avx2", "avx512")
    assert facts["openmp_threads"] >= 1
    assert facts["cuda"] == bool(facts["archs"])
    assert facts["matrix"] in (None, "avx512bf16", "amx")
    json.dumps(facts)


def test_info_imports_no_torch():
    """Asking what is installed costs no torch import."""
    done = python("import sys; from medtrust import ops; ops.info(); print('torch' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr


def test_absence_is_explained():
    """A package without its extension imports, says why it has none, and how to get it."""
    code = (
        "import sys; sys.modules['medtrust._C'] = None\n"
        "from medtrust import ops; facts = ops.info(); print(facts['native'], facts['absence'])"
    )
    done = python(code)
    assert done.stdout.startswith("False the extension medtrust._C cannot be imported"), done.stderr
    assert "pip install ." in done.stdout


def test_wrong_interface_counts_as_absent():
    """An extension built for another version of the package is refused, not called."""
    code = (
        "import sys, types; import medtrust; fake = types.ModuleType('medtrust._C'); fake.abi = -1\n"
        "sys.modules['medtrust._C'] = fake; medtrust._C = fake\n"
        "from medtrust import ops; print(ops.info()['absence'])"
    )
    assert "built for interface -1" in python(code).stdout


@needs_extension
@pytest.mark.parametrize("choice", ["scalar", "avx2", "avx512"])
def test_every_instruction_set_gives_the_values(choice, monkeypatch):
    """Each instruction set that this processor has can be forced, and every op then meets its float64 twin."""
    monkeypatch.setenv("MEDTRUST_CPU", choice)
    try:
        assert ops.info()["isa"] == choice
    except NativeError as error:
        pytest.skip(f"cannot be forced here: {error}")
    generator = torch.Generator().manual_seed(1)
    x = 1000 + torch.rand((2, 1, 70, 83), generator=generator)
    y = x + 0.3 * torch.rand(x.shape, generator=generator)
    for size in (5, 7, 11):
        got, twin = (ops.ssim(*pair, data_range=1, size=size) for pair in ((x, y), (x.double(), y.double())))
        torch.testing.assert_close(got, twin, atol=1e-6, rtol=0)
    for dtype in (torch.float32, torch.float64):
        a, b = (torch.randn((n, 67), generator=generator).to(dtype) for n in (90, 301))
        squared, indices = reference.nearest(a, b, 3, None, None)
        got = ops.nearest(a, b, 3)
        assert torch.equal(got.indices, indices)
        torch.testing.assert_close(got.distances, squared.sqrt(), rtol=1e-12, atol=0)
        # Not the very distances that are compared: instruction sets may differ in their last bit.
        radii = 1.001 * squared[:, 2], reference.nearest(b, b, 5, None, None)[0][:, 4].contiguous()
        for one, other in zip(
            neighbours._balls_op(a, b, *radii, False), reference.balls(a, b, *radii, False), strict=True
        ):
            assert torch.equal(one, other)
        for kernel in ("poly3", "rbf"):
            sums = (op(a, b, kernel, 0.02) for op in (discrepancy._kernel_sums_op, reference.kernel_sums))
            torch.testing.assert_close(*sums, rtol=1e-9, atol=0)


@needs_extension
def test_unknown_instruction_set_is_refused():
    """A misspelt MEDTRUST_CPU is an error that lists the choices."""
    done = python("from medtrust import ops; ops.info()", MEDTRUST_CPU="neon")
    assert "NativeError: MEDTRUST_CPU=neon is not one of scalar, avx2, avx512" in done.stderr
    done = python("from medtrust import ops; ops.info()", MEDTRUST_MATRIX="sme")
    assert "NativeError: MEDTRUST_MATRIX=sme is" in done.stderr


def test_unknown_name():
    """A name that ops does not have is an AttributeError that says so."""
    with pytest.raises(AttributeError, match=r"'medtrust\.ops' has no attribute 'nothing'"):
        _ = ops.nothing
