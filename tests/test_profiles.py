"""Ready settings of a discipline: beneath every other layer, complete, and each different from the defaults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import medtrust
from medtrust.config import load_config
from medtrust.errors import ConfigError
from medtrust.host import build_host
from medtrust.images import write_set
from medtrust.profiles import READY_PROFILES, read_profile
from medtrust.types import Intensity


@pytest.mark.parametrize("name", READY_PROFILES)
def test_every_ready_profile_asks_for_what_exists_and_is_searched(name):
    """Its metrics are installed, its search is one that the copy tests know, and its origin is on record."""
    settings, host = load_config({"profile": name}, env={}), build_host()
    for metric in settings.get("metrics"):
        assert metric == "all" or host.find("metric", metric).status == "ok"
    assert settings.plugin_options("privacy")["search"]
    assert settings.as_dict()["plugins"]["privacy"]["search"]["origin"] == f"profile {name}"
    assert len(read_profile(name)["plugins"]) == 1


def test_other_layers_go_over_a_profile(tmp_path):
    """File, environment and command line each win over the profile, key by key and option by option."""
    file = tmp_path / "medtrust.toml"
    file.write_text('profile = "pathology"\nlevel = 0.9\n[plugins.privacy]\neffect = 0.05\n')
    settings = load_config({}, file=file, env={})
    assert settings.origin("metrics") == "profile pathology"
    assert settings.plugin_options("privacy") == {"search": ["flips", "rotations"], "effect": 0.05}
    assert load_config({"metrics": "fd"}, file=file, env={}).get("metrics") == ("fd",)
    assert load_config({}, file=file, env={"MEDTRUST_PROFILE": "ct"}).plugin_options("privacy")["search"] == ["window"]
    assert load_config({"profile": "mr"}, file=file, env={"MEDTRUST_PROFILE": "ct"}).get("profile") == "mr"
    file.write_text('metrics = ["fd"]\n[plugins.privacy]\nsearch = []\n')
    settings = load_config({"profile": "ct"}, file=file, env={})
    assert (settings.get("metrics"), settings.plugin_options("privacy")["search"]) == (("fd",), [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read .* one of ct, mr"),
        ("metrics = [", "not valid TOML"),
        ('why = "a"', "lacks title"),
        ('title = "a"\nwhy = "b"\nmetriks = ["fd"]', "unknown key 'metriks'; did you mean 'metrics'"),
        ('title = "a"\nwhy = "b"\nprofile = "ct"', "names a profile itself"),
        ('title = "a"\nwhy = "b"\n[plugins]\nprivacy = 3', "wanted a table"),
    ],
)
def test_a_profile_that_cannot_be_used_says_why(text, message, tmp_path):
    """A missing or faulty file costs one sentence."""
    path = tmp_path / "mine.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config({"profile": str(path)}, env={})


def test_a_profile_finds_turned_copies_that_the_defaults_miss(tmp_path):
    """Skin patches turned by a quarter pass as new without the profile; with it they are named copies."""
    rng = np.random.default_rng(12)
    fields = rng.normal(size=(420, 1, 40, 40))
    for axis in (2, 3):
        fields = sum(np.roll(fields, k, axis) for k in range(-3, 4))
    images = (fields[..., 4:36, 4:36] * 4 + 128).clip(0, 255).astype(np.uint8)
    turned = np.rot90(images[:12], axes=(2, 3)).copy()
    sets = {"train": images[:140], "holdout": images[140:280], "synthetic": np.concatenate([images[292:420], turned])}
    for name, pixels in sets.items():
        write_set(tmp_path / name, ((f"{name}-{i}", p) for i, p in enumerate(pixels)), Intensity(0, 255, "level"))

    def p_value(settings: dict[str, str]) -> float:
        config = load_config(settings, env={})
        places = {name: Path(tmp_path / name) for name in sets}
        report = medtrust.audit(**places, metrics=["cpm"], patients=".+", config=config, seed=3, cache=tmp_path / "c")
        return float(report["privacy.cpm"].test.p)

    assert p_value({"profile": "dermatology"}) < 0.01 < p_value({})
