"""The checks that an explainer's author runs: our own pass, each flaw is caught by the check that names it."""

from __future__ import annotations

import pytest
import torch

from medtrust.stats.attribution import edge_map
from medtrust.testing import EXPLAINER_CHECKS, check_explainer
from medtrust_explain.cam import gradcam, hirescam, layercam
from medtrust_explain.gradients import expected_gradients


@pytest.mark.parametrize("explainer", [gradcam, hirescam, layercam, expected_gradients])
def test_our_own_pass(explainer):
    """All checks run."""
    assert check_explainer(explainer).count("passed") == len(EXPLAINER_CHECKS)


def writes(score, images):
    maps = hirescam(score, images)
    images.zero_()
    return maps


def breaks(score, images):
    maps = hirescam(score, images)
    score.network[0].weight.mul_(2)
    return maps


@pytest.mark.parametrize(
    ("explainer", "words"),
    [
        (lambda s, x: hirescam(s, x)[:, ::2], "answer_is_a_map"),
        (writes, "wrote into the images"),
        (breaks, "changed the network"),
        (lambda s, x: torch.rand(len(x), *x.shape[2:]), "same bits"),
        (lambda s, x: hirescam(s, x) / hirescam(s, x).sum().clamp_min(1e-9), "explained alone"),
        (lambda s, x: 1 - x[:, 0], "only thing that the score sees"),
        (lambda s, x: edge_map(x) + x[:, 0], "random networks"),
    ],
)
def test_each_flaw_is_named(explainer, words):
    """Shape, written images, changed network, chance, batch, wrong place, a map of the picture."""
    with pytest.raises(AssertionError, match=words):
        check_explainer(explainer)
