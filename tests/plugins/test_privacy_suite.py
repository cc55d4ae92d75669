"""The privacy suite: detectors hold on ordinary images, and the suite refuses what it cannot play with."""

from dataclasses import replace

import numpy as np
import pytest
from privacy_sets import LEVELS, fields, make_set

from medtrust.errors import Insufficient
from medtrust.progress import QuietProgress
from medtrust.types import SuiteInput
from medtrust_privacy.suite import PrivacySuite


def given(people, seed=0):
    images = make_set("train", fields(np.random.default_rng(seed), people), [f"p{i}" for i in range(people)]).images
    return SuiteInput(images, None, None, LEVELS, {}, None, seed, QuietProgress())


@pytest.mark.slow
def test_detectors_are_put_to_the_test():
    """Every detector answers; the copy test stays quiet on three copy-free faults and finds the planted copies."""
    rows = {row.name: row for row in PrivacySuite().run(given(450))}
    assert set(rows) == {
        "privacy.cpm", "privacy.copying", "privacy.extreme_count", "privacy.copy_rate", "privacy.membership",
    }  # fmt: skip
    assert rows["privacy.cpm"].status == "ok", rows["privacy.cpm"].detail
    assert set(rows["privacy.cpm"].facts["p"]) == {"fresh real", "half the spread", "noisy", "copies"}
    assert rows["privacy.cpm"].facts["p"]["copies"] <= 0.01
    assert all(row.status in ("ok", "failed") for row in rows.values())


def test_the_suite_refuses_what_it_cannot_play_with():
    """Too few patients and images of several sizes are refused with a sentence."""
    with pytest.raises(Insufficient, match="60 patients"):
        PrivacySuite().run(given(40))
    mixed = given(80)
    odd = [replace(record, pixels=record.pixels[:, :18]) if i == 3 else record for i, record in enumerate(mixed.train)]
    with pytest.raises(Insufficient, match="size"):
        PrivacySuite().run(replace(mixed, train=odd))
