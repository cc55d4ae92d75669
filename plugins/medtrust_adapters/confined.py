"""Generators that live in a process of their own: TorchScript, .pt2, Python entry points, medigan, StyleGAN."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import medtrust_adapters
import medtrust_generators
from medtrust.errors import ConfigError, DataError, SafetyError
from medtrust.sandbox.process import Limits, Sandbox
from medtrust.types import Caps, ConditionSpec
from medtrust_adapters.archives import unpack_zip
from medtrust_adapters.programs import check_pt2, check_torchscript
from medtrust_adapters.series import Series
from medtrust_adapters.values import VALUE_OPTIONS, Values, class_labels, lengths
from medtrust_generators.options import Options

__all__ = ["Medigan", "Pt2", "PythonEntry", "StyleGan", "TorchScript"]

_LIMITS: Mapping[str, str | int | float] = {"memory_gb": 16, "cpu_s": 7200, "wall_s": 900, "file_mb": 2048}
_COMMON: Mapping[str, str | int | float] = {**VALUE_OPTIONS, **_LIMITS, "chunk": 16, "classes": ""}
_MAX_CONFIG = 16 * 1024**2


class ConfinedSeries(Series):
    """A generator whose artefact was opened by a `Sandbox`."""

    def __init__(
        self,
        sandbox: Sandbox,
        values: Values,
        chunk: int,
        caps: Caps,
        conditions: ConditionSpec,
        unpacked: tempfile.TemporaryDirectory[str] | None = None,
    ) -> None:
        super().__init__(values, chunk, caps, conditions, {"confined": sandbox.confinement})
        self._sandbox = sandbox
        self._unpacked = unpacked  # the folder lives as long as the generator
        self.probe()

    def draw(self, seeds: Sequence[int], condition: Sequence[Any] | None) -> np.ndarray[Any, Any]:
        """Evaluate one chunk in the other process."""
        labels = [self.conditions.classes.index(label) for label in condition] if condition is not None else None
        shape = (self.chunk, *self.spec.shape) if hasattr(self, "spec") else None
        pixels = self._sandbox.run({"seeds": list(seeds), "labels": labels}, shape=shape)
        if not np.isfinite(pixels).all():
            raise DataError(f"{self._sandbox.name} returned pixels that are not numbers (NaN or infinite)")
        return pixels

    def close(self) -> None:
        """End the other process."""
        self._sandbox.close()


def _sandbox(kind: str, name: str, config: Mapping[str, Any], readable: Sequence[Path], limits: Limits) -> Sandbox:
    return Sandbox(
        "medtrust_adapters.worker_kinds:OPENERS", kind, name, config, readable,
        [medtrust_adapters, medtrust_generators], limits,
        advice="if it ran into a limit, raise it with the options wall_s, memory_gb, cpu_s or file_mb",
    )  # fmt: skip


def _limits(options: Options) -> Limits:
    return Limits(
        memory_gb=options.number("memory_gb", lo=0.5, hi=4096),
        cpu_s=options.whole("cpu_s", lo=1, hi=10**7),
        wall_s=options.number("wall_s", lo=1, hi=10**6),
        file_mb=options.whole("file_mb", lo=1, hi=10**6),
    )


def _cpu_only(kind: str, device: str) -> None:
    if device != "cpu":
        raise ConfigError(f"generator {kind} runs in a confined process, which has the CPU alone; leave --device out")


def _needs_path(path: Path | None, kind: str, what: str) -> Path:
    if path is None:
        raise ConfigError(f"generator {kind} needs {what}: write {kind}:PATH")
    return path


class _Graph:
    """A file that holds a graph from noise, and labels if there are classes, to images."""

    kind = ""

    def check(self, path: Path) -> None:
        """Refuse a file that holds more than a graph."""
        raise NotImplementedError

    def open(self, path: Path | None, options: Mapping[str, str], device: str) -> ConfinedSeries:
        """Check the file, then open it in a confined process.

        Args:
            path: The file.
            options: `latent` (a shape such as 128 or 4x8x8), `classes`, `output`, `range`, `dtype`, `chunk`, limits.
            device: cpu.

        Raises:
            SafetyError: The file holds more than a graph of tensor operators.
            ConfigError: An option is missing or wrong.
            DataError: The file cannot be opened, or its graph fails.
        """
        path = _needs_path(path, self.kind, "a file")
        self.check(path)
        _cpu_only(self.kind, device)
        given = Options(self.kind, {**_COMMON, "latent": ""}, options)
        if not given.values["latent"]:
            raise ConfigError(
                f"generator {self.kind} needs the shape of the noise of one image: add latent=128, or latent=4x8x8"
            )
        latent = lengths(str(given.values["latent"]), self.kind, "latent")
        values, conditions = Values.of(given), class_labels(given)
        config = {"path": str(path.resolve()), "latent": latent, "classes": len(conditions.classes)}
        chunk = given.whole("chunk", lo=1, hi=4096)
        sandbox = _sandbox(self.kind, str(path), config, [path], _limits(given))
        caps = Caps(latent=int(np.prod(latent)), steps=1, trust="graph")
        return ConfinedSeries(sandbox, values, chunk, caps, conditions)


class TorchScript(_Graph):
    """Opens what `torch.jit.save` wrote: the `factory` of the spec `torchscript`."""

    kind = "torchscript"

    def check(self, path: Path) -> None:
        """Refuse a file that holds more than a graph."""
        check_torchscript(path)


class Pt2(_Graph):
    """Opens what `torch.export.save` wrote: the `factory` of the spec `pt2`."""

    kind = "pt2"

    def check(self, path: Path) -> None:
        """Refuse a file that holds more than a graph."""
        check_pt2(path)


class PythonEntry:
    """Calls a factory by its import path: the `factory` of the spec `python`."""

    kind = "python"

    def open(self, target: str, options: Mapping[str, str], device: str) -> ConfinedSeries:
        """Import `package.module:factory` in a confined process and call it with the options that are not ours.

        What it returns has `sample(n, seed=)`, or is such a function, and answers [n, C, H, W], or an object with
        `pixels`. It is asked for one image at a time, each with its own seed.

        Args:
            target: "package.module:factory".
            options: `root` (a folder to import from), `output`, `range`, `dtype`, `classes`, `chunk`, limits; every
                other one goes to the factory as a keyword.
            device: cpu.

        Raises:
            ConfigError: The target is no import path, or an option is wrong.
            DataError: The import or the call failed.
        """
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*", target):
            raise ConfigError(f"{target!r} is no factory; write python:package.module:factory")
        _cpu_only(self.kind, device)
        known = {**_COMMON, "chunk": 1, "root": ""}
        given = Options(self.kind, known, {key: value for key, value in options.items() if key in known})
        root = Path(str(given.values["root"])).resolve() if given.values["root"] else None
        if root is not None and not root.is_dir():
            raise ConfigError(f"option root={root} of generator python is no folder")
        others = {key: value for key, value in options.items() if key not in known}
        config = {"factory": target, "root": str(root or ""), "options": others}
        sandbox = _sandbox(self.kind, f"python:{target}", config, [root] if root else [], _limits(given))
        stated = str(sandbox.facts.get("range", ""))
        # an object that declares its own range answers in it, so the map between the two is the identity
        values = Values.of(given, output=stated or str(given.values["range"]), range=stated)
        made = ConfinedSeries(
            sandbox, values, given.whole("chunk", lo=1, hi=4096), Caps(trust="code"), class_labels(given)
        )
        source = Path(str(sandbox.facts.get("file", "")))
        if source.is_file():
            made.artifact["sha256"] = hashlib.sha256(source.read_bytes()).hexdigest()
        return made


class Medigan:
    """Opens a package folder of the medigan library: the `factory` of the spec `medigan`."""

    kind = "medigan"

    def open(self, path: Path | None, options: Mapping[str, str], device: str) -> ConfinedSeries:
        """Import the package in a confined process and call its `generate` for one image at a time.

        Args:
            path: The package's folder or zip: `__init__.py` with `generate(model_file, num_samples, output_path,
                save_images, …)` beside the weights, and if there is one the model's part of medigan's `global.json` as
                `config.json`, whose `execution` names model, extension and method.
            options: `model` (file name of the weights), `method` (generate), `output`, `range`, `dtype`, limits.
            device: cpu.

        Raises:
            ConfigError: The folder is no package, or an option is wrong.
            SafetyError: A zip that unpacks outside its folder.
            DataError: The import or the call failed.
        """
        path = _needs_path(path, self.kind, "a package folder or zip")
        given = Options(self.kind, {**_COMMON, "chunk": 1, "model": "", "method": ""}, options)
        _cpu_only(self.kind, device)
        held = None
        if path.is_file():
            held = tempfile.TemporaryDirectory(prefix="medtrust-medigan-")
            folder = Path(held.name) / "package"
            folder.mkdir()
            path = unpack_zip(path, folder)
        if not (path / "__init__.py").is_file() or not path.name.isidentifier():
            raise ConfigError(f"{path} is no medigan package: a folder with an importable name and __init__.py")
        execution = _execution(path)
        named = f"{execution.get('model_name', '')}{execution.get('extension', '')}"
        weights = path / (str(given.values["model"]) or named)
        if not weights.is_file() or weights.resolve().parent != path.resolve():
            raise ConfigError(f"{path}: name the file with the weights, which lies in it, by the option model=FILE")
        method = execution.get("generate_method") or {}
        arguments = (method.get("args") or {}).get("custom") or {}
        config = {
            "path": str(path.resolve()),
            "model_file": str(weights.resolve()),
            "method": str(given.values["method"]) or str(method.get("name") or "generate"),
            "arguments": {str(k): v for k, v in arguments.items() if v is not None},
        }
        sandbox = _sandbox(self.kind, str(path), config, [path.resolve()], _limits(given))
        values, chunk = Values.of(given), given.whole("chunk", lo=1, hi=4096)
        return ConfinedSeries(sandbox, values, chunk, Caps(trust="code"), ConditionSpec(), held)


def _execution(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        return {}
    if file.stat().st_size > _MAX_CONFIG:
        raise SafetyError(f"{file} is larger than any configuration; do not use it")
    try:
        found = json.loads(file.read_bytes())
        entry = found if "execution" in found else next(iter(found.values()))
        return dict(entry["execution"])
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise DataError(f"{file} is not a model's part of medigan's global.json ({type(error).__name__})") from error


class StyleGan:
    """Opens a StyleGAN2-ADA or StyleGAN3 pickle: the `factory` of the spec `stylegan`."""

    kind = "stylegan"

    def open(self, path: Path | None, options: Mapping[str, str], device: str) -> ConfinedSeries:
        """Unpickle `G_ema` in a confined process, with an allow-list of what the pickle may import.

        Args:
            path: The .pkl.
            options: `repo` (a checkout of the official code, with `dnnlib` and `torch_utils`), `psi` (truncation),
                `classes`, `range`, `dtype`, `chunk`, limits. The output is -1:1 unless `output` says otherwise.
            device: cpu.

        Raises:
            ConfigError: No checkout was named, or an option is wrong.
            SafetyError: The pickle would import something that no such pickle needs.
            DataError: It cannot be opened.
        """
        path = _needs_path(path, self.kind, "a .pkl")
        _cpu_only(self.kind, device)
        given = Options(self.kind, {**_COMMON, "repo": "", "psi": 1.0}, options)
        repo = Path(str(given.values["repo"])).resolve()
        if not given.values["repo"] or not (repo / "torch_utils").is_dir() or not (repo / "dnnlib").exists():
            raise ConfigError(
                "a StyleGAN pickle needs the code it was trained with: name a checkout of stylegan2-ada-pytorch or "
                "stylegan3 by the option repo=FOLDER"
            )
        config = {"path": str(path.resolve()), "repo": str(repo), "psi": given.number("psi", lo=-2, hi=2)}
        sandbox = _sandbox(self.kind, str(path), config, [path, repo], _limits(given))
        conditions, classes = class_labels(given), int(sandbox.facts["c_dim"])
        if conditions.classes and len(conditions.classes) != classes:
            raise ConfigError(f"{path} has {classes} classes, the option classes names {len(conditions.classes)}")
        if classes and not conditions.classes:
            conditions = ConditionSpec("label", tuple(map(str, range(classes))))
        caps = Caps(family="gan", latent=int(sandbox.facts["z_dim"]), steps=1, trust="code")
        values = Values.of(given, output="-1:1")
        return ConfinedSeries(sandbox, values, given.whole("chunk", lo=1, hi=4096), caps, conditions)
