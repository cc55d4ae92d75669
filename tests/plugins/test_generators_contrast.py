"""Strengths of frequency bands: split off, drawn as they were found, and as the condition asks."""

from __future__ import annotations

import pytest
import torch

from medtrust_generators.conditions import make_condition
from medtrust_generators.contrast import Contrast
from medtrust_generators.whitening import Whitening

SHAPE = (2, 16, 20)
LABEL = {"kind": "label", "classes": ["rough", "smooth"], "shares": [0.5, 0.5]}


def rough_or_smooth(n, seed=0):
    """White fields whose strength is log-normal, and three times as high in one class."""
    rng = torch.Generator().manual_seed(seed)
    smooth = torch.randint(2, (n,), generator=rng)
    level = 0.4 * torch.randn((n, 1, 1, 1), generator=rng) + 1.1 * (1 - smooth)[:, None, None, None]
    return torch.randn((n, *SHAPE), generator=rng) * level.exp(), smooth


def contrast(facts, images, codes, embedding=4):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = Contrast(Whitening(SHAPE), SHAPE[0], make_condition(facts, SHAPE, embedding), embedding)
    made.fit(images)
    with torch.no_grad():
        made.finish(images, codes)
    return made


def test_an_image_is_its_strengths_and_the_rest():
    """Both put together give it back; without strengths, every band of enough coefficients has power one."""
    images, _ = rough_or_smooth(50)
    split = contrast({}, images, torch.zeros(50, 1))
    strengths = split.measure(images)
    even = split.even(images)
    assert 0 < int(split.keep.sum()) < split.count  # the mean alone is too few coefficients
    assert torch.allclose(split.measure(even), torch.zeros(50, split.count), atol=1e-3)
    assert torch.allclose(split.scaled(even, strengths), images, rtol=1e-3, atol=1e-3)
    standard = split.standard(strengths)[:, split.keep > 0]
    assert torch.allclose(standard.mean(0), torch.zeros(standard.shape[1]), atol=1e-4)
    assert torch.allclose(standard.std(0, unbiased=False), torch.ones(standard.shape[1]), atol=1e-4)


def test_strengths_are_drawn_as_they_were_found():
    """Mean and covariance are those of the training set, and none lies beyond its range."""
    images, _ = rough_or_smooth(400)
    split = contrast({}, images, torch.zeros(400, 1))
    found, drawn = split.measure(images), split.draw(3, 0, torch.zeros(4000, 1))
    assert torch.allclose(drawn.mean(0), found.mean(0), atol=0.1)
    assert torch.allclose(drawn.T.cov(), found.T.cov(), atol=0.1)
    assert bool(((drawn >= split.lo * split.keep) & (drawn <= split.hi * split.keep)).all())
    assert torch.equal(split.draw(3, 17, torch.zeros(5, 1)), drawn[17:22])


@pytest.mark.parametrize("kind", ["label", "mask"])
def test_strengths_follow_the_condition(kind):
    """Each class, or each kind of mask, gets the strengths of its own images."""
    images, smooth = rough_or_smooth(400)
    if kind == "label":
        facts, codes = LABEL, smooth
    else:
        facts = {"kind": "mask", "classes": ["0", "1"]}
        maps = (
            torch.rand((400, *SHAPE[1:]), generator=torch.Generator().manual_seed(2))
            < 0.2 + 0.6 * smooth[:, None, None]
        )
        codes = torch.nn.functional.one_hot(maps.long(), 2).permute(0, 3, 1, 2).float()
    split = contrast(facts, images, codes)
    drawn = split.draw(5, 0, codes).detach()[:, split.keep > 0].mean(1)
    found = split.measure(images)[:, split.keep > 0].mean(1)
    for of in (smooth == 0, smooth == 1):
        assert abs(float(drawn[of].mean() - found[of].mean())) < 0.15
        assert float(drawn[of].std()) == pytest.approx(float(found[of].std()), rel=0.25)
    assert float(drawn[smooth == 0].mean() - drawn[smooth == 1].mean()) > 1.5
