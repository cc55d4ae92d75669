"""Our numbers are those of the packages people compare with: each row of docs/metrics/parity.md, run again."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


def _parity() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parity_study", ROOT / "benchmarks" / "parity.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


PARITY = _parity()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("pair", PARITY.PAIRS, ids=lambda pair: pair.name)
def test_the_peer_gives_the_same_number(pair) -> None:
    """The peer is run on the same input, and the difference is within what its arithmetic explains."""
    peer = pytest.importorskip(pair.module, reason=f"{pair.peer} is not installed (extra: peers)", exc_type=ImportError)
    ours, theirs = pair.run(peer)
    assert PARITY.difference(pair, ours, theirs) <= pair.tolerance, (ours, theirs)


def test_the_record_is_of_these_rows_and_within_their_tolerances() -> None:
    """The published results name every row, in order, and none is beyond its tolerance."""
    rows = json.loads(PARITY.OUT.read_text())["rows"]
    assert [f"{row['metric']} | {row['convention']}" for row in rows] == [pair.name for pair in PARITY.PAIRS]
    assert all(row["difference"] <= row["tolerance"] for row in rows)
    assert len(rows) >= 12
