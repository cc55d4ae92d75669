"""A user's classifier as something to explain: ONNX or TorchScript in, a torch module with named layers out."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtrust.errors import ConfigError, DataError, SafetyError
from medtrust.types import Score

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["Classifier", "layers", "load_classifier"]


@dataclass(frozen=True, slots=True)
class Classifier:
    """A network with what is known of its input.

    Args:
        network: Maps its own layout of images to scores or probabilities [N, K].
        channels: Channels it asks for; 0 where the file does not say.
        size: Height and width it asks for; None where the file does not say.
        channels_last: It asks for [N, H, W, C].
        fresh: Makes the same network with random parameters, from a seed.
    """

    network: nn.Module
    channels: int
    size: tuple[int, int] | None
    channels_last: bool
    fresh: Callable[[int], nn.Module]

    def score(
        self, label: int | None, layer: str = "", baselines: Tensor | None = None, seed: int | None = None
    ) -> Score:
        """The score of one class, or of the class that the network itself predicts for each image.

        Probabilities become logits, because a probability near 1 has no slope left to explain.

        Args:
            label: Number of the class; None for the predicted one.
            layer: Layer for class activation maps.
            baselines: [B, C, H, W], for expected gradients.
            seed: Random parameters from this seed in place of the real ones.
        """
        network = self.network if seed is None else self.fresh(seed)

        def function(images: Tensor) -> Tensor:
            return _chosen(network(self.arranged(images)), label)

        return Score(function, network, layer, baselines)

    def arranged(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] in the layout and with the channels that the network asks for."""
        if self.channels and images.shape[1] != self.channels:
            if images.shape[1] != 1:
                raise DataError(f"the network asks for {self.channels} channels, the images have {images.shape[1]}")
            images = images.expand(-1, self.channels, -1, -1)
        return images.permute(0, 2, 3, 1) if self.channels_last else images


def _chosen(answer: Tensor, label: int | None) -> Tensor:

    flat = answer.flatten(1)
    if flat.shape[1] == 1:
        if label not in (None, 0):
            raise ConfigError(f"the network gives one number, so there is no class {label}")
        return flat[:, 0]
    sums = flat.detach().sum(1)
    if bool(((sums - 1).abs() < 1e-4).all()) and bool((flat.detach() >= 0).all()):
        flat = flat.clamp_min(1e-12).log() - (1 - flat).clamp_min(1e-12).log()
    if label is None:
        return flat.gather(1, flat.detach().argmax(1, keepdim=True))[:, 0]
    if not 0 <= label < flat.shape[1]:
        raise ConfigError(f"the network knows classes 0 to {flat.shape[1] - 1}, not {label}")
    chosen: torch.Tensor = flat[:, label]
    return chosen


def load_classifier(path: Path, *, allow_code: bool = False) -> Classifier:
    """Open a classifier.

    Args:
        path: `.onnx`, or TorchScript in `.pt`, `.pth` or `.ts`.
        allow_code: Open TorchScript, which is a program: only for files you trust.

    Raises:
        ConfigError: No such file, another suffix, or the package that reads ONNX is missing.
        DataError: The file cannot be read or converted.
        SafetyError: TorchScript without `allow_code`, or an ONNX file that points at other files.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is no file; give the classifier as .onnx or TorchScript")
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return _onnx(path)
    if suffix in (".pt", ".pth", ".ts", ".torchscript"):
        if not allow_code:
            raise SafetyError(f"{path} may be TorchScript, which is a program; add --allow-code if you trust the file")
        return _scripted(path)
    raise ConfigError(f"{path}: classifiers are read from .onnx and from TorchScript (.pt, .pth, .ts), not {suffix!r}")


def layers(score: Score, images: Tensor) -> dict[str, tuple[int, ...]]:
    """Layers that can be looked at, in the order they run, with the shape [K, h, w] of their maps.

    Args:
        score: With a network.
        images: At least one image to run.
    """
    import torch

    found: dict[str, tuple[int, ...]] = {}
    count: dict[str, int] = {}
    handles = []

    def note(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _given: object, output: object) -> None:
            count[name] = count.get(name, 0) + 1
            if isinstance(output, torch.Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
                found[name] = tuple(output.shape[1:])

        return hook

    for name, module in score.network.named_modules():
        if name and not any(module.children()):
            handles.append(module.register_forward_hook(note(name)))
    try:
        with torch.no_grad():
            score(images[:1])
    finally:
        for handle in handles:
            handle.remove()
    return {name: shape for name, shape in found.items() if count[name] == 1}


def _onnx(path: Path) -> Classifier:
    try:
        import onnx
        import onnx2torch
    except ImportError as missing:
        raise ConfigError(f"{path}: {missing.name} is not installed; pip install 'medtrust[classifier]'") from missing
    try:
        model = onnx.load(str(path), load_external_data=False)
        if any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer):
            raise SafetyError(f"{path} keeps weights in other files; store them inside the file and try again")
        network = onnx2torch.convert(model).eval()
    except SafetyError:
        raise
    except Exception as error:
        raise DataError(f"{path} could not be turned into a torch network: {type(error).__name__}: {error}") from error
    _without_softmax(network)
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    if len(shape) != 4:
        raise DataError(f"{path}: the network's first input has {len(shape)} axes, an image classifier's has 4")
    last = shape[3] in (1, 3) and shape[1] not in (1, 3)
    channels, size = (shape[3], shape[1:3]) if last else (shape[1], shape[2:])

    def fresh(seed: int) -> nn.Module:
        return _Quiet(_randomised(copy.deepcopy(network), seed))

    return Classifier(_Quiet(network), channels, _size(size), last, fresh)


def _size(sides: Any) -> tuple[int, int] | None:
    return (int(sides[0]), int(sides[1])) if all(sides) else None


def _without_softmax(network: nn.Module) -> None:
    """Take a softmax at the very end away: its input is the logit that is to be explained."""
    import torch

    last = [name for name, module in network.named_modules() if not any(module.children())]
    if last and "softmax" in type(network.get_submodule(last[-1])).__name__.lower():
        parent, _, name = last[-1].rpartition(".")
        setattr(network.get_submodule(parent), name, torch.nn.Identity())


def _randomised(network: Any, seed: int) -> Any:
    """Fresh parameters and constants of the same mean and spread: nothing that was learned is left."""
    import torch

    rng = torch.Generator().manual_seed(seed % 2**63)
    with torch.no_grad():
        for value in network.parameters():
            if value.numel() > 1:
                noise = torch.randn(value.shape, generator=rng).to(value)
                value.copy_(value.mean() + noise * value.std(unbiased=False))
    return network


def _Quiet(network: nn.Module) -> nn.Module:  # noqa: N802 - makes a class of torch's, which is imported when needed
    """A network whose converter's warnings about its own code do not reach the user."""
    import torch

    class Quiet(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network.requires_grad_(False)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answer: torch.Tensor = self.network(images)
            return answer

    return Quiet().eval()


def _scripted(path: Path) -> Classifier:
    import torch

    load: Callable[..., Any] = torch.jit.load  # type: ignore[assignment, unused-ignore]  # torch leaves it untyped
    try:
        script = load(str(path), map_location="cpu").eval()
    except RuntimeError as error:
        reason = str(error).splitlines()[0][:200]
        raise DataError(f"{path} is no TorchScript file: {reason}; save it with torch.jit.save") from error
    network = _tapped(script)

    def fresh(seed: int) -> nn.Module:
        return _tapped(_randomised(load(str(path), map_location="cpu").eval(), seed))

    return Classifier(network, 0, None, False, fresh)


def _tapped(script: Any) -> nn.Module:
    """A module around TorchScript whose spatial activations pass through named layers, so that hooks see them.

    Hooks do not reach into a compiled graph. So the graph is made to return its activations too.
    """
    import torch

    jit: Any = torch.jit
    frozen = jit.freeze(script)
    graph = frozen.inlined_graph.copy()
    kinds = ("aten::_convolution", "aten::conv2d", "aten::relu", "aten::relu_", "aten::silu", "aten::hardtanh",
             "aten::gelu", "aten::elu", "aten::leaky_relu", "aten::tanh", "aten::max_pool2d")  # fmt: skip
    nodes = [node for node in graph.nodes() if node.kind() in kinds]
    names = [f"{node.kind().removeprefix('aten::').strip('_')}_{i}" for i, node in enumerate(nodes)]
    outputs = [*graph.outputs()][:1] + [node.output() for node in nodes]
    bundle = graph.create("prim::TupleConstruct", outputs, 1)
    graph.appendNode(bundle)
    bundle.output().setType(torch._C.TupleType([value.type() for value in outputs]))
    graph.eraseOutput(0)
    graph.registerOutput(bundle.output())
    graph.eraseInput(0)
    run = torch._C._create_function_from_graph("forward", graph)

    class Tapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.taps = torch.nn.ModuleDict({name: torch.nn.Identity() for name in names})

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if torch.is_grad_enabled() and not images.requires_grad:
                images = images.detach().requires_grad_()  # the weights are constants: without this nothing has a slope
            with jit.optimized_execution(False):  # fused pieces would hide activations from the gradient
                answer, *seen = run(images)
            for name, activation in zip(names, seen, strict=True):
                self.taps[name](activation)
            return answer  # type: ignore[no-any-return]

    return Tapped().eval()
