"""The pages of docs/metrics: one per metric, with its parts; tables in step with what they are made from."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from medtrust_fidelity.plugin import medtrust_metrics

ROOT = Path(__file__).parents[1]


def _tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("doc_tables", ROOT / "benchmarks" / "tables.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


TABLES = _tables()


@pytest.mark.parametrize("spec", list(medtrust_metrics()), ids=lambda spec: spec.name)
def test_every_metric_has_a_page_with_all_its_parts(spec) -> None:
    """What it says, when it lies, the formula, the interval, the source that the spec names, and its results."""
    page = (ROOT / "docs" / "metrics" / f"{spec.name}.md").read_text()
    for part in ("**Say", "**Lie", "**Formula**", "nterval**", "**Source**"):
        assert part in page, part
    for result in spec.result_ids:
        assert result in page
    assert spec.citation.removeprefix("arXiv:").removeprefix("doi:") in page


@pytest.mark.parametrize("name", TABLES.TABLES)
def test_tables_are_in_step(name: str) -> None:
    """Each table is what its source gives; renew with `python benchmarks/tables.py`."""
    _, now, then = TABLES.filled(name)
    assert now == then
