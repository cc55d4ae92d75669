"""Latent codes: a code that holds the attributes one by one is told from one that mixes them, and from nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from explain_sets import trio

from medtrust import FeatureMatrix, Insufficient
from medtrust_explain.codes import LatentCode
from medtrust_explain.latents import _dci_of, active_units, disentanglement, mutual_information_gap, traverse

NAMES = ("bright", "contrast", "angle")


class Autoencoder:
    """Codes are the image's mean, spread and slope, and three units that are never used."""

    def encode(self, images):
        grey = images.flatten(1) / 255
        left = images[..., :12].flatten(1).mean(1) - images[..., 12:].flatten(1).mean(1)
        used = torch.stack([(grey.mean(1) - 0.5) * 20, (grey.std(1) - 0.15) * 2000, left / 10], 1)
        mean = torch.cat([used, torch.zeros(len(images), 3)], 1)
        return mean, torch.zeros_like(mean)

    def decode(self, z):
        ramp = torch.linspace(1, -1, 24).expand(24, 24)
        level = 128 + 12.75 * z[:, 0] + 0 * z[:, 1]
        return (level.view(-1, 1, 1, 1) + 5 * z[:, 2].view(-1, 1, 1, 1) * ramp).clamp(0, 255)


def attributes(codes, noise, rng):
    return codes[:, :3] + noise * torch.tensor(rng.normal(size=(len(codes), 3))).float()


def test_the_measures_know_good_codes_from_mixed_ones_and_from_nothing():
    """One unit per attribute is near 1, a rotation is lower, permuted attributes are near 0 and p says so."""
    rng = np.random.default_rng(0)
    codes = torch.tensor(rng.normal(size=(400, 4))).float()
    wanted = attributes(codes, 0.05, rng)
    turn = torch.linalg.qr(torch.tensor(rng.normal(size=(4, 4))).float())[0]
    good = disentanglement(codes, wanted, 1)
    mixed = disentanglement(codes @ turn, wanted, 1)
    for name in ("MIG", "SAP", "SCC", "DCI disentanglement", "DCI completeness"):
        assert good[name].value > mixed[name].value + 0.1, name
        assert good[name].value > good[name].upper, name
    assert good["SCC"].p == pytest.approx(1 / 51)
    assert good["DCI informativeness"].value > 0.9
    nothing = disentanglement(codes, torch.tensor(rng.normal(size=(400, 3))), 1)
    assert nothing["SCC"].p > 0.02
    assert nothing["SCC"].value < 0.2


def test_the_formulas_on_codes_whose_answer_is_known():
    """DCI of a permutation matrix is 1 and of a constant one 0; MIG of a copy is 1 less what the second unit knows."""
    assert _dci_of(np.eye(3)) == (1.0, 1.0)
    assert _dci_of(np.ones((4, 3))) == pytest.approx((0.0, 0.0))
    x = np.arange(2000.0)
    assert mutual_information_gap(np.stack([x, np.zeros(2000)], 1), x[:, None]) == pytest.approx(1.0)


def test_active_units_and_traversals():
    """Units above the threshold, the most active first; a traversal moves one unit and has the mean in its middle."""
    mean = torch.stack([torch.zeros(50), torch.linspace(-2, 2, 50), torch.linspace(-9, 9, 50)], 1)
    assert active_units(mean).tolist() == [2, 1]
    found = traverse(lambda z: z[:, :, None, None], mean, 1)[:, :, 0, 0]
    assert found.shape == (7, 3)
    assert torch.allclose(found[3], mean.mean(0), atol=1e-5)
    assert torch.allclose(found[6, 1] - found[0, 1], 6 * mean[:, 1].std())
    assert found[:, 0].abs().max() == 0


def with_attributes(data):
    sets = {}
    for name in ("train", "synthetic", "holdout"):
        one = getattr(data, name)
        pixels = torch.tensor(np.stack([r.pixels for r in one.images])).float()
        values = Autoencoder().encode(pixels)[0][:, :3]
        sets[name] = replace(one, features=FeatureMatrix(values, one.patients, one.digests, "radiomics", "d", NAMES))
    return replace(data, **sets, space="radiomics", embed=lambda x: Autoencoder().encode(x)[0][:, :3])


def test_the_metric_names_what_each_unit_follows():
    """Three of six units are active, each follows its attribute, the strip's text holds the measured curve."""
    data = with_attributes(trio(3, 240))
    result = LatentCode().compute(replace(data, generator=Autoencoder()))
    assert result.facts["active_units"] == 3
    assert result.estimate.value > 0.95
    assert result.interval.lo <= result.estimate.value <= result.interval.hi
    assert result.null.value < 0.4
    assert result.selftest.status == "ok"
    assert {item.facts["follows"] for item in result.evidence} == set(NAMES)
    bright = next(item for item in result.evidence if item.facts["follows"] == "bright")
    assert bright.facts["at_+3_sd"] > bright.facts["at_-3_sd"]
    assert bright.title.endswith("follows bright")
    assert "bright goes from" in bright.pictures[0].alt
    assert bright.pictures[0].png.startswith(b"\x89PNG")


def test_a_decoder_that_does_not_draw_the_attribute_is_found_out():
    """What a unit goes with in real images is not said to be seen in decoded images that are all alike."""
    data = with_attributes(trio(3, 240))
    still = replace(data, embed=lambda x: torch.zeros(len(x), len(NAMES)))
    shown = LatentCode().compute(replace(still, generator=Autoencoder())).evidence
    assert len(shown) == 3
    assert all(item.title.endswith("which its decoded images do not show") for item in shown)


def test_refusals():
    """A generator without a code, too few images, a code that is not used."""
    data = with_attributes(trio(3, 240))
    with pytest.raises(Insufficient, match="no encoder"):
        LatentCode().compute(replace(data, generator=object()))
    with pytest.raises(Insufficient, match="200 images"):
        disentanglement(torch.randn(199, 3), torch.randn(199, 2), 0)
    with pytest.raises(Insufficient, match="not used"):
        disentanglement(torch.zeros(200, 3), torch.randn(200, 2), 0)
