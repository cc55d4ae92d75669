"""A MONAI bundle: its configuration is walked, never evaluated, and only networks of an allow-list are built."""

from __future__ import annotations

import ast
import importlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medtrust.errors import ConfigError, DataError, SafetyError
from medtrust.types import Caps
from medtrust_adapters.archives import check_zip, read_member, unpack_zip
from medtrust_adapters.denoising import SAMPLING_OPTIONS, Loop
from medtrust_adapters.pickles import check_pickle
from medtrust_adapters.series import Series, noise_rows
from medtrust_adapters.values import VALUE_OPTIONS, Values, lengths
from medtrust_generators.options import Options

__all__ = ["Monai", "check_bundle"]

_MAX_CONFIG = 16 * 1024**2
# What a bundle's configuration may name at all; of these only networks and schedulers are ever built.
_TARGETS = re.compile(
    r"(monai\.(networks|inferers|transforms|data|handlers|losses|engines|metrics|utils|optimizers|apps|visualize)\.)?"
    r"[A-Z]\w*|monai\.(networks|inferers|transforms|data|handlers|losses|engines|metrics|utils|apps)(\.[a-z_]\w*)*\.\w+"
    r"|torch\.(nn|optim)(\.[a-z_]\w*)*\.[A-Z]\w*|torch\.utils\.tensorboard\.SummaryWriter|torch\.utils\.data\.\w+"
)
_BUILT = re.compile(r"(monai\.networks\.(nets|schedulers)(\.[a-z_]\w*)*\.)?([A-Z]\w*)")
_IMPORTS = frozenset({"torch", "numpy", "monai", "math", "glob", "functools", "operator"})
_FORBIDDEN = frozenset(
    {
        "os", "sys", "subprocess", "shutil", "socket", "pickle", "ctypes", "importlib", "builtins", "eval", "exec",
        "compile", "open", "getattr", "setattr", "globals", "locals", "vars", "input", "breakpoint", "system", "popen",
        "requests", "urllib", "http", "pty", "marshal", "runpy", "codecs", "hub", "load_state_dict_from_url",
    }
)  # fmt: skip


def check_bundle(folder: Path) -> dict[str, Any]:
    """Walk every configuration of a bundle without evaluating one expression.

    Args:
        folder: The bundle's folder.

    Returns:
        The configurations by file name below `configs`.

    Raises:
        SafetyError: An expression that imports or names what reaches beyond arithmetic, a `_target_` beyond the
            allow-list, a debugging mode, code in the folder, or a link.
        DataError: There is no configuration, or one cannot be read.
    """
    configs: dict[str, Any] = {}
    for place in sorted(folder.rglob("*")):
        if place.is_symlink():
            raise SafetyError(f"{place} is a link; copy what it stands for into {folder} instead")
        if place.suffix in (".json", ".yaml", ".yml") and place.parent.name == "configs":
            configs[place.name] = _read(place)
            for value in _walk(configs[place.name], place):
                _check_text(value, place)
    if not configs:
        raise DataError(f"{folder} holds no configs/*.json or *.yaml; give the folder of a MONAI bundle")
    return configs


def _walk(config: Any, place: Path) -> Iterator[str]:
    """Yield every text of a configuration, keys included, and check what MONAI gives a meaning to."""
    pending = [config]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            target = item.get("_target_")
            if target is not None and not (isinstance(target, str) and _TARGETS.fullmatch(target)):
                raise SafetyError(f"{place}: _target_ is {target!r}, which no bundle may build here; do not use it")
            if item.get("_mode_", "default") != "default":
                raise SafetyError(f"{place}: _mode_ is {item['_mode_']!r}, which runs more than a constructor")
            yield from (key for key in item if isinstance(key, str))
            pending += item.values()
        elif isinstance(item, list):
            pending += item
        elif isinstance(item, str):
            yield item


def _check_text(text: str, place: Path) -> None:
    if not text.lstrip().startswith("$"):
        return
    code = text.lstrip()[1:].strip()
    # "@name" and "%file::name" are MONAI's references; any name will do to parse the rest
    code = re.sub(r"[@%][\w#:.]+", "reference", code)
    shown = text if len(text) <= 120 else text[:117] + "…"
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise SafetyError(f"{place} holds the expression {shown!r}, which does not parse; do not use it") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
            odd = [m for m in modules if m.split(".")[0] not in _IMPORTS]
            if odd:
                raise SafetyError(f"{place} holds the expression {shown!r}, which imports {odd[0]}; do not use it")
        names = [getattr(node, "id", ""), getattr(node, "attr", ""), getattr(node, "name", "") or ""]
        for name in names:
            if name in _FORBIDDEN or name.startswith("__"):
                raise SafetyError(f"{place} holds the expression {shown!r}, which uses {name}; do not use it")


def _read(path: Path) -> Any:
    if path.stat().st_size > _MAX_CONFIG:
        raise SafetyError(f"{path} is larger than any configuration; do not use it")
    try:
        if path.suffix == ".json":
            return json.loads(path.read_bytes())
        import yaml

        return yaml.safe_load(path.read_text())
    except ImportError as error:
        raise ConfigError(f"{path} is YAML; pip install 'medtrust[monai]' to read it") from error
    except Exception as error:  # the YAML reader has errors of its own
        raise DataError(f"{path} cannot be read ({type(error).__name__}); fetch the bundle again") from error


def _plain(definition: Any, config: Mapping[str, Any], where: str, depth: int = 0) -> Any:
    """Resolve "@name" references to plain values; anything that would have to be evaluated is refused."""
    if depth > 20:
        raise DataError(f"{where} refers to itself")
    if isinstance(definition, dict):
        return {key: _plain(value, config, where, depth + 1) for key, value in definition.items()}
    if isinstance(definition, list):
        return [_plain(value, config, where, depth + 1) for value in definition]
    if isinstance(definition, str) and definition.startswith("@"):
        value: Any = config
        for key in re.split(r"#|::", definition[1:]):
            value = value[int(key)] if isinstance(value, list) and key.isdigit() else (value or {}).get(key)
        return _plain(value, config, where, depth + 1)
    if isinstance(definition, str) and definition.startswith(("$", "%")):
        raise SafetyError(f"{where} needs {definition!r} to be evaluated; write the plain value into the configuration")
    return definition


def _build(definition: Any, config: Mapping[str, Any], where: str) -> Any:
    plain = _plain(definition, config, where)
    target = str(plain.get("_target_", "")) if isinstance(plain, dict) else ""
    found = _BUILT.fullmatch(target)
    if not found:
        raise SafetyError(f"{where}: _target_ is {target!r}; only monai.networks.nets and schedulers are built")
    nested = [v for v in plain.values() if isinstance(v, dict) and "_target_" in v]
    if nested:
        raise SafetyError(f"{where} builds {nested[0]['_target_']!r} inside another; only plain arguments are read")
    arguments = {key: value for key, value in plain.items() if not key.startswith("_")}
    for home in ("monai.networks.nets", "monai.networks.schedulers"):
        made = getattr(importlib.import_module(home), found[4], None)
        if isinstance(made, type) and made.__module__.startswith("monai.networks."):
            try:
                return made(**arguments)
            except (TypeError, ValueError, KeyError, AssertionError, AttributeError, RuntimeError) as error:
                raise DataError(f"{where}: {target} cannot be built ({type(error).__name__}: {error})") from error
    raise DataError(f"{where}: this MONAI has no {target}; install the version that the bundle names")


class MonaiSeries(Series):
    """A network of a bundle: one that makes images, or a denoiser that our sampler drives."""

    def __init__(
        self, network: Any, latent: Sequence[int], loop: Loop | None, values: Values, chunk: int, device: str
    ) -> None:
        import monai

        family = "diffusion" if loop else "other"
        caps = Caps(family=family, latent=int(np.prod(latent)), steps=loop.evaluations if loop else 1, trust="graph")
        facts = {"process": "this one", "network": type(network).__name__, "monai": monai.__version__}
        super().__init__(values, chunk, caps, None, facts)
        self._network, self._latent, self._loop, self._device = network.eval().to(device), tuple(latent), loop, device
        self.probe()

    def draw(self, seeds: Sequence[int], condition: Sequence[Any] | None) -> np.ndarray[Any, Any]:
        """Evaluate the network, or the sampler around it."""
        if self._loop is None:
            return self._run(noise_rows(seeds, self._latent))
        return self._loop.run(seeds, self._latent, self._run)

    def _run(self, x: np.ndarray[Any, Any], t: float | None = None) -> np.ndarray[Any, Any]:
        import torch

        given = [torch.from_numpy(x).to(self._device)]
        if t is not None:
            given.append(torch.full((len(x),), t, device=self._device))
        with torch.no_grad():
            output: np.ndarray[Any, Any] = self._network(*given).float().cpu().numpy()
        return output


class Monai:
    """Opens a bundle folder or zip: the `factory` of the spec `monai`."""

    def open(self, path: Path | None, options: Mapping[str, str], device: str) -> MonaiSeries:
        """Walk the configurations, build the network from the allow-list, and read its weights as tensors alone.

        Args:
            path: The bundle's folder, or its zip.
            options: `config` (inference.json), `network` (its section, such as network_def), `scheduler` (a section,
                for a denoiser), `weights` (models/model.pt), `latent` (shape of the noise), `sampler`, `steps`,
                `clamp`, `output`, `range`, `dtype`, `chunk`. The range of the output is taken from the bundle's
                metadata where that says one.
            device: cpu or cuda.

        Raises:
            SafetyError: See `check_bundle`; or weights that hold more than tensors.
            ConfigError: An option is missing or wrong.
            DataError: The bundle is incomplete, or its weights do not fit.
        """
        if path is None:
            raise ConfigError("generator monai needs a bundle: write monai:FOLDER")
        defaults = {
            **VALUE_OPTIONS, **SAMPLING_OPTIONS, "config": "", "network": "", "scheduler": "", "weights": "",
            "latent": "", "chunk": 8,
        }  # fmt: skip
        given = Options("monai", defaults, options)
        with tempfile.TemporaryDirectory(prefix="medtrust-monai-") as unpacked:
            folder = unpack_zip(path, Path(unpacked)) if path.is_file() else path
            configs = check_bundle(folder)
            name, config = _chosen(configs, str(given.values["config"]), folder)
            section = _section(config, given, "network", ("network_def", "network", "gnetwork", "net", "generator"))
            network = _build(config[section], config, f"{folder / 'configs' / name}: {section}")
            try:
                network.load_state_dict(_weights(folder, str(given.values["weights"])))
            except RuntimeError as error:
                text = " ".join(str(error).split())[:300]
                raise DataError(f"{path}: the weights do not fit the network of its configuration ({text})") from error
        values = Values.of(given, output=_stated_output(configs))
        loop = None
        if given.values["scheduler"] or "scheduler" in config or "noise_scheduler" in config:
            schedule = _section(config, given, "scheduler", ("scheduler", "noise_scheduler"))
            loop = _loop(_build(config[schedule], config, f"{name}: {schedule}"), given)
        if not given.values["latent"]:
            raise ConfigError(f"{path}: say the shape of the noise of one image: latent=64, or latent=1x64x64")
        latent = lengths(str(given.values["latent"]), "monai", "latent")
        return MonaiSeries(network, latent, loop, values, given.whole("chunk", lo=1, hi=4096), device)


def _chosen(configs: Mapping[str, Any], wanted: str, folder: Path) -> tuple[str, dict[str, Any]]:
    names = [wanted] if wanted else [n for n in configs if n.startswith("inference")] or list(configs)
    for name in names:
        if isinstance(configs.get(name), dict):
            return name, configs[name]
    raise ConfigError(f"{folder} has the configurations {sorted(configs)}; choose one by the option config=…")


def _section(config: Mapping[str, Any], options: Options, option: str, usual: Sequence[str]) -> str:
    wanted = str(options.values[option])
    for name in (wanted,) if wanted else usual:
        if isinstance(config.get(name), dict):
            return name
    raise ConfigError(f"the configuration has the sections {sorted(config)}; choose one by the option {option}=…")


def _weights(folder: Path, wanted: str) -> dict[str, Any]:
    names = [wanted] if wanted else ["models/model.safetensors", "models/model.pt"]
    for name in names:
        path = folder / name
        if not path.is_file():
            continue
        if not path.resolve().is_relative_to(folder.resolve()):
            raise SafetyError(f"{path} lies outside the bundle; do not use it")
        return _tensors(path)
    raise DataError(f"{folder} holds no {' or '.join(names)}; name the weights by the option weights=…")


def _tensors(path: Path) -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        for info in check_zip(path):
            if info.filename.endswith(".pkl"):
                check_pickle(read_member(path, info), f"{path}: {info.filename}")
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read ({type(error).__name__}: {error})") from error
    for key in ("state_dict", "model", "network"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    return dict(found)


def _stated_output(configs: Mapping[str, Any]) -> str:
    try:
        (output,) = configs["metadata.json"]["network_data_format"]["outputs"].values()
        lo, hi = output["value_range"]
        return f"{float(lo)}:{float(hi)}"
    except (KeyError, TypeError, ValueError):
        return ""


def _loop(scheduler: Any, options: Options) -> Loop:
    """Take training chain and prediction from MONAI's scheduler; the steps themselves are ours."""
    chain = getattr(scheduler, "alphas_cumprod", None)
    if chain is None:
        raise ConfigError(f"{type(scheduler).__name__} has no training chain of alphas; DDPM, DDIM and PNDM have one")
    prediction = {"epsilon": "epsilon", "sample": "x0", "v_prediction": "v"}[str(scheduler.prediction_type)]
    if getattr(scheduler, "clip_sample", False) and not options.values["clamp"]:
        lo, hi = getattr(scheduler, "clip_sample_values", (-1.0, 1.0))
        options.values["clamp"] = f"{lo}:{hi}"
    options.values |= {"prediction": prediction, "train_steps": len(chain)}
    return Loop(options, chain.double().tolist())
