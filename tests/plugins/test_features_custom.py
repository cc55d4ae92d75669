"""The user's own networks: TorchScript and pt2 in a confined process, ONNX, and their cards."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from medtrust.errors import ConfigError, DataError
from medtrust.types import Intensity
from medtrust_features.card import read_card
from medtrust_features.custom import Custom
from medtrust_features.network import NetworkSpace
from medtrust_features.preparation import Preparation
from medtrust_features.sandbox import LIMITS, Sandboxed, kind_of

LEVELS = Intensity(0, 255, "level")
CARD = (
    'size = 16\nchannels = 3\nrange = [0, 1]\nmean = [0.5, 0.4, 0.3]\nstd = 0.2\nresize = "bicubic"\nantialias = true\n'
)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NetworkSpace, "micro_batch", 2)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 5, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).relu().mean(dim=(2, 3))


def expected(images: torch.Tensor) -> torch.Tensor:
    prepared = Preparation((16, 16), mean=(0.5, 0.4, 0.3), std=(0.2,) * 3, resize="bicubic", antialias=True)
    with torch.no_grad():
        return Net()(prepared.apply(images, LEVELS, "custom"))


def pictures(n: int, channels: int = 3) -> torch.Tensor:
    g = torch.Generator().manual_seed(4)
    return torch.randint(0, 256, (n, channels, 21, 27), generator=g, dtype=torch.uint8)


def export(kind: str, folder: Path) -> Path:
    path = folder / {"torchscript": "net.pt", "pt2": "net.pt2", "onnx": "net.onnx"}[kind]
    sample = torch.zeros(2, 3, 16, 16)
    if kind == "torchscript":
        torch.jit.script(Net()).save(path)
    elif kind == "pt2":
        torch.export.save(torch.export.export(Net().eval(), (sample,)), path)
    else:
        save_onnx(Net(), path)
    path.with_suffix(".toml").write_text(CARD)
    return path


def save_onnx(net: Net, path: Path) -> None:
    """Write the graph by hand, so that no exporter is needed."""
    onnx = pytest.importorskip("onnx", reason="writes the network of this test")
    h = onnx.helper
    tensors = [onnx.numpy_helper.from_array(p.detach().numpy(), n) for n, p in net.conv.named_parameters()]
    nodes = [
        h.make_node("Conv", ["x", "weight", "bias"], ["c"], strides=[2, 2]),
        h.make_node("Relu", ["c"], ["r"]),
        h.make_node("GlobalAveragePool", ["r"], ["p"]),
        h.make_node("Flatten", ["p"], ["y"]),
    ]
    ends = [
        h.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in (("x", ["n", 3, 16, 16]), ("y", ["n", 5]))
    ]
    graph = h.make_graph(nodes, "net", ends[:1], ends[1:], tensors)
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 13)], ir_version=8), path)


@pytest.mark.parametrize("kind", ["torchscript", "pt2", "onnx"])
def test_each_kind_gives_the_networks_features(kind: str, tmp_path: Path) -> None:
    """The features are those of the network on images prepared as its card says, whatever the batch."""
    if kind == "onnx":
        pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    path = export(kind, tmp_path)
    assert kind_of(path) == ("" if kind == "onnx" else kind)
    space = Custom(path)
    images = pictures(3)
    found = space.extract(images, LEVELS)
    assert torch.allclose(found, expected(images), rtol=1e-4, atol=1e-5)
    assert torch.equal(space.extract(images[2:], LEVELS), found[2:])
    assert "bicubic with antialias to 16 x 16" in space.facts["preparation"]
    if kind == "onnx":  # which starts no process
        (tmp_path / "net.toml").write_text(CARD.replace("bicubic", "bilinear"))
        assert Custom(path).digest != space.digest


class Writes(nn.Module):
    """A TorchScript program that stores its input in a file, which the language allows."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, self.name)
        return x.flatten(1)[:, :4]


class Hoards(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(3 * 1024 * 1024 * 1024)[: len(x)].view(-1, 1)


class Loops(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while bool(x.sum() < 1e9):
            x = x * 1.0
        return x.flatten(1)


def test_a_program_cannot_write_hoard_or_hang(tmp_path: Path) -> None:
    """No byte reaches a file, and memory and time are limited with a sentence that names the file."""
    images = torch.zeros(1, 3, 4, 4)
    stolen = tmp_path / "stolen"
    torch.jit.script(Writes(str(stolen))).save(tmp_path / "writes.pt")
    with contextlib.suppress(DataError):  # torch may or may not tell that its stream refused the bytes
        Sandboxed(tmp_path / "writes.pt", "torchscript")(images)
    assert not stolen.exists() or stolen.stat().st_size == 0
    torch.jit.script(Hoards()).save(tmp_path / "hoards.pt")
    with pytest.raises(DataError, match=r"failed in its own process: .*memory"):
        Sandboxed(tmp_path / "hoards.pt", "torchscript", limits=replace(LIMITS, memory_gb=12))(images)
    torch.jit.script(Loops()).save(tmp_path / "loops.pt")
    slow = Sandboxed(tmp_path / "loops.pt", "torchscript")
    slow.seconds = 1.0
    with pytest.raises(DataError, match="no answer within 1 s"):
        slow(images)
    assert slow._sandbox._process.poll() is not None


def test_the_confined_process_ends_with_its_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets nothing of the environment, the report says what it was denied, and no process stays behind."""
    monkeypatch.setenv("MEDTRUST_PSEUDONYM_KEY", "secret")
    space = Custom(export("torchscript", tmp_path))
    assert {word.split()[0] for word in space.facts["confined"].split(", ")} == {"network", "files", "memory", "cpu"}
    network = Sandboxed(tmp_path / "net.pt", "torchscript")
    process = network._sandbox._process
    if os.path.exists("/proc"):
        assert "secret" not in Path(f"/proc/{process.pid}/environ").read_text()
    network.close()
    assert process.poll() is not None
    with pytest.raises((DataError, ValueError)):
        network(torch.zeros(1, 3, 16, 16))


def test_a_card_is_needed_and_checked(tmp_path: Path) -> None:
    """Nothing is guessed: a missing card, key or wrong value is a sentence."""
    model = tmp_path / "net.onnx"
    model.write_bytes(b"not a network")
    with pytest.raises(ConfigError, match=r"net\.onnx\.toml"):
        read_card(model)
    for text, sentence in (
        ("size = 16", "lacks channels and range"),
        (CARD + "means = 3", "did you mean 'mean'"),
        (CARD.replace("std = 0.2", "std = 0"), "every std above 0"),
        (CARD.replace("channels = 3", "channels = 2"), "channels must be 1 or 3"),
        (CARD.replace("[0.5, 0.4, 0.3]", "[0.5]"), "one mean"),
        (CARD + 'layout = "HWC"', "layout is"),
        (CARD + "source = [-1000, 400]", "and a unit"),
        ("size = ", "cannot be read"),
    ):
        (tmp_path / "net.toml").write_text(text)
        with pytest.raises(ConfigError, match=sentence):
            read_card(model)
    (tmp_path / "net.toml").unlink()
    card = {"size": [20, 30], "channels": 1, "range": [-1, 1], "source": [-1000, 400], "unit": "HU", "layout": "NHWC"}
    (tmp_path / "net.onnx.json").write_text(json.dumps(card))
    assert read_card(model).preparation.size == (20, 30)
    assert read_card(model).layout == "NHWC"


def test_a_window_in_hounsfield_units_is_clipped_and_said() -> None:
    """A card may name the part of the range that the network was taught; another unit is refused."""
    prepared = Preparation((1, 3), channels=1, lo=-1, hi=1, mean=(0,), std=(1,), source=(-1000, 400), unit="HU")
    image = torch.tensor([[[[-3000, -300, 3071]]]], dtype=torch.int16)
    assert prepared.apply(image, Intensity(-1024, 3071, "HU"), "x").flatten().tolist() == [-1.0, 0.0, 1.0]
    assert "-1000 to 400 HU to -1 … 1, clipped" in prepared.describe()
    with pytest.raises(DataError, match="images are in level"):
        prepared.apply(image, LEVELS, "x")


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    (tmp_path / "net.onnx").write_bytes(b"not a network")
    (tmp_path / "net.toml").write_text(CARD)
    with pytest.raises(DataError, match="no TorchScript, pt2 or ONNX network"):
        Custom(tmp_path / "net.onnx")
    with pytest.raises(ConfigError, match="runs on the CPU"):
        Custom(tmp_path / "net.onnx", device="cuda")
