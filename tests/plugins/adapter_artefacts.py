"""Tiny artefacts, each written by the library whose form it has."""

from __future__ import annotations

import io
import json
import pickle
import zipfile

import numpy as np
import torch
from torch import nn


class Tiny(nn.Module):
    """Noise [N, 4], and labels where there are classes, to images [N, 3, 4, 5] in -1..1."""

    def __init__(self, classes: int = 0) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 60)
        self.table = nn.Embedding(max(classes, 1), 60)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.linear(z)).view(-1, 3, 4, 5)


class TinyByClass(Tiny):
    def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.tanh(0.1 * self.linear(z) + self.table(labels)).view(-1, 3, 4, 5)


def seeded(module, *arguments):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return module(*arguments).eval()


def torchscript(path, module=None):
    torch.jit.script(module or seeded(Tiny)).save(str(path))
    return path


def pt2(path, module=None, example=None):
    batch = torch.export.Dim("batch", min=1, max=4096)
    module, example = module or seeded(Tiny), example or (torch.randn(2, 4),)
    exported = torch.export.export(module, example, dynamic_shapes=tuple({0: batch} for _ in example))
    torch.export.save(exported, str(path))
    return path


def onnx_image(path, *, classes=0, domain="", location=None, metadata=()):
    """A graph of one matrix product and a tanh, written by the onnx package."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(3)
    weights = [
        numpy_helper.from_array(rng.normal(size=(4, 60)).astype(np.float32), "w"),
        numpy_helper.from_array(np.array([-1, 3, 4, 5], np.int64), "shape"),
    ]
    nodes = [helper.make_node("MatMul", ["z", "w"], ["product"], domain=domain)]
    inputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 4])]
    last = "product"
    if classes:
        weights.append(numpy_helper.from_array(3 * rng.normal(size=(classes, 60)).astype(np.float32), "table"))
        inputs.append(helper.make_tensor_value_info("labels", TensorProto.INT64, ["n"]))
        nodes += [
            helper.make_node("Gather", ["table", "labels"], ["row"]),
            helper.make_node("Add", [last, "row"], ["sum"]),
        ]
        last = "sum"
    nodes += [helper.make_node("Tanh", [last], ["flat"]), helper.make_node("Reshape", ["flat", "shape"], ["image"])]
    output = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 4, 5])
    graph = helper.make_graph(nodes, "tiny", inputs, [output], weights)
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    helper.set_model_props(model, dict(metadata))
    if location is not None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())
    return path


def onnx_denoiser(path, mean=0.25):
    """The exact denoiser of one constant image: it predicts x0 = mean, whatever x and t are."""
    from onnx import TensorProto, helper, numpy_helper

    zero = numpy_helper.from_array(np.float32(0), "zero")
    level = numpy_helper.from_array(np.float32(mean), "level")
    nodes = [
        helper.make_node("Mul", ["sample", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "level"], ["flat"]),
        helper.make_node("Cast", ["timestep"], ["time"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["time", "zero"], ["no_time"]),
        helper.make_node("ReduceMax", ["no_time"], ["none"], keepdims=0),
        helper.make_node("Add", ["flat", "none"], ["prediction"]),
    ]
    inputs = [
        helper.make_tensor_value_info("sample", TensorProto.FLOAT, ["n", 1, 4, 5]),
        helper.make_tensor_value_info("timestep", TensorProto.INT64, ["n"]),
    ]
    output = helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["n", 1, 4, 5])
    graph = helper.make_graph(nodes, "denoiser", inputs, [output], [zero, level])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {"prediction": "x0", "output": "-1:1"})
    path.write_bytes(model.SerializeToString())
    return path


def diffusers_folder(folder):
    """An unconditional DDPM pipeline with a U-Net of a few thousand weights, written by diffusers."""
    from diffusers import DDIMScheduler, DDPMPipeline, UNet2DModel

    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = UNet2DModel(
            sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 8),
            norm_num_groups=4, down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
        )  # fmt: skip
    DDPMPipeline(network, DDIMScheduler(num_train_timesteps=20)).save_pretrained(str(folder), safe_serialization=True)
    return folder


def monai_bundle(folder, **extra):
    """A generator network, with metadata and weights in the places where `monai.bundle` puts them."""
    from monai.networks.nets import Generator

    definition = {"latent_shape": [6], "start_shape": [4, 4, 4], "channels": [4, 1], "strides": [2, 1]}
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = Generator(**definition)
    return _bundle(folder, network, {"network_def": {"_target_": "Generator", **definition}, **extra})


def monai_diffusion(folder):
    from monai.networks.nets import DiffusionModelUNet

    definition = {
        "spatial_dims": 2, "in_channels": 1, "out_channels": 1, "channels": [8, 8], "attention_levels": [False, False],
        "num_res_blocks": 1, "norm_num_groups": 4, "num_head_channels": 8,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = DiffusionModelUNet(**definition)
    sections = {
        "channels": [8, 8],
        "network_def": {"_target_": "monai.networks.nets.DiffusionModelUNet", **definition, "channels": "@channels"},
        "scheduler": {"_target_": "monai.networks.schedulers.DDPMScheduler", "num_train_timesteps": 30},
        "sample": "$torch.randn(1, 1, 8, 8)",
    }
    return _bundle(folder, network, sections)


def _bundle(folder, network, sections):
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    metadata = {"network_data_format": {"outputs": {"image": {"value_range": [0, 1]}}}}
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (folder / "configs" / "inference.json").write_text(json.dumps({"imports": ["$import glob"], **sections}))
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return folder


class Bomb:
    """Unpickling one makes a file: the canary of the hostile artefacts."""

    def __init__(self, canary) -> None:
        self.command = f"open({str(canary)!r}, 'w').write('ran')"

    def __reduce__(self):
        return exec, (self.command,)


def replaced(source, target, change):
    """Copy a zip, with the content of some members changed by `change(name, content)`."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            new.writestr(zipfile.ZipInfo(info.filename), change(info.filename, old.read(info)))
    return target


def saved_bomb(canary):
    """What torch.save makes of a hostile object."""
    stream = io.BytesIO()
    torch.save(Bomb(canary), stream)
    return stream.getvalue()


def pickled_bomb(canary, protocol=2):
    return pickle.dumps(Bomb(canary), protocol=protocol)
