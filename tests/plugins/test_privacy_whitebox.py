"""White-box membership: on networks whose memory is known, because they are written down."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from privacy_sets import make_audit

from medtrust.errors import Insufficient
from medtrust_privacy.whitebox import WhiteBox, noise_of

SIDES = (1, 20, 24)


class Memoriser:
    """The optimal denoiser of a finite training set, blurred by `width`: it knows its images and nothing else.

    With x_t = alpha x + sigma noise it predicts the clean image as the posterior mean over Gaussians around its images.
    """

    def __init__(self, images, width, prediction):
        self.images, self.width, self.prediction = images.flatten(1).double(), width, prediction

    def normalise(self, images):
        return images.float() / 127.5 - 1

    def noise_level(self, t):
        return 1 - t, t

    def denoise(self, x_t, t, condition=None):
        alpha, sigma = (each.double()[:, None] for each in self.noise_level(t))
        x = x_t.flatten(1).double()
        spread = (alpha * self.width) ** 2 + sigma**2
        weight = (-0.5 * torch.cdist(x, alpha[0] * self.images).square() / spread).softmax(1)
        centre = weight @ self.images
        clean = centre + alpha * self.width**2 / spread * (x - alpha * centre)
        noise = (x - alpha * clean) / sigma
        made = {"x0": clean, "epsilon": noise, "flow": noise - clean, "v": alpha * noise - sigma * clean, "edm": clean}
        return made[self.prediction].reshape(x_t.shape).float()


class Autoencoder:
    """Reconstructs its images exactly and everything else through a few directions."""

    def __init__(self, images):
        self.mean = images.flatten(1).mean(0)
        self.basis = torch.linalg.svd(images.flatten(1) - self.mean, full_matrices=False)[2][:12]

    def encode(self, images):
        code = (images.flatten(1) - self.mean) @ self.basis.T
        return code, torch.zeros_like(code)

    def decode(self, z):
        return (z @ self.basis + self.mean).reshape(len(z), *SIDES)


@pytest.fixture(scope="module")
def audit():
    data, _ = make_audit(41, n_train=60, n_holdout=60, samples=40)
    stacked = {each.name: np.stack([record.pixels for record in each.images]) for each in (data.train, data.holdout)}
    return data, {name: torch.from_numpy(images).float() for name, images in stacked.items()}


@pytest.mark.parametrize("prediction", ["x0", "epsilon", "flow", "v"])
def test_a_denoiser_that_knows_its_images_gives_them_away(audit, prediction):
    """Whatever the network predicts, both attacks tell members from others; with fresh memories they tell nothing."""
    data, images = audit
    known = Memoriser(images["train"] / 127.5 - 1, 0.5, prediction)
    found = WhiteBox().compute(replace(data, generator=known))
    for name in ("privacy.sima", "privacy.pia"):
        assert found[name].estimate.value > 0.9, name
        assert found[name].test.p < 0.01
        assert found[name].selftest.status == "not_run"
    assert found["privacy.reconstruction"].status == "skipped"
    assert "no encode" in found["privacy.reconstruction"].reason
    strangers, _ = make_audit(42, n_train=60, n_holdout=60, samples=40)
    other = torch.from_numpy(np.stack([record.pixels for record in strangers.train.images])).float() / 127.5 - 1
    calm = WhiteBox().compute(replace(data, generator=Memoriser(other, 0.5, prediction)))
    for name in ("privacy.sima", "privacy.pia"):
        assert abs(calm[name].estimate.value - 0.5) < 0.2
        assert calm[name].test.p > 0.001


@pytest.mark.parametrize("prediction", ["x0", "epsilon", "flow", "v"])
def test_noise_is_read_from_every_kind_of_prediction(audit, prediction):
    """All forms of one network show the same noise."""
    _, images = audit
    clean = images["train"] / 127.5 - 1
    t = torch.full((3,), 0.3)
    x_t = 0.7 * clean[:3] + 0.3 * torch.randn(3, *SIDES, generator=torch.Generator().manual_seed(0))
    expected = noise_of(Memoriser(clean, 0.5, "epsilon"), x_t, t)
    model = Memoriser(clean, 0.5, prediction)
    if prediction == "v":  # v-prediction belongs to variance-preserving noise
        model.noise_level = lambda t: (torch.cos(t), torch.sin(t))
        reference = Memoriser(clean, 0.5, "epsilon")
        reference.noise_level = model.noise_level
        expected = noise_of(reference, x_t, t)
    assert torch.allclose(noise_of(model, x_t, t), expected, atol=1e-4)


def test_reconstruction_tells_members_of_an_overfitted_autoencoder(audit):
    """An autoencoder fitted to the training images alone reconstructs them better than others."""
    data, images = audit
    found = WhiteBox().compute(replace(data, generator=Autoencoder(images["train"])))
    assert found["privacy.reconstruction"].estimate.value > 0.6
    assert found["privacy.sima"].status == "skipped"
    assert "no denoise" in found["privacy.sima"].reason


def test_refusals(audit):
    """No holdout, too few patients, and a prediction without noise in it are refused with a sentence."""
    data, images = audit
    model = Memoriser(images["train"] / 127.5 - 1, 0.5, "edm")
    with pytest.raises(Insufficient, match="holdout"):
        WhiteBox().compute(replace(data, holdout=None, generator=model))
    small, _ = make_audit(43, n_train=15, n_holdout=60, samples=40)
    with pytest.raises(Insufficient, match="20 patients"):
        WhiteBox().compute(replace(small, generator=model))
    assert "edm" in WhiteBox().compute(replace(data, generator=model))["privacy.sima"].reason
