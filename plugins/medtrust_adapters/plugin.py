"""Registration of the adapters; each is imported when its kind is first opened."""

from collections.abc import Iterator
from typing import Any

from medtrust.hookspecs import hookimpl
from medtrust.types import GeneratorSpec

_HOME = "medtrust_adapters"


def _spec(name: str, where: str, summary: str, **facts: Any) -> GeneratorSpec:
    return GeneratorSpec(name=name, version="1", factory=f"{_HOME}.{where}", summary=summary, **facts)


@hookimpl
def medtrust_generators() -> Iterator[GeneratorSpec]:
    """Offer the adapters, the least trusting first."""
    yield _spec(
        "folder",
        "folder:Folder",
        "images that lie in a folder, npz, DICOM or NIfTI tree, drawn by seed",
        family="folder",
    )
    yield _spec("zoo", "zoo:Zoo", "a checkpoint folder of any kind that `medtrust train` makes: safetensors and a card")
    yield _spec(
        "diffusers", "diffusers_folder:Diffusers", "a pipeline folder of diffusers: safetensors, no code of its own",
        family="diffusion", requires=("diffusers",), extra="diffusers",
    )  # fmt: skip
    yield _spec(
        "http", "http:Http", "a service that speaks the Open Inference Protocol v2", target="text", network=True
    )
    yield _spec(
        "onnx", "onnx_graph:Onnx", "an ONNX graph: noise to images, or a denoiser driven by our sampler",
        trust="graph", requires=("onnx", "onnxruntime"), extra="onnx",
    )  # fmt: skip
    yield _spec(
        "monai", "monai_bundle:Monai", "a MONAI bundle: its networks from an allow-list, its config never evaluated",
        trust="graph", requires=("monai",), extra="monai",
    )  # fmt: skip
    yield _spec("torchscript", "confined:TorchScript", "a TorchScript file, scanned, then confined", trust="graph")
    yield _spec("pt2", "confined:Pt2", "a torch.export file (.pt2), scanned, then confined", trust="graph")
    yield _spec(
        "python",
        "confined:PythonEntry",
        "a factory by import path: package.module:factory",
        trust="code",
        target="text",
    )
    yield _spec("medigan", "confined:Medigan", "a medigan package folder or zip", family="gan", trust="code")
    yield _spec("stylegan", "confined:StyleGan", "a StyleGAN2-ADA or StyleGAN3 pickle", family="gan", trust="code")
