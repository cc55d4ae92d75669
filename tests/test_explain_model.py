"""A user's classifier: ONNX and TorchScript give the same maps as the torch network they came from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from medtrust import ConfigError, DataError, SafetyError
from medtrust.classifier import layers, load_classifier
from medtrust.cli import main
from medtrust.report import read_report
from medtrust.types import Score
from medtrust_explain.cam import gradcam, layercam


def network():
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3), nn.Softmax(1),
    ).eval()  # fmt: skip


@pytest.fixture
def images():
    return torch.rand(9, 3, 24, 20, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def scripted(tmp_path):
    path = tmp_path / "net.pt"
    torch.jit.save(torch.jit.script(network()), str(path))
    return path


@pytest.fixture
def onnx_file(tmp_path):
    """An ONNX file written node by node: convolution, activation, mean, dense, softmax; NHWC as Keras has it."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnx2torch", reason="onnx2torch is not installed")
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(3)
    weights = {"w": rng.normal(size=(5, 3, 3, 3)), "b": rng.normal(size=5), "d": rng.normal(size=(5, 3))}
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w", "b"], ["c"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("MatMul", ["f", "d"], ["m"]),
        helper.make_node("Softmax", ["m"], ["y"], axis=1),
    ]
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 24, 20, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )  # fmt: skip
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path, weights


def test_torchscript_gives_the_networks_own_maps(scripted, images):
    """Layers get names; maps and probabilities as logits are those of the network in memory."""
    own = network()
    loaded = load_classifier(scripted, allow_code=True)
    score = loaded.score(1)
    names = list(layers(score, images))
    assert [name.split(".")[1].rsplit("_", 1)[0] for name in names] == [
        "conv2d",
        "relu",
        "max_pool2d",
        "conv2d",
        "relu",
    ]
    plain = Score(lambda x: own(x)[:, 1].log() - (1 - own(x)[:, 1]).log(), own, "5")
    assert torch.allclose(score(images), plain(images), atol=1e-5)
    once = Score(lambda x: torch.logit(own(x)[:, 1]), own, "5")
    for maps in (gradcam, layercam):
        assert torch.allclose(maps(score, images), maps(once, images), atol=1e-5)
    assert not torch.allclose(loaded.score(1, seed=3)(images), score(images), atol=1e-2)


def test_onnx_in_channels_last_gives_the_formulas_maps(onnx_file, images):
    """Grad-CAM of a linear head over averaged maps is known: the class weights times the maps, over their size."""
    path, weights = onnx_file
    loaded = load_classifier(path)
    assert (loaded.channels, loaded.size, loaded.channels_last) == (3, (24, 20), True)
    w, b, d = (torch.tensor(weights[k]).float() for k in "wbd")
    maps = torch.relu(torch.nn.functional.conv2d(images, w, b, padding=1))
    assert torch.allclose(loaded.score(2)(images), maps.mean((2, 3)) @ d[:, 2], atol=1e-4)
    expected = (maps * d[:, 2].view(1, -1, 1, 1)).sum(1).clamp_min(0) / (24 * 20)
    layer = next(name for name in layers(loaded.score(2), images) if name.endswith("Relu"))
    assert torch.allclose(gradcam(loaded.score(2, layer), images), expected, atol=1e-5)


def test_a_transposed_map_is_not_chosen(images):
    """Networks that came from channels-last frameworks turn their maps to [h, w, K] before the dense part."""

    class Turn(nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1)

    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), Turn(), nn.Flatten(), nn.LazyLinear(2)).eval()
    own = Score(lambda x: net(x)[:, 0], net)
    assert torch.equal(gradcam(own, images), gradcam(Score(own.function, net, "1"), images))


def test_refusals(tmp_path, scripted):
    """Code without consent, no file, another format, a file that is none, a class that is none."""
    with pytest.raises(SafetyError, match="allow-code"):
        load_classifier(scripted)
    with pytest.raises(ConfigError, match="no file"):
        load_classifier(tmp_path / "no.onnx")
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"nothing")
    with pytest.raises(DataError, match="TorchScript"):
        load_classifier(broken, allow_code=True)
    (tmp_path / "a.h5").write_bytes(b"")
    with pytest.raises(ConfigError, match="h5"):
        load_classifier(tmp_path / "a.h5")
    with pytest.raises(ConfigError, match="classes 0 to 2"):
        load_classifier(scripted, allow_code=True).score(7)(torch.rand(1, 3, 24, 20))


def test_the_command_explains_lists_layers_and_keeps_pictures_back(tmp_path, scripted, images, capsys):
    """Report files appear, grey images are repeated to colour, and without --evidence no picture is written."""
    folder = tmp_path / "set"
    folder.mkdir()
    for i in range(9):
        pixels = (images[i].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    command = ["explain", str(folder), "--model", str(scripted), "--allow-code", "--quiet"]
    assert main([*command, "--layers"]) == 0
    assert "relu" in capsys.readouterr().out
    assert main([*command, "--out", str(tmp_path / "out"), "--class", "1"]) == 0
    report = read_report(tmp_path / "out" / "report.json")
    (row,) = report.results
    assert row.id == "explanation.hirescam[classifier]"
    assert row.pillar == "explanation"
    assert not list((tmp_path / "out").glob("evidence/*"))
    assert main([*command, "--out", str(tmp_path / "shown"), "--evidence", "full"]) == 0
    assert list((tmp_path / "shown").glob("evidence/*.png"))
    flat = tmp_path / "flat"
    flat.mkdir()
    Image.fromarray(np.full((24, 20, 3), 128, np.uint8)).save(flat / "a.png")
    assert main(["explain", str(flat), *command[2:], "--layers"]) == 2
    assert "flat field" in capsys.readouterr().err
    assert main(["explain", str(folder)]) == 2
    assert "--model" in capsys.readouterr().err
