from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from medtrust.types import ImageReader
from medtrust_formats.plugin import medtrust_formats

SPECS = list(medtrust_formats())


def test_listing_the_formats_imports_no_heavy_package():
    """Plugins are listed at once."""
    code = (
        "import sys, medtrust_formats.plugin as p; list(p.medtrust_formats());"
        "sys.exit(any(m in sys.modules for m in ('numpy', 'torch', 'PIL', 'pydicom', 'nibabel', 'tifffile')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_factory_makes_a_reader(spec):
    """The lazy names lead to classes that keep the protocol."""
    module, _, name = spec.factory.partition(":")
    assert isinstance(getattr(importlib.import_module(module), name)(), ImageReader)
    assert spec.summary


def test_no_suffix_is_claimed_twice():
    """Each suffix leads to one format."""
    suffixes = [suffix for spec in SPECS for suffix in spec.suffixes]
    assert len(suffixes) == len(set(suffixes))
