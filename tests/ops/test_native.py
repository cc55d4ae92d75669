"""The door to the compiled extension: what it says about itself, and what happens when it cannot be had."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from medtrust import ops
from medtrust.ops import _native

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
def test_every_instruction_set_gives_the_value(choice):
    """Each instruction set that this processor has can be forced and meets the float64 twin."""
    code = (
        "import torch; from medtrust import ops; print(ops.info()['isa'])\n"
        "g = torch.Generator().manual_seed(1); x = 1000 + torch.rand((2, 1, 70, 83), generator=g)\n"
        "y = x + 0.3 * torch.rand(x.shape, generator=g)\n"
        "for size in (5, 7, 11):\n"
        "    got = ops.ssim(x, y, data_range=1, size=size).double()\n"
        "    twin = ops.ssim(x.double(), y.double(), data_range=1, size=size).double()\n"
        "    assert (got - twin).abs().max() < 1e-6, (got, twin)\n"
    )
    done = python(code, MEDTRUST_CPU=choice)
    if "has only" in done.stderr:
        pytest.skip(f"this processor has no {choice}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == choice


@needs_extension
def test_unknown_instruction_set_is_refused():
    """A misspelt MEDTRUST_CPU is an error that lists the choices."""
    done = python("from medtrust import ops; ops.info()", MEDTRUST_CPU="neon")
    assert "NativeError: MEDTRUST_CPU=neon is not one of scalar, avx2, avx512" in done.stderr


def test_unknown_name():
    """A name that ops does not have is an AttributeError that says so."""
    with pytest.raises(AttributeError, match=r"'medtrust\.ops' has no attribute 'nothing'"):
        _ = ops.nothing
