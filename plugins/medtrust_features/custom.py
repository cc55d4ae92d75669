"""A network that the user brings: TorchScript, pt2 or ONNX, with a card that says how images are prepared for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medtrust.errors import ConfigError, DataError
from medtrust.weights import sha256_of
from medtrust_features.card import Card, read_card
from medtrust_features.network import NetworkSpace
from medtrust_features.sandbox import Sandboxed, kind_of

__all__ = ["Custom"]

Run = Callable[[torch.Tensor], torch.Tensor]


class Custom(NetworkSpace):
    """Features of the user's own network: `--features custom --weights custom=PATH`.

    ONNX is data and runs in onnxruntime. TorchScript and pt2 are programs and run in a confined process
    (`medtrust.sandbox`). Networks run on the CPU in the precision that they were exported in.

    Args:
        weights: The network's file, with its card beside it.
        device: cpu.

    Raises:
        ConfigError: The card is missing or wrong, onnxruntime is not installed, or the device is not the CPU.
        DataError: The file is none of the three.
    """

    def __init__(self, weights: Path, *, device: str = "cpu") -> None:
        path = Path(weights)
        if torch.device(device).type != "cpu":
            raise ConfigError("the feature space custom runs on the CPU; leave --device out")
        card = read_card(path)
        kind = kind_of(path)
        self.confinement: dict[str, str] = {}
        run: Run
        if kind:
            run = boxed = Sandboxed(path, kind, output=card.output)
            self.confinement = boxed.confinement
        else:
            run, batch = _onnx(path, card.output)
            self.micro_batch = batch or self.micro_batch
        super().__init__(
            "custom",
            _shaped(run, card),
            card.preparation,
            weights_sha256=sha256_of(path),
            version=f"1 {kind or 'onnx'}; {card.describe()}",
        )

    @property
    def facts(self) -> dict[str, str]:
        """What the report says of this space; of a program, also what its process was denied."""
        held = ", ".join(f"{what} {how}" for what, how in self.confinement.items())
        return super().facts | ({"confined": held} if held else {})


def _shaped(run: Run, card: Card) -> Run:
    def call(images: torch.Tensor) -> torch.Tensor:
        ready = images.permute(0, 2, 3, 1) if card.layout == "NHWC" else images
        found = run(ready.contiguous())
        if card.pool == "mean" and found.ndim == 4:
            return found.float().mean(dim=(2, 3))
        return found.flatten(1) if found.ndim == 4 and found.shape[2:] == (1, 1) else found

    return call


def _onnx(path: Path, output: int) -> tuple[Run, int | None]:
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(f"{path}: ONNX networks need onnxruntime; pip install 'medtrust[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its native module, which differ between releases
        first = str(error).strip().partition("\n")[0]
        raise DataError(f"{path} is no TorchScript, pt2 or ONNX network ({first}); export it again") from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or inputs[0].type not in ("tensor(float)", "tensor(float16)") or output >= len(outputs):
        raise DataError(f"{path} must have one float input and at least {output + 1} outputs; export it so")
    dtype = np.float16 if inputs[0].type == "tensor(float16)" else np.float32
    wanted = [outputs[output].name]

    def call(images: torch.Tensor) -> torch.Tensor:
        try:
            found: Any = session.run(wanted, {inputs[0].name: images.numpy().astype(dtype)})[0]
        except Exception as error:  # as above
            first = str(error).strip().partition("\n")[0]
            raise DataError(f"{path} does not take {list(images.shape)} ({first}); check its card") from error
        return torch.from_numpy(np.asarray(found, dtype=np.float32))

    fixed = inputs[0].shape[0]
    return call, fixed if isinstance(fixed, int) else None
