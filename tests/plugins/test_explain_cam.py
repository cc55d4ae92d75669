"""Class activation maps and expected gradients: their peers' numbers, any scalar, any network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from medtrust import ConfigError
from medtrust.classifier import layers
from medtrust.types import Score
from medtrust_explain.cam import activation_maps, gradcam, hirescam, layercam
from medtrust_explain.frechet import frechet_influence, frechet_score
from medtrust_explain.gradients import expected_gradients, gradients_at


class Net(nn.Module):
    """A classifier with odd sizes and dense layers after the maps."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(inplace), nn.MaxPool2d(2), nn.Conv2d(5, 7, 3), nn.Tanh()
        )
        self.head = nn.Sequential(nn.Flatten(), nn.LazyLinear(6), nn.ReLU(), nn.Linear(6, 4))

    def forward(self, x):
        return self.head(self.body(x))


@pytest.fixture
def network():
    net = Net().eval()
    with torch.no_grad():
        net(torch.zeros(1, 3, 17, 23))
    return net


@pytest.fixture
def images():
    return torch.randn(5, 3, 17, 23)


def logit(network, k=2, layer=""):
    return Score(lambda x: network(x)[:, k], network, layer)


@pytest.mark.parametrize("layer", ["body.0", "body.3", "body.4"])
@pytest.mark.parametrize(("ours", "theirs"), [(gradcam, "GradCAM"), (hirescam, "HiResCAM"), (layercam, "LayerCAM")])
def test_maps_are_those_of_pytorch_grad_cam(network, images, ours, theirs, layer):
    """Same network, layer and class: equal before rescaling, to the rounding of the gradient."""
    peer = pytest.importorskip("pytorch_grad_cam", reason="the peer pytorch-grad-cam is not installed")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    module = dict(network.named_modules())[layer]
    with getattr(peer, theirs)(network, [module]) as cam:
        targets = [ClassifierOutputTarget(2)] * len(images)
        cam.outputs = outputs = cam.activations_and_grads(images.clone().requires_grad_())
        network.zero_grad()
        sum(t(o) for t, o in zip(targets, outputs, strict=True)).backward()
        activations = cam.activations_and_grads.activations[0].detach().numpy()
        gradients = cam.activations_and_grads.gradients[0].detach().numpy()
        expected = cam.get_cam_image(images, module, targets, activations, gradients, False)
    combine = {
        "GradCAM": lambda a, g: (g.mean((2, 3), keepdim=True) * a).sum(1),
        "HiResCAM": lambda a, g: (g * a).sum(1),
        "LayerCAM": lambda a, g: (g.clamp_min(0) * a).sum(1),
    }[theirs]
    found = activation_maps(logit(network, layer=layer), images, combine, resize=False)
    assert np.abs(found.numpy() - np.maximum(expected, 0)).max() <= 1e-5
    whole = ours(logit(network, layer=layer), images)
    assert whole.shape == (5, 17, 23)
    resized = torch.nn.functional.interpolate(found[:, None], size=(17, 23), mode="bilinear")[:, 0]
    assert torch.equal(whole, resized)


def test_grad_cam_is_that_of_captum(network, images):
    """LayerGradCam on the same layer and class."""
    attr = pytest.importorskip("captum.attr", reason="the peer captum is not installed")
    expected = attr.LayerGradCam(network, network.body[3]).attribute(images, target=2, relu_attributions=True)
    combine = lambda a, g: (g.mean((2, 3), keepdim=True) * a).sum(1)  # noqa: E731
    found = activation_maps(logit(network, layer="body.3"), images, combine, resize=False)
    assert torch.allclose(found, expected[:, 0], atol=1e-5)


def test_expected_gradients_are_captums_with_its_own_draws(network, images, monkeypatch):
    """GradientShap's draws of baselines and of α, given to our gradients, give GradientShap's attributions."""
    attr = pytest.importorskip("captum.attr", reason="the peer captum is not installed")
    baselines = torch.randn(4, 3, 17, 23)
    drawn = {"picks": [], "alphas": []}
    uniform, choice = np.random.uniform, np.random.choice

    def keep(kind, draw):
        def wrapped(*args, **kwargs):
            drawn[kind].append(np.asarray(draw(*args, **kwargs)))
            return drawn[kind][-1]

        return wrapped

    monkeypatch.setattr(np.random, "uniform", keep("alphas", uniform))
    monkeypatch.setattr(np.random, "choice", keep("picks", choice))
    expected = attr.GradientShap(network).attribute(images, baselines=baselines, n_samples=6, stdevs=0.0, target=2)
    alphas, picks = (torch.as_tensor(np.concatenate(drawn[k])) for k in ("alphas", "picks"))
    assert len(alphas) == len(picks) == 30
    repeated = images.repeat_interleave(6, 0)
    found = gradients_at(logit(network), repeated, baselines[picks], alphas).view(5, 6, 3, 17, 23).mean(1)
    assert torch.allclose(found, expected.to(found), atol=1e-5)


def test_expected_gradients_add_up():
    """A smooth score is explained to a hundredth; one that jumps is not, and the residual says so."""
    torch.manual_seed(0)
    images, baselines = torch.randn(6, 1, 9, 7), torch.randn(16, 1, 9, 7)
    smooth = Score(lambda x: torch.tanh(x.sum((1, 2, 3)) / 8), baselines=baselines)
    answer = expected_gradients(smooth, images)
    assert answer.residual < 0.01
    change = smooth(images) - smooth(baselines[:8]).mean()
    assert torch.allclose(answer.maps.sum((1, 2, 3)), change, atol=1e-3)
    steep = Score(lambda x: torch.sigmoid(4000 * x.sum((1, 2, 3))), baselines=baselines)
    assert expected_gradients(steep, images).residual > 0.1
    with pytest.raises(ConfigError, match="baselines"):
        expected_gradients(Score(smooth.function), images)


def test_any_scalar_and_the_chosen_layer(network, images):
    """A difference of logits is explained; without a name the last layer with a map is taken."""
    assert list(layers(logit(network), images)) == ["body.0", "body.1", "body.2", "body.3", "body.4"]
    assert torch.equal(gradcam(logit(network), images), gradcam(logit(network, layer="body.4"), images))
    gap = Score(lambda x: network(x) @ torch.tensor([1.0, -1, 0, 0]), network, "body.4")
    assert not torch.equal(gradcam(gap, images), gradcam(logit(network, 0, "body.4"), images))
    twice = Score(lambda x: network(x)[:, 0] + network(x)[:, 1], network, "body.4")
    with pytest.raises(ConfigError, match="ran 2 times"):
        gradcam(twice, images)
    with pytest.raises(ConfigError, match="no layer 'body"):
        gradcam(logit(network, layer="body.9"), images)
    with pytest.raises(ConfigError, match="torch network"):
        gradcam(Score(lambda x: x.sum((1, 2, 3))), images)


def test_an_activation_in_place_changes_nothing(network, images):
    """A module that overwrites the activations of the chosen layer is explained as its copy that does not."""
    other = Net(inplace=True).eval()
    with torch.no_grad():
        other(images)
    other.load_state_dict(network.state_dict())
    assert torch.equal(hirescam(logit(other, layer="body.0"), images), hirescam(logit(network, layer="body.0"), images))


def test_batches_and_frozen_networks_change_nothing(network):
    """Map i depends on image i; parameters without gradients, views, one image and none at all."""
    images = torch.randn(131, 3, 17, 46)[..., ::2]
    whole = layercam(logit(network), images)
    one = torch.cat([layercam(logit(network), images[i : i + 1]) for i in (0, 64, 130)])
    assert torch.allclose(whole[[0, 64, 130]], one, atol=1e-6)
    network.requires_grad_(False)
    assert torch.equal(layercam(logit(network), images), whole)
    assert layercam(logit(network, layer="body.3"), images[:0]).shape == (0, 17, 23)
    assert (gradcam(logit(network), images) >= 0).all()


def test_frechet_influence_is_the_distances_derivative():
    """Adding one image to n moves the exact distance by I / (n + 1), up to 1 / n."""
    from medtrust import stats

    rng = torch.Generator().manual_seed(3)
    d, n = 6, 4000
    synthetic = torch.randn(n, d, generator=rng, dtype=torch.float64) @ torch.randn(d, d, generator=rng).double() + 1
    real = torch.randn(3000, d, generator=rng, dtype=torch.float64)
    centre, slope, curvature, constant = frechet_influence(synthetic, real)
    before = stats.frechet_distance(synthetic, real)
    for f in synthetic[:5] * 1.5:
        away = f - centre
        predicted = float(away @ slope + away @ curvature @ away - constant) / (n + 1)
        exact = stats.frechet_distance(torch.cat([synthetic, f[None]]), real) - before
        assert predicted == pytest.approx(exact, rel=0.03, abs=2e-5)


def test_frechet_score_maps_what_moves_the_distance():
    """A bright square that only synthetic images have is where the distance comes from."""
    torch.manual_seed(1)
    maps = (nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.ReLU())
    network = nn.Sequential(*maps, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    real, synthetic = torch.rand(80, 1, 16, 16) * 0.1, torch.rand(80, 1, 16, 16) * 0.1
    synthetic[:, :, 3:8, 9:14] += 0.8
    score = frechet_score(network, synthetic, real)
    maps = hirescam(score, synthetic)
    inside = maps[:, 2:9, 8:15].sum((1, 2)) / maps.sum((1, 2)).clamp_min(1e-12)
    assert inside.mean() > 0.6
    # influences average to nothing over the set itself
    assert score(synthetic).detach().mean() == pytest.approx(0, abs=1e-6)
