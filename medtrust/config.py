"""Configuration: defaults < profile < medtrust.toml < MEDTRUST_* < command line, with each value's origin.

Paths are relative to the current directory wherever they are written, so that a value means the same in the file,
in the environment and on the command line.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from medtrust.errors import ConfigError
from medtrust.profiles import read_profile

__all__ = ["CONFIG_FILE", "KEYS", "Config", "Key", "did_you_mean", "env_flag", "load_config"]

CONFIG_FILE = "medtrust.toml"
_PREFIX = "MEDTRUST_"
_FLAGS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


# A parser turns a value of any layer (TOML, environment text, Python) into the key's type, or raises ValueError with
# what it wanted. Text is accepted everywhere, because the environment has nothing else.


def _text(value: Any) -> str:
    if isinstance(value, str | os.PathLike) and os.fspath(value):
        return str(os.fspath(value))
    raise ValueError("a text that is not empty")


def _path(value: Any) -> Path:
    return Path(_text(value))


def _pattern(value: Any) -> str:
    text = _text(value)
    try:
        re.compile(text)
    except re.error as problem:
        raise ValueError(f"a regular expression ({problem})") from problem
    return text


def _names(value: Any) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if isinstance(items, list | tuple) and items and all(isinstance(item, str) and item.strip() for item in items):
        # a repeated option may itself hold commas: --metrics a,b --metrics c
        names = [part.strip() for item in items for part in item.split(",") if part.strip()]
        return tuple(dict.fromkeys(names))
    raise ValueError("a list of names")


def _paths_by_name(value: Any) -> Mapping[str, Path]:
    if isinstance(value, Mapping):
        pairs = list(value.items())
    else:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
            raise ValueError("NAME=PATH pairs")
        pairs = [tuple(item.split("=", 1)) for item in items]
    if any(len(pair) != 2 or not str(pair[0]).strip() for pair in pairs):
        raise ValueError("NAME=PATH pairs")
    return MappingProxyType({str(name).strip(): _path(path) for name, path in pairs})


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _FLAGS:
        return _FLAGS[value.strip().lower()]
    raise ValueError("true or false")


def _whole(least: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        wanted = f"a whole number of at least {least}"
        if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,4000}\s*", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(wanted)
        return value

    return parse


def _level(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0.0 < number < 1.0:
        raise ValueError("a number between 0 and 1, such as 0.95")
    return number


def _seconds(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0.0 < number < math.inf:
        raise ValueError("a number of seconds above 0")
    return number


def _one_of(*choices: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in choices:
            raise ValueError("one of " + ", ".join(choices))
        return str(value)

    return parse


def _device(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"cpu|cuda(:\d+)?", value):
        return value
    raise ValueError("cpu, cuda or cuda:N")


@dataclass(frozen=True, slots=True)
class Key:
    """One known setting.

    Args:
        parse: Turns a value of any layer into the setting's type, or raises ValueError with what it wanted.
        default: Value when no layer sets it; None means not set.
        help: One line for the documentation and `--help`.
    """

    parse: Callable[[Any], Any]
    default: Any
    help: str


KEYS: Mapping[str, Key] = MappingProxyType(
    {
        "train": Key(_text, None, "images that the generator was fitted on"),
        "holdout": Key(_text, None, "images of the same source and other patients, never used to fit"),
        "synthetic": Key(_text, None, "images that the generator made, or a generator SPEC"),
        "features": Key(_names, ("radiomics",), "feature spaces"),
        "metrics": Key(_names, ("all",), "metrics; all, optional"),
        "subgroups": Key(_names, (), "manifest columns that hold each image's subgroup"),
        "profile": Key(_text, None, "discipline whose ready settings lie beneath all others, or a file of such"),
        "policy": Key(_text, "research", "policy file that the gate applies, or the name of a ready one"),
        "baseline": Key(_path, None, "earlier report.json that non-regression gates compare with"),
        "weights": Key(_paths_by_name, MappingProxyType({}), "weight files, NAME=PATH"),
        "patients": Key(_pattern, None, "regular expression that finds the patient in a file name"),
        "intensity": Key(_text, None, "declared intensity range of images that carry none"),
        "slices": Key(_text, None, "slices of volumes to look at, AXIS:STEP such as z:4"),
        "volumes": Key(_one_of("mean", "mean-sd"), None, "compare volumes by features made of their slices'"),
        "out": Key(_path, Path("medtrust-report"), "folder that the report goes to"),
        "format": Key(_names, ("json", "html"), "report formats"),
        "evidence": Key(_one_of("none", "blur", "full"), "none", "how much of a real image evidence may show"),
        "seed": Key(_whole(0), 0, "root seed of the run"),
        "device": Key(_device, "cpu", "where to compute"),
        "precision": Key(_one_of("fp32", "bf16"), "fp32", "arithmetic of networks: fp32 is exact, bf16 is faster"),
        "engine": Key(_one_of("local", "ray"), "local", "where images are decoded and features extracted"),
        "ray_address": Key(_text, None, "HOST:PORT of a running Ray cluster; a private one is started when not set"),
        "workers": Key(_whole(1), None, "decoding threads of local, processes of ray; by the cores when not set"),
        "offline": Key(_flag, False, "open no network connection; the default is true where CI is set"),
        "level": Key(_level, 0.95, "confidence level of intervals"),
        "metric_timeout": Key(_seconds, None, "seconds that one metric may take; no limit when not set"),
        "batch_size": Key(_whole(1), 64, "images per batch"),
        "n_synthetic": Key(_whole(1), None, "images to draw from a generator SPEC; as many as train has when not set"),
        "condition": Key(_text, None, "what to ask a generator SPEC for: a class, shares of classes, a .txt, a set"),
        "cache": Key(_path, None, "folder of the feature cache"),
    }
)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Name the closest known words as "; did you mean 'a' or 'b'?", or nothing when none is close."""
    close = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def env_flag(name: str, env: Mapping[str, str] = os.environ) -> bool:
    """Read an on/off environment variable; unset and empty mean off.

    Raises:
        ConfigError: The value is neither on nor off.
    """
    value = env.get(name, "").strip().lower()
    if value and value not in _FLAGS:
        raise ConfigError(f"{name} is {env[name]!r}, wanted 1 or 0; correct or unset the environment variable")
    return _FLAGS.get(value, False)


class Config:
    """The settings of one run, each with the layer that it came from. Build it with `load_config`."""

    def __init__(self, values: Mapping[str, tuple[Any, str]], plugins: Mapping[str, Mapping[str, tuple[Any, str]]]):
        self._values = dict(values)
        self._plugins = {name: dict(options) for name, options in plugins.items()}

    def get(self, key: str) -> Any:
        """Return the value of a known key; KeyError for any other."""
        return self._values[key][0]

    def origin(self, key: str) -> str:
        """Return where a value came from: "default", "medtrust.toml", "MEDTRUST_SEED", "--seed" …"""
        return self._values[key][1]

    def plugin_options(self, plugin: str) -> Mapping[str, Any]:
        """Return the options of one plugin: its own defaults overlaid with the file's `[plugins.<plugin>]`."""
        return MappingProxyType({key: value for key, (value, _) in self._plugins.get(plugin, {}).items()})

    def as_dict(self) -> dict[str, Any]:
        """Return every value with its origin as JSON-ready data, for the report.

        Returns:
            `{"seed": {"value": 0, "origin": "default"}, …, "plugins": {"<plugin>": {"<option>": {…}}}}`
        """
        out: dict[str, Any] = {key: _plain(entry) for key, entry in self._values.items()}
        out["plugins"] = {
            name: {key: _plain(entry) for key, entry in options.items()}
            for name, options in sorted(self._plugins.items())
        }
        return out


def _plain(entry: tuple[Any, str]) -> dict[str, Any]:
    return {"value": _json(entry[0]), "origin": entry[1]}


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)  # Path; of a TOML file also dates, times, and the nan and inf that JSON does not have


def load_config(
    cli: Mapping[str, Any],
    *,
    file: Path | None = None,
    env: Mapping[str, str] = os.environ,
    plugin_defaults: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> Config:
    """Merge every layer of configuration.

    Args:
        cli: Options of the command line by key; None, and an empty list or tuple, mean not given.
        file: Configuration file; None takes `medtrust.toml` of the current directory where there is one.
        env: Environment; an empty variable counts as unset.
        plugin_defaults: Options by plugin name, overlaid by the file's `[plugins.<name>]` tables.

    Raises:
        ConfigError: A key is unknown or a value has the wrong type, in any layer; or the file cannot be read.
    """
    values = {key: (known.default, "default") for key, known in KEYS.items()}
    if env.get("CI", "").strip().lower() not in {"", "0", "false"}:
        values["offline"] = (True, "CI")

    plugins = {
        name: {key: (value, f"plugin {name}") for key, value in options.items()}
        for name, options in plugin_defaults.items()
    }

    if file is None and Path(CONFIG_FILE).is_file():
        file = Path(CONFIG_FILE)
    table = _read(file) if file is not None else {}
    profile = cli.get("profile") or env.get(_PREFIX + "PROFILE") or table.get("profile")
    if profile is not None:
        _apply_profile(_parse("profile", profile, "profile", "settings"), values, plugins)
    if file is not None:
        for name, options in _plugin_tables(table.pop("plugins", {}), file).items():
            plugins.setdefault(name, {}).update({key: (value, file.name) for key, value in options.items()})
        for key, value in table.items():
            values[key] = (_parse(key, value, key, str(file)), file.name)

    for key in KEYS:
        variable = _PREFIX + key.upper()
        if env.get(variable, ""):
            values[key] = (_parse(key, env[variable], variable, "environment"), variable)

    for key, value in cli.items():
        option = "--" + key.replace("_", "-")
        if value is not None and not (isinstance(value, list | tuple) and not value):
            values[key] = (_parse(key, value, option, "command line"), option)
    return Config(values, plugins)


def _apply_profile(
    profile: str, values: dict[str, tuple[Any, str]], plugins: dict[str, dict[str, tuple[Any, str]]]
) -> None:
    """Lay the settings of a profile over the defaults."""
    where, settings = f"profile {profile}", dict(read_profile(profile))
    for name, options in _plugin_tables(settings.pop("plugins", {}), Path(where)).items():
        plugins.setdefault(name, {}).update({key: (value, where) for key, value in options.items()})
    if "profile" in settings:
        raise ConfigError(f"{where} names a profile itself; settings of one discipline rest on no other")
    for key, value in settings.items():
        values[key] = (_parse(key, value, key, where), where)


def _parse(key: str, value: Any, name: str, where: str) -> Any:
    if key not in KEYS:
        known = [*KEYS, "plugins"]
        raise ConfigError(f"{where}: unknown key {key!r}{did_you_mean(key, known)}; known keys: {', '.join(known)}")
    try:
        return KEYS[key].parse(value)
    except ValueError as wanted:
        raise ConfigError(f"{where}: {name} is {value!r}, wanted {wanted}; correct this value") from wanted


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigError(f"{file}: cannot read the configuration ({problem.strerror}); check --config") from problem
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{file}: not valid TOML ({problem}); correct the file") from problem


def _plugin_tables(tables: Any, file: Path) -> Mapping[str, Mapping[str, Any]]:
    if not isinstance(tables, Mapping):
        raise ConfigError(f"{file}: plugins is {tables!r}, wanted tables such as [plugins.name]; correct this value")
    for name, options in tables.items():
        if not isinstance(options, Mapping):
            raise ConfigError(f"{file}: plugins.{name} is {options!r}, wanted a table; write [plugins.{name}]")
    return tables
