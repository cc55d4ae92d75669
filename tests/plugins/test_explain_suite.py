"""The self-test of the explanations on a user's own images."""

from __future__ import annotations

import numpy as np
import pytest
from explain_sets import RANGE, as_set, fields

from medtrust import Insufficient
from medtrust.progress import QuietProgress
from medtrust.types import SuiteInput
from medtrust_explain.suite import ExplainSuite


def asked(n):
    images = as_set("train", fields(np.random.default_rng(0), n), 1).images
    return SuiteInput(images, None, None, RANGE, {}, None, 0, QuietProgress())


def test_each_map_is_marked_on_each_artefact():
    """Four maps, three artefacts; the faithful map finds the checkerboard, and few images are refused."""
    rows = {row.name: row for row in ExplainSuite().run(asked(200))}
    assert len(rows) == 12
    assert rows["hirescam: checkerboard"].status == "ok"
    assert rows["hirescam: checkerboard"].facts["gain_over_edge"] > 0.2
    with pytest.raises(Insufficient, match="80 real images"):
        list(ExplainSuite().run(asked(40)))
