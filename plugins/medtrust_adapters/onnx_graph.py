"""ONNX graphs: from noise to images in one run, or a denoiser that our own sampler drives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medtrust.errors import ConfigError, DataError, SafetyError
from medtrust.types import Caps, ConditionSpec
from medtrust_adapters.denoising import SAMPLING_OPTIONS, Loop
from medtrust_adapters.series import Series, noise_rows
from medtrust_adapters.values import VALUE_OPTIONS, Values, class_labels, lengths
from medtrust_generators.options import Options

__all__ = ["Onnx", "OnnxSeries"]

_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16,
          "tensor(int64)": np.int64, "tensor(int32)": np.int32}  # fmt: skip
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
_METADATA = ("output", "range", "graph", "prediction", "noise", "train_steps", "classes")


def check_onnx(path: Path) -> dict[str, str]:
    """Read a model's graph without running it.

    Args:
        path: The .onnx file.

    Returns:
        What its metadata says of the options in `_METADATA`, where the exporter wrote any.

    Raises:
        SafetyError: Weights outside the model's folder, or operators that only a library of their own can run.
        DataError: It is no ONNX model.
    """
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf raises whatever it likes
        raise DataError(f"{path} is no ONNX model ({type(error).__name__}: {error})") from error
    if not model.graph.node:
        raise DataError(f"{path} holds an empty graph; export the model again")
    for domain in {node.domain for node in _nodes(model.graph)} | {f.domain for f in model.functions}:
        if domain not in _DOMAINS and domain not in {f.domain for f in model.functions}:
            raise SafetyError(f"{path} uses operators of {domain!r}, which only a library of their own can run")
    for tensor in _tensors(model.graph):
        for entry in tensor.external_data:
            place = Path(entry.value)
            if entry.key == "location" and (place.is_absolute() or ".." in place.parts or "\\" in entry.value):
                raise SafetyError(f"{path} keeps weights at {entry.value!r}, outside its folder; do not use it")
            if entry.key == "location" and (path.parent / place).is_symlink():
                raise SafetyError(f"{path} keeps weights behind the link {entry.value!r}; copy the file there instead")
    return {p.key: p.value for p in model.metadata_props if p.key in _METADATA}


def _nodes(graph: Any) -> list[Any]:
    found = []
    pending = [graph]
    while pending:
        for node in pending.pop().node:
            found.append(node)
            for attribute in node.attribute:
                pending += [attribute.g] if attribute.HasField("g") else []
                pending += list(attribute.graphs)
    return found


def _tensors(graph: Any) -> list[Any]:
    found = list(graph.initializer)
    for node in _nodes(graph):
        for attribute in node.attribute:
            found += [attribute.t] if attribute.HasField("t") else []
            found += list(attribute.tensors)
            found += list(attribute.g.initializer) if attribute.HasField("g") else []
    return found


class OnnxSeries(Series):
    """Runs a graph on onnxruntime; with a `Loop`, once per step of a sampler.

    Args:
        session: The onnxruntime session.
        noise: Name and type of the input for noise or noisy images, and the shape of one row.
        label: Its input for labels, if any: name, type, rank.
        time: Its input for times, if any: name, type, rank.
        loop: The sampler, where it is a denoiser.
    """

    def __init__(
        self,
        session: Any,
        noise: tuple[str, Any, tuple[int, ...]],
        label: tuple[str, Any, int] | None,
        time: tuple[str, Any, int] | None,
        loop: Loop | None,
        values: Values,
        chunk: int,
        conditions: ConditionSpec,
    ) -> None:
        steps = loop.evaluations if loop else 1
        family = "diffusion" if loop else "other"
        caps = Caps(family=family, latent=int(np.prod(noise[2])), steps=steps, trust="graph")
        super().__init__(values, chunk, caps, conditions, {"process": "this one", "runtime": "onnxruntime"})
        self._session, self._noise, self._label, self._time, self._loop = session, noise, label, time, loop
        self.probe()

    def draw(self, seeds: Sequence[int], condition: Sequence[Any] | None) -> np.ndarray[Any, Any]:
        """Run the graph, or the sampler around it."""
        labels = [self.conditions.classes.index(c) for c in condition] if condition is not None else None
        if self._loop is None:
            return self._run(noise_rows(seeds, self._noise[2]), None, labels)
        return self._loop.run(seeds, self._noise[2], lambda x, t: self._run(x, t, labels))

    def _run(self, x: np.ndarray[Any, Any], t: float | None, labels: Sequence[int] | None) -> np.ndarray[Any, Any]:
        name, dtype, _ = self._noise
        feed = {name: x.astype(dtype)}
        if self._time is not None and t is not None:
            name, dtype, rank = self._time
            feed[name] = np.full((len(x),) + (1,) * (rank - 1) if rank else (), t, dtype)
        if self._label is not None and labels is not None:
            name, dtype, rank = self._label
            if np.issubdtype(dtype, np.integer):
                feed[name] = np.asarray(labels, dtype).reshape((-1,) + (1,) * (rank - 1))
            else:
                feed[name] = np.eye(len(self.conditions.classes), dtype=dtype)[list(labels)]
        try:
            output: np.ndarray[Any, Any] = self._session.run(None, feed)[0]
        except Exception as error:  # onnxruntime's errors have no common base
            text = " ".join(str(error).split())[:500]
            raise DataError(
                f"the ONNX graph failed on {[(k, list(v.shape)) for k, v in feed.items()]}: {text}"
            ) from error
        return output


class Onnx:
    """Opens an ONNX model: the `factory` of the spec `onnx`."""

    def open(self, path: Path | None, options: Mapping[str, str], device: str) -> OnnxSeries:
        """Look at the graph, then load it.

        A graph with one input for noise, and one for labels if it has classes, makes images. One whose other input is
        called t, timestep(s), time or sigma is a denoiser.

        Args:
            path: The .onnx file; weights beside it may lie in its folder.
            options: `latent` (shape of the noise where the graph leaves it open), `classes`, `sampler`, `steps`,
                `prediction`, `noise`, `train_steps`, `clamp`, `output`, `range`, `dtype`, `chunk`, `threads`. What the
                model's metadata says of output, range, prediction, noise, train_steps and classes is the default.
            device: cpu or cuda.

        Raises:
            ConfigError: An option is missing or wrong.
            SafetyError: The file reaches outside its folder, or needs a library of its own.
            DataError: It is no ONNX model, or it fails.
        """
        if path is None:
            raise ConfigError("generator onnx needs a file: write onnx:FILE")
        said = check_onnx(path)
        defaults = {**VALUE_OPTIONS, **SAMPLING_OPTIONS, "latent": "", "classes": "", "chunk": 16, "threads": 1}
        known = {key: value for key, value in said.items() if key in defaults and key not in ("output", "range")}
        given = Options("onnx", defaults, {**known, **options})
        values = Values.of(given, output=said.get("output", ""), range=said.get("range", ""))
        session = _session(path, device, given.whole("threads", lo=1, hi=1024))
        inputs = session.get_inputs()
        odd = [i.name for i in inputs if i.type not in _TYPES]
        if odd:
            raise ConfigError(f"{path} has the input {odd[0]}, which is no tensor of numbers")
        named = {i.name.lower(): i for i in inputs}
        time = next((named[n] for n in ("t", "timestep", "timesteps", "time", "sigma") if n in named), None)
        label = next((named[n] for n in ("label", "labels", "class_labels", "y", "c") if n in named), None)
        rest = [i for i in inputs if i is not time and i is not label]
        if len(rest) != 1:
            raise ConfigError(f"{path} has the inputs {[i.name for i in inputs]}; one for noise is read here")
        noise = rest[0]
        chunk = given.whole("chunk", lo=1, hi=4096)
        fixed = noise.shape[0] if noise.shape and isinstance(noise.shape[0], int) else None
        if fixed is not None:
            chunk = fixed  # a graph with a fixed batch takes that batch alone
        shape = _row_shape(noise, given)
        conditions = class_labels(given)
        if (label is not None) != (conditions.kind == "label"):
            raise ConfigError(f"{path} has the inputs {[i.name for i in inputs]}; classes=… belongs to a label input")
        return OnnxSeries(
            session,
            (noise.name, _TYPES[noise.type], shape),
            (label.name, _TYPES[label.type], len(label.shape)) if label is not None else None,
            (time.name, _TYPES[time.type], len(time.shape)) if time is not None else None,
            Loop(given) if time is not None else None,
            values,
            chunk,
            conditions,
        )


def _session(path: Path, device: str, threads: int) -> Any:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    # how many threads share a sum decides its last bits
    settings.intra_op_num_threads = settings.inter_op_num_threads = threads
    settings.log_severity_level = 3
    wanted = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
    if wanted not in onnxruntime.get_available_providers():
        raise ConfigError(f"this onnxruntime has no {wanted}; install onnxruntime-gpu, or leave --device out")
    try:
        return onnxruntime.InferenceSession(str(path), settings, providers=[wanted])
    except Exception as error:  # onnxruntime's errors have no common base
        text = " ".join(str(error).split())[:500]
        raise DataError(f"{path} cannot be loaded by onnxruntime: {text}") from error


def _row_shape(noise: Any, options: Options) -> tuple[int, ...]:
    stated = noise.shape[1:]
    if all(isinstance(length, int) for length in stated):
        return tuple(stated)
    if not options.values["latent"]:
        raise ConfigError(f"the input {noise.name} has the open shape {noise.shape}; add latent=SHAPE of one row")
    shape = lengths(str(options.values["latent"]), options.kind, "latent")
    if len(shape) != len(stated):
        raise ConfigError(
            f"latent={options.values['latent']} does not fit the input {noise.name} of shape {noise.shape}"
        )
    return shape
