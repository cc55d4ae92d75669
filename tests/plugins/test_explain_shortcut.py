"""The audit of shortcuts: it names what the pipeline did, and nothing where it did nothing."""

from __future__ import annotations

import numpy as np
import pytest
from explain_sets import as_set, fields, through, trio

from medtrust.types import MetricInput
from medtrust_explain.planting import coarser, framed
from medtrust_explain.shortcut import Shortcut

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize(("edit", "words"), [(framed, "constant border"), (coarser, "step between grey levels")])
def test_a_difference_of_the_pipeline_is_named(edit, words):
    """A border and a coarser quantisation each tell the sets apart, and the reader is told which and what to do."""
    result = Shortcut().compute(trio(3, edit=through(edit)))
    assert result.interval.lo > 0.9
    assert words in result.facts["trait"]
    assert any(words in note and "all sets alike" in note for note in result.notes)
    assert result.test.p_adj < 0.05


def test_file_format_size_and_depth_are_named():
    """Traits that are categories."""
    rng = np.random.default_rng(0)
    train, holdout = as_set("train", fields(rng, 60)), as_set("holdout", fields(rng, 60))
    cases = {
        "file format": as_set("synthetic", fields(rng, 60), suffix="npz"),
        "image size": as_set("synthetic", fields(rng, 60, size=26)),
        "pixel type and bit depth": as_set("synthetic", fields(rng, 60).astype(np.float32)),
    }
    for words, synthetic in cases.items():
        result = Shortcut().compute(MetricInput(train, synthetic, holdout, trio(0).intensity))
        assert result.estimate.value == 1.0
        assert words in " ".join(result.notes)


def test_alike_sets_show_no_shortcut():
    """The interval is near one half, the null too, and the self-test passes."""
    result = Shortcut().compute(trio(8, 160, holdout=False))
    assert result.interval.lo < 0.6
    assert result.test.p_adj > 0.05
    assert result.selftest.status == "ok"
    assert result.notes == ("there is no holdout: the null compares two halves of train, split by patients",)
