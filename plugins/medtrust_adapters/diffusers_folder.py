"""A pipeline folder of the diffusers library: every entry of its index is checked before the library sees it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medtrust.errors import ConfigError, DataError, SafetyError
from medtrust.types import Caps, ConditionSpec
from medtrust_adapters.series import Series
from medtrust_adapters.values import VALUE_OPTIONS, Values, class_labels
from medtrust_generators.options import Options

__all__ = ["Diffusers", "check_diffusers"]

_INDEX = "model_index.json"
_MAX_CONFIG = 16 * 1024**2
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".msgpack", ".h5", ".joblib")
_CODE = (".py", ".pyc", ".pyo", ".so", ".dll", ".dylib", ".pyd")
_LIBRARIES = ("diffusers", "transformers")
_CLASS = re.compile(r"[A-Z][A-Za-z0-9]{1,80}")
# what makes transformers or diffusers fetch or import code that came with the model
_REMOTE = ("auto_map", "custom_pipeline", "trust_remote_code", "custom_revision")


def check_diffusers(folder: Path) -> dict[str, Any]:
    """Check a pipeline folder without importing diffusers.

    Args:
        folder: With `model_index.json`.

    Returns:
        The index.

    Raises:
        SafetyError: Code, pickled weights or a link in the folder; an entry of the index that is no class of diffusers
            or transformers; a configuration that asks for remote code.
        DataError: There is no readable index.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give the one that holds {_INDEX}")
    safe, pickled = False, None
    for place in sorted(folder.rglob("*")):
        if place.is_symlink():
            raise SafetyError(f"{place} is a link; copy what it stands for into {folder} instead")
        name = place.name.lower()
        if name.endswith(_CODE):
            raise SafetyError(f"{place} is code; a pipeline that brings its own cannot be opened here")
        safe |= name.endswith(".safetensors")
        pickled = place if name.endswith(_PICKLED) and not name.endswith("training_args.bin") else pickled
        if name.endswith(".json") and name not in ("tokenizer.json", "vocab.json"):
            _check_config(_read(place), place)
    if pickled is not None:
        raise SafetyError(
            f"{pickled} may hold a pickle; save the pipeline again with safe_serialization=True and remove that file"
        )
    index = _read(folder / _INDEX)
    if not isinstance(index, dict):
        raise DataError(f"{folder / _INDEX} is no index of a pipeline")
    if not safe:
        raise DataError(f"{folder} holds no .safetensors; save the pipeline with safe_serialization=True")
    for key, entry in index.items():
        if key == "_class_name":
            if not isinstance(entry, str) or not _CLASS.fullmatch(entry):
                raise SafetyError(f"{folder / _INDEX}: the pipeline {entry!r} is no class of diffusers; do not use it")
        elif isinstance(entry, list):
            _check_entry(key, entry, folder)
    if "_class_name" not in index:
        raise DataError(f"{folder / _INDEX} names no pipeline class")
    return index


def _check_entry(key: str, entry: list[Any], folder: Path) -> None:
    if entry == [None, None] or not any(isinstance(part, str) and not _is_number(part) for part in entry):
        return  # a part left out, or a plain list of numbers
    ok = (
        len(entry) == 2
        and entry[0] in _LIBRARIES
        and isinstance(entry[1], str)
        and _CLASS.fullmatch(entry[1])
        and re.fullmatch(r"[A-Za-z]\w{0,63}", key)
    )
    if not ok:
        raise SafetyError(
            f"{folder / _INDEX}: {key} is {entry!r}; only classes of {' and '.join(_LIBRARIES)} are opened, so this "
            "would run code that came with the model"
        )


def _check_config(config: Any, place: Path) -> None:
    pending = [config]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            asked = next((key for key in _REMOTE if item.get(key)), None)
            if asked:
                raise SafetyError(f"{place} asks for remote code ({asked}); do not use it")
            pending += item.values()
        elif isinstance(item, list):
            pending += item


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"[-+.\deE]+", text))


def _read(path: Path) -> Any:
    try:
        if path.stat().st_size > _MAX_CONFIG:
            raise SafetyError(f"{path} is larger than any configuration; do not use it")
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON ({type(error).__name__}); fetch the pipeline again") from error


class DiffusersSeries(Series):
    """Calls a pipeline with one random stream per image.

    Args:
        pipeline: The diffusers pipeline.
        steps: Denoising steps; None for the pipeline's own.
        guidance: Classifier-free guidance scale; None for the pipeline's own.
    """

    def __init__(
        self,
        pipeline: Any,
        kind: str,
        steps: int,
        guidance: float | None,
        values: Values,
        chunk: int,
        conditions: ConditionSpec,
        first_prompt: str,
    ) -> None:
        import diffusers

        facts = {"process": "this one", "pipeline": type(pipeline).__name__, "diffusers": diffusers.__version__}
        super().__init__(values, chunk, Caps(family="diffusion", steps=steps), conditions, facts)
        self._pipeline, self._kind, self._steps, self._guidance = pipeline, kind, steps, guidance
        self._first_prompt = first_prompt
        self.probe()

    def _choose(self, seed: int, places: range) -> list[Any]:
        if self.conditions.kind == "text":
            return [self._first_prompt] * len(places)
        return super()._choose(seed, places)

    def draw(self, seeds: Sequence[int], condition: Sequence[Any] | None) -> np.ndarray[Any, Any]:
        """Run the pipeline once."""
        import torch

        asked: dict[str, Any] = {
            "generator": [torch.Generator().manual_seed(seed) for seed in seeds],
            "num_inference_steps": self._steps,
            "output_type": "np",
        }
        if self._guidance is not None:
            asked["guidance_scale"] = self._guidance
        if self._kind == "label" and condition is not None:
            asked["class_labels"] = [self.conditions.classes.index(c) for c in condition]
        elif self._kind == "text" and condition is not None:
            asked["prompt"] = list(condition)
        else:
            asked["batch_size"] = len(seeds)
        with torch.no_grad():
            images = self._pipeline(**asked).images
        return np.ascontiguousarray(np.asarray(images).transpose(0, 3, 1, 2))


class Diffusers:
    """Opens a folder that `save_pretrained` wrote: the `factory` of the spec `diffusers`."""

    def open(self, path: Path | None, options: Mapping[str, str], device: str) -> DiffusersSeries:
        """Check the folder, then load the pipeline with `use_safetensors=True` and `local_files_only=True`.

        Args:
            path: The folder.
            options: `steps`, `guidance`, `classes`, `prompt` (what to draw where no condition is given), `range`,
                `dtype`, `chunk`. A pipeline's arrays span 0:1 by the library's definition.
            device: cpu or cuda.

        Raises:
            SafetyError: See `check_diffusers`.
            ConfigError: An option is wrong, or a pipeline that takes neither batch size, labels nor prompts.
            DataError: The library cannot load the folder.
        """
        import inspect

        if path is None:
            raise ConfigError("generator diffusers needs a folder: write diffusers:FOLDER")
        defaults = {**VALUE_OPTIONS, "steps": 50, "guidance": "", "classes": "", "prompt": "", "chunk": 8}
        given = Options("diffusers", defaults, options)
        index = check_diffusers(path)
        values = Values.of(given, output="0:1")
        pipeline = _load(path, str(index["_class_name"])).to(device)
        pipeline.set_progress_bar_config(disable=True)
        takes = inspect.signature(pipeline.__call__).parameters
        if "class_labels" in takes:
            kind = "label"
        elif "prompt" in takes:
            kind = "text"
        elif "batch_size" in takes:
            kind = "none"
        else:
            raise ConfigError(
                f"{index['_class_name']} takes neither batch_size, class_labels nor prompt; not supported"
            )
        if kind == "label" and not given.values["classes"]:
            raise ConfigError(f"{index['_class_name']} draws classes: name them by the option classes=…")
        conditions = {
            "label": lambda: class_labels(given),
            "text": lambda: ConditionSpec("text", required=not given.values["prompt"]),
            "none": ConditionSpec,
        }[kind]()
        guidance = given.number("guidance", lo=0, hi=1000) if given.values["guidance"] else None
        return DiffusersSeries(
            pipeline,
            kind,
            given.whole("steps", lo=1, hi=10_000),
            guidance,
            values,
            given.whole("chunk", lo=1, hi=4096),
            conditions,
            str(given.values["prompt"]),
        )


def _load(folder: Path, name: str) -> Any:
    import diffusers

    pipeline = getattr(diffusers, name, None)
    if not isinstance(pipeline, type) or not issubclass(pipeline, diffusers.DiffusionPipeline):
        raise DataError(f"diffusers {diffusers.__version__} has no pipeline {name}; install the version that has it")
    try:
        return pipeline.from_pretrained(
            str(folder), use_safetensors=True, local_files_only=True, trust_remote_code=False, low_cpu_mem_usage=False
        )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError, ImportError) as error:
        text = " ".join(str(error).split())[:500]
        raise DataError(f"diffusers cannot load {folder} ({type(error).__name__}: {text})") from error
