"""DINOv2 and torchxrayvision layouts: tiny random checkpoints against formulas written out anew."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional
from torchvision.models import DenseNet

from medtrust.errors import DataError
from medtrust.types import Intensity
from medtrust_features.dinov2 import PREPARATION, Dinov2
from medtrust_features.network import NetworkSpace
from medtrust_features.xrayvision import XRayVision

LEVELS = Intensity(0, 255, "level")
WIDTH, DEPTH, HIDDEN = 128, 2, 96
State = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NetworkSpace, "micro_batch", 2)


def pictures(n: int, channels: int = 3, side: int = 40) -> torch.Tensor:
    g = torch.Generator().manual_seed(9)
    return torch.randint(0, 256, (n, channels, side, side + 3), generator=g, dtype=torch.uint8)


def dino_state(grid: int, registers: int, gated: bool) -> State:
    """A checkpoint with the names and shapes of the published ones, two blocks deep."""
    g = torch.Generator().manual_seed(grid + registers)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=g) * 0.2

    state = {
        "cls_token": random(1, 1, WIDTH),
        "pos_embed": random(1, 1 + grid * grid, WIDTH),
        "mask_token": random(1, WIDTH),
        "patch_embed.proj.weight": random(WIDTH, 3, 14, 14) * 0.1,
        "patch_embed.proj.bias": random(WIDTH),
        "norm.weight": 1 + random(WIDTH),
        "norm.bias": random(WIDTH),
    }
    if registers:
        state["register_tokens"] = random(1, registers, WIDTH)
    shapes = {"mlp.w12": (2 * HIDDEN, WIDTH), "mlp.w3": (WIDTH, HIDDEN)} if gated else {
        "mlp.fc1": (HIDDEN, WIDTH), "mlp.fc2": (WIDTH, HIDDEN)
    }  # fmt: skip
    shapes |= {"attn.qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH)}
    for i in range(DEPTH):
        for name, shape in shapes.items():
            state[f"blocks.{i}.{name}.weight"] = random(*shape)
            state[f"blocks.{i}.{name}.bias"] = random(shape[0])
        for name in ("norm1", "norm2"):
            state[f"blocks.{i}.{name}.weight"] = 1 + random(WIDTH)
            state[f"blocks.{i}.{name}.bias"] = random(WIDTH)
        for name in ("ls1", "ls2"):
            state[f"blocks.{i}.{name}.gamma"] = random(WIDTH)
    return state


def dino(s: State, images: torch.Tensor) -> torch.Tensor:
    """The published network, written out for one prepared image of 224 pixels at a time, in float64."""
    s = {name: value.double() for name, value in s.items()}

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * s[f"{name}.weight"] + s[f"{name}.bias"]

    rows = []
    for image in images.double():
        kernel = s["patch_embed.proj.weight"]
        tokens = torch.stack([
            (kernel * image[:, y : y + 14, x : x + 14]).sum((1, 2, 3)) + s["patch_embed.proj.bias"]
            for y in range(0, 224, 14) for x in range(0, 224, 14)
        ])  # fmt: skip
        position = s["pos_embed"][0]
        grid = math.isqrt(len(position) - 1)
        if grid != 16:
            plane = position[1:].T.reshape(1, WIDTH, grid, grid).float()
            if "register_tokens" in s:
                plane = functional.interpolate(plane, (16, 16), mode="bicubic", antialias=True)
            else:
                plane = functional.interpolate(plane, scale_factor=(16.1 / grid, 16.1 / grid), mode="bicubic")
            position = torch.cat([position[:1], plane[0].flatten(1).T.double()])
        x = torch.cat([s["cls_token"][0], tokens]) + position
        if "register_tokens" in s:
            x = torch.cat([x[:1], s["register_tokens"][0], x[1:]])
        for i in range(DEPTH):
            b = f"blocks.{i}."
            q, k, v = linear(norm(x, b + "norm1"), b + "attn.qkv").chunk(3, -1)
            heads = []
            for h in range(WIDTH // 64):
                part = slice(64 * h, 64 * h + 64)
                heads.append((q[:, part] @ k[:, part].T / 8).softmax(-1) @ v[:, part])
            x = x + s[b + "ls1.gamma"] * linear(torch.cat(heads, -1), b + "attn.proj")
            y = norm(x, b + "norm2")
            if b + "mlp.w12.weight" in s:
                gate, value = linear(y, b + "mlp.w12").chunk(2, -1)
                y = linear(gate * torch.sigmoid(gate) * value, b + "mlp.w3")
            else:
                y = linear(y, b + "mlp.fc1")
                y = linear(y * (1 + torch.erf(y / 2**0.5)) / 2, b + "mlp.fc2")
            x = x + s[b + "ls2.gamma"] * y
        rows.append(norm(x[0], "norm"))
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("grid", "registers", "gated"), [(16, 0, False), (37, 0, False), (37, 4, False), (16, 4, True)]
)
def test_dinov2_is_the_published_network(grid: int, registers: int, gated: bool, tmp_path: Path) -> None:
    """Class token, positions of another grid, registers, layer scale and both feed-forward kinds."""
    state = dino_state(grid, registers, gated)
    save_file(state, tmp_path / "dino.safetensors")
    space = Dinov2(tmp_path / "dino.safetensors")
    images = pictures(2)
    found = space.extract(images, LEVELS)
    expected = dino(state, PREPARATION.apply(images, LEVELS, "dinov2"))
    assert found.shape == (2, WIDTH)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    assert torch.equal(space.extract(images[1:], LEVELS), found[1:])


def test_dinov2_preparation_is_imagenets() -> None:
    """A grey level of 0.485 of the range becomes 0 in the first channel."""
    image = torch.full((1, 1, 8, 8), 0.485 * 255)
    prepared = PREPARATION.apply(image, LEVELS, "dinov2")
    assert prepared.shape == (1, 3, 224, 224)
    assert prepared[0, 0].abs().max() < 1e-5
    assert torch.allclose(prepared[0, 2], torch.tensor((0.485 - 0.406) / 0.225), atol=1e-5)


def test_another_layout_is_refused(tmp_path: Path) -> None:
    save_file({"head.weight": torch.zeros(2, 2)}, tmp_path / "w.safetensors")
    for space, what in ((Dinov2, "DINOv2 checkpoint"), (XRayVision, "torchxrayvision DenseNet")):
        with pytest.raises(DataError, match=f"not a {what}"):
            space(tmp_path / "w.safetensors")
    state = dino_state(16, 0, False)
    del state["blocks.1.ls2.gamma"]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(DataError, match=r"blocks\.1\.ls2\.gamma"):
        Dinov2(tmp_path / "w.safetensors")


def xray_network() -> DenseNet:
    torch.manual_seed(2)
    network = DenseNet(8, (2, 3), 16, 2, num_classes=18)
    network.features.conv0 = torch.nn.Conv2d(1, 16, 7, stride=2, padding=3, bias=False)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    return network.eval()


def test_xrayvision_is_its_network_in_its_range(tmp_path: Path) -> None:
    """The lower end of the declared range is -1024 and the upper 1024; features are pooled after the ReLU."""
    network = xray_network()
    torch.save({**network.state_dict(), "op_threshs": torch.zeros(18)}, tmp_path / "xray.pth")
    space = XRayVision(tmp_path / "xray.pth")
    images = pictures(3, 1, 224)[..., :224].to(torch.int32) * 257
    with torch.no_grad():
        maps = network.features(2 * 1024 * images.double().div(65535).float() - 1024)
        expected = functional.relu(maps).mean((2, 3))
    found = space.extract(images, Intensity(0, 65535, "level"))
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    colour = images[:, :, :50, :60].expand(-1, 3, -1, -1)
    grey = space.extract(images[:, :, :50, :60], Intensity(0, 65535, "level"))
    assert torch.allclose(space.extract(colour, Intensity(0, 65535, "level")), grey, rtol=1e-3, atol=1e-3)
    assert "-1024 … 1024" in space.facts["preparation"]
    torch.save(xray_network(), tmp_path / "whole.pth")
    with pytest.raises(DataError, match="without running code"):
        XRayVision(tmp_path / "whole.pth")
