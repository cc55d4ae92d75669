"""The classifier two-sample test: patients stay in one fold, chance stays chance, a difference is found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from explain_sets import as_set, fields, through, trio

from medtrust import ConfigError, Insufficient
from medtrust.types import MetricInput
from medtrust_explain import c2st
from medtrust_explain.c2st import Samples, TwoSampleTest, crossfit
from medtrust_explain.planting import framed


def checkered(images: np.ndarray) -> np.ndarray:
    """Add a faint checkerboard, as a transposed convolution leaves it, to a quarter of each side."""
    sign = (np.arange(6)[:, None] + np.arange(6)) % 2 * 2 - 1
    out = images.astype(int)
    out[:, :, 9:15, 5:11] += 30 * sign
    return out.clip(0, 255).astype(np.uint8)


def test_a_planted_difference_is_told_apart_and_the_same_command_gives_the_same_bits():
    """AUC with its interval is above one half, the null is not, the self-test passes; twice the same."""
    data = trio(1, 120, checkered, epochs=8)
    result = TwoSampleTest().compute(data)
    assert result.interval.lo > 0.7
    assert result.null.interval.lo < 0.5 < result.null.interval.hi + 0.1
    assert result.test.p <= 0.001
    assert result.selftest.status == "ok"
    assert 0 < result.resolution.min_detectable <= 0.5
    again = TwoSampleTest().compute(data)
    assert again.estimate == result.estimate
    assert again.interval == result.interval


def test_alike_sets_are_not_told_apart():
    """Fresh fields of one distribution."""
    result = TwoSampleTest().compute(trio(2, 120, epochs=6))
    assert result.interval.lo < 0.5 < result.interval.hi
    assert result.test.p > 0.01


def test_no_network_judges_a_patient_it_learned_from():
    """Images of a patient are all in one fold."""
    rng = np.random.default_rng()
    owners = [f"p{i}" for i in rng.integers(0, 20, 60)]
    owners = [("1:" if i < 30 else "2:") + p for i, p in enumerate(owners)]
    samples = Samples(torch.rand(60, 1, 16, 16), np.arange(60) < 30, owners)
    (folded,) = crossfit([(samples, 3)], 1, 0)
    seen = [{owners[i] for i in rows} for rows in folded.rows]
    assert sorted(np.concatenate(folded.rows).tolist()) == list(range(60))
    assert all(not (seen[a] & seen[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_a_shortcut_is_named_instead_of_learned():
    """A border that only the synthetic images have decides before any network is trained."""
    with pytest.raises(Insufficient, match="constant border"):
        TwoSampleTest().compute(trio(3, edit=through(framed)))


def test_refusals():
    """Unlike shapes, wrong options."""
    with pytest.raises(ConfigError, match="epochs"):
        TwoSampleTest().compute(trio(4, epochs=0))
    rng = np.random.default_rng(0)
    mixed = MetricInput(
        as_set("train", fields(rng, 100)),
        as_set("synthetic", fields(rng, 100, size=28)),
        as_set("holdout", fields(rng, 100)),
        trio(4).intensity,
    )
    with pytest.raises(Insufficient, match="size"):
        TwoSampleTest().compute(mixed)


def test_large_images_are_averaged_down_and_the_report_says_so(monkeypatch):
    """Networks see at most a fixed number of pixels."""
    monkeypatch.setattr(c2st, "_SIDE", 16)
    result = TwoSampleTest().compute(trio(5, 100, epochs=1))
    assert result.facts["pixels_a_side"] == 16
    assert any("averaged down to 16" in note for note in result.notes)
