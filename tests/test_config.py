"""Configuration: precedence, origins, and errors that name the file, the key and a close match."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtrust.config import KEYS, Config, did_you_mean, env_flag, load_config
from medtrust.errors import ConfigError

# One valid value per key and layer, no two layers alike: (plain Python for the file and the command line, environment).
SAMPLES = {
    "train": ("a", "b", "c"),
    "holdout": ("a", "b", "c"),
    "synthetic": ("gan:a?x=1", "b", "c"),
    "features": (["a"], "b", ["c"]),
    "metrics": (["a"], "b", ["c"]),
    "profile": ("ct", "mr", "xray"),
    "policy": ("a.toml", "b.toml", "c.toml"),
    "baseline": ("a.json", "b.json", "c.json"),
    "weights": ({"n": "a"}, "n=b", ["n=c"]),
    "patients": ("a(.)", "b(.)", "c(.)"),
    "intensity": ("0:1", "0:2", "0:3"),
    "subgroups": (["a"], "b", ["c"]),
    "slices": ("z", "y:2", "x:3"),
    "volumes": ("mean", "mean-sd", "mean"),
    "out": ("a", "b", "c"),
    "format": (["a"], "b", ["c"]),
    "evidence": ("none", "blur", "full"),
    "seed": (1, "2", 3),
    "device": ("cpu", "cuda", "cuda:1"),
    "precision": ("fp32", "bf16", "fp32"),
    "engine": ("local", "ray", "local"),
    "ray_address": ("a:1", "b:2", "c:3"),
    "workers": (1, "2", 3),
    "offline": (True, "0", True),
    "level": (0.9, "0.8", 0.7),
    "batch_size": (1, "2", 3),
    "metric_timeout": (1.5, "2", 3.0),
    "n_synthetic": (1, "2", 3),
    "condition": ("a", "b", "c"),
    "cache": ("a", "b", "c"),
}


def toml_value(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {json.dumps(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "medtrust.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_samples_cover_every_key() -> None:
    """A new key cannot be forgotten by the precedence test."""
    assert SAMPLES.keys() == KEYS.keys()


@pytest.mark.parametrize("key", SAMPLES)
def test_a_higher_layer_wins_and_is_named(key: str, tmp_path: Path) -> None:
    """Each layer overrides those below it, and the origin says which one spoke."""
    in_file, in_env, in_cli = SAMPLES[key]
    file = write(tmp_path, f"{key} = {toml_value(in_file)}\n")
    variable, option = f"MEDTRUST_{key.upper()}", "--" + key.replace("_", "-")
    parse = KEYS[key].parse

    default = load_config({}, env={})
    assert (default.get(key), default.origin(key)) == (KEYS[key].default, "default")
    from_file = load_config({}, file=file, env={})
    assert (from_file.get(key), from_file.origin(key)) == (parse(in_file), "medtrust.toml")
    from_env = load_config({}, file=file, env={variable: in_env})
    assert (from_env.get(key), from_env.origin(key)) == (parse(in_env), variable)
    from_cli = load_config({key: in_cli}, file=file, env={variable: in_env})
    assert (from_cli.get(key), from_cli.origin(key)) == (parse(in_cli), option)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


def test_the_file_of_the_current_directory_is_read_unasked(tmp_path: Path) -> None:
    """Without --config, medtrust.toml of the current directory counts."""
    write(tmp_path / "cwd", "seed = 7\n")
    config = load_config({}, env={})
    assert (config.get("seed"), config.origin("seed")) == (7, "medtrust.toml")


def test_what_was_not_given_does_not_override(tmp_path: Path) -> None:
    """None and empty sequences of the command line, and empty variables, leave lower layers alone."""
    file = write(tmp_path, "seed = 7\nmetrics = ['a', 'b']\n")
    config = load_config({"seed": None, "metrics": ()}, file=file, env={"MEDTRUST_SEED": ""})
    assert (config.get("seed"), config.get("metrics")) == (7, ("a", "b"))


def test_zero_and_false_do_override(tmp_path: Path) -> None:
    """A false or zero value of the command line is a value, not an absence."""
    file = write(tmp_path, "seed = 7\noffline = true\n")
    config = load_config({"seed": 0, "offline": False}, file=file, env={})
    assert (config.get("seed"), config.get("offline")) == (0, False)
    assert config.origin("offline") == "--offline"


@pytest.mark.parametrize(
    ("ci", "offline", "origin"), [("true", True, "CI"), ("false", False, "default"), ("", False, "default")]
)
def test_continuous_integration_is_offline_by_default(ci: str, offline: bool, origin: str, tmp_path: Path) -> None:
    """Where CI is set, offline is the default, and the file can still say otherwise."""
    config = load_config({}, env={"CI": ci})
    assert (config.get("offline"), config.origin("offline")) == (offline, origin)
    assert load_config({}, file=write(tmp_path, "offline = false\n"), env={"CI": ci}).get("offline") is False


def test_an_unknown_key_names_file_key_and_close_match(tmp_path: Path) -> None:
    """A misspelt key is an error that offers the right spelling."""
    file = write(tmp_path, "batch-size = 3\n")
    with pytest.raises(ConfigError) as caught:
        load_config({}, file=file, env={})
    assert str(file) in str(caught.value)
    assert "'batch-size'; did you mean 'batch_size'?" in str(caught.value)


def test_an_unknown_option_is_refused_as_well() -> None:
    """The same table rules the command line."""
    with pytest.raises(ConfigError, match=r"command line: unknown key 'sede'; did you mean 'seed'\?"):
        load_config({"sede": 3}, env={})


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("seed = 'x'", "whole number"),
        ("seed = true", "whole number"),
        ("seed = -1", "at least 0"),
        ("seed = 1.0", "whole number"),
        ("batch_size = 0", "at least 1"),
        ("level = 1", "between 0 and 1"),
        ("level = nan", "between 0 and 1"),
        ("level = true", "between 0 and 1"),
        ("offline = 1", "true or false"),
        ("offline = 'perhaps'", "true or false"),
        ("evidence = 'some'", "none, blur, full"),
        ("evidence = ['none']", "none, blur, full"),
        ("device = 'tpu'", "cuda:N"),
        ("device = 0", "cuda:N"),
        ("train = 3", "text"),
        ("train = ''", "text"),
        ("policy = ['a']", "text"),
        ("features = []", "list of names"),
        ("features = [1]", "list of names"),
        ("features = ''", "list of names"),
        ("weights = 'x'", "NAME=PATH"),
        ("weights = 3", "NAME=PATH"),
        ("weights = {x = 3}", "text"),
        ("patients = '('", "regular expression"),
    ],
)
def test_a_wrong_type_names_file_key_and_value(line: str, wanted: str, tmp_path: Path) -> None:
    """A value of the wrong type is refused with the file, the key and what was wanted."""
    file = write(tmp_path, line + "\n")
    with pytest.raises(ConfigError) as caught:
        load_config({}, file=file, env={})
    message = str(caught.value)
    assert message.startswith(f"{file}: {line.split(' ')[0]} is ")
    assert wanted in message


def test_a_wrong_variable_is_named() -> None:
    """An error of the environment names the variable, not a file."""
    with pytest.raises(ConfigError, match="environment: MEDTRUST_SEED is 'many', wanted a whole number"):
        load_config({}, env={"MEDTRUST_SEED": "many"})


@pytest.mark.parametrize("content", [b"seed = \n", b"seed = 1\nseed = 2\n", b"\xff\xfe"])
def test_a_broken_file_is_named(content: bytes, tmp_path: Path) -> None:
    """Text that is not TOML is an error that names the file."""
    file = tmp_path / "medtrust.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="not valid TOML") as caught:
        load_config({}, file=file, env={})
    assert str(file) in str(caught.value)


def test_a_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    """--config with a missing file, or a folder, is an error and not the defaults."""
    for path in (tmp_path / "absent.toml", tmp_path):
        with pytest.raises(ConfigError, match="cannot read the configuration"):
            load_config({}, file=path, env={})


def test_plugin_tables_pass_through_over_plugin_defaults(tmp_path: Path) -> None:
    """[plugins.<name>] is handed on untouched, above the plugin's own defaults, each option with its origin."""
    file = write(
        tmp_path,
        "[plugins.fidelity]\nbins = 32\nnested = {a = [1, 2]}\n[plugins.other]\nx = 1979-05-27\ny = [nan, -inf]\n",
    )
    config = load_config({}, file=file, env={}, plugin_defaults={"fidelity": {"bins": 16, "depth": 3}})
    assert config.plugin_options("fidelity") == {"bins": 32, "nested": {"a": [1, 2]}, "depth": 3}
    assert config.plugin_options("nobody") == {}
    written = config.as_dict()["plugins"]
    assert written["fidelity"]["bins"] == {"value": 32, "origin": "medtrust.toml"}
    assert written["fidelity"]["depth"] == {"value": 3, "origin": "plugin fidelity"}
    assert written["other"]["x"]["value"] == "1979-05-27"
    assert written["other"]["y"]["value"] == ["nan", "-inf"]


@pytest.mark.parametrize("text", ["plugins = 3\n", "[plugins]\nfidelity = 3\n"])
def test_plugin_options_must_be_tables(text: str, tmp_path: Path) -> None:
    """A scalar where a plugin's table belongs is refused."""
    with pytest.raises(ConfigError, match=r"wanted (a table|tables)"):
        load_config({}, file=write(tmp_path, text), env={})


def test_lists_take_commas_and_repeats_once_each() -> None:
    """--metrics a,b --metrics c and MEDTRUST_METRICS=a,b,c say the same; a repeated name counts once."""
    by_option = load_config({"metrics": ("a, b", "c", "a")}, env={})
    by_variable = load_config({}, env={"MEDTRUST_METRICS": "a,b,c"})
    assert by_option.get("metrics") == by_variable.get("metrics") == ("a", "b", "c")


def test_weights_are_paths_by_name() -> None:
    """NAME=PATH pairs keep an equals sign that belongs to the path."""
    config = load_config({"weights": ["inception=a=b.pt", "dino=c"]}, env={})
    assert dict(config.get("weights")) == {"inception": Path("a=b.pt"), "dino": Path("c")}


def test_as_dict_is_json_with_every_key_and_origin(tmp_path: Path) -> None:
    """The report's copy of the configuration survives JSON unchanged."""
    config = load_config({"out": Path("x"), "weights": ["n=p"]}, file=write(tmp_path, "seed = 3\n"), env={})
    data = config.as_dict()
    assert json.loads(json.dumps(data)) == data
    assert data.keys() == {*KEYS, "plugins"}
    assert data["out"] == {"value": "x", "origin": "--out"}
    assert data["weights"]["value"] == {"n": "p"}
    assert data["seed"] == {"value": 3, "origin": "medtrust.toml"}


def test_the_caller_cannot_change_a_configuration(tmp_path: Path) -> None:
    """What a Config hands out is not a handle on the Config."""
    config: Config = load_config({}, env={}, plugin_defaults={"p": {"a": 1}})
    with pytest.raises(TypeError):
        config.plugin_options("p")["a"] = 2  # type: ignore[index]
    config.as_dict()["seed"]["value"] = 9
    assert config.get("seed") == 0


@given(seed=st.integers(min_value=0, max_value=2**80), level=st.floats(0.001, 0.999))
def test_numbers_survive_the_environment(seed: int, level: float) -> None:
    """Numbers written to a variable come back exactly."""
    config = load_config({}, env={"MEDTRUST_SEED": str(seed), "MEDTRUST_LEVEL": repr(level)})
    assert (config.get("seed"), config.get("level")) == (seed, level)


def test_flags_of_the_environment() -> None:
    """On, off, unset and empty are understood; anything else is an error that names the variable."""
    assert [env_flag("X", {"X": value}) for value in ("1", "true", "ON", "0", "no", "", " ")] == [True] * 3 + [
        False
    ] * 4
    assert env_flag("X", {}) is False
    with pytest.raises(ConfigError, match="X is 'maybe'"):
        env_flag("X", {"X": "maybe"})


def test_did_you_mean_is_silent_without_a_close_word() -> None:
    """A far-off word gets no suggestion."""
    assert did_you_mean("zzz", ["seed", "level"]) == ""
    assert did_you_mean("leve", ["seed", "level"]) == "; did you mean 'level'?"
