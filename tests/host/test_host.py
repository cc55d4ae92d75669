"""Names, selection, environment, extras and events of the host."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from medtrust import MetricSpec, hookimpl
from medtrust.errors import ConfigError, PluginError
from medtrust.host import KINDS, BrokenPluginError, Host, build_host

Hosted = Callable[..., Host]
Install = Callable[..., list[str]]
Listing = Callable[..., tuple[dict, str]]


class Extra:
    """A plugin that is defined on the spot."""

    def __init__(self, *names: str) -> None:
        self.names, self.told = names, []

    @hookimpl
    def medtrust_metrics(self):
        return [MetricSpec(name=name, version="1", factory="json:dumps", pillar="privacy") for name in self.names]

    @hookimpl
    def medtrust_configure(self, config):
        self.told.append(config)


# ------------------------------------------------------------------------------------------------- names


def test_a_contribution_says_where_it_comes_from(hosted: Hosted) -> None:
    """Kind, spec, entry point, distribution, version and status travel with every contribution."""
    (metric,) = hosted("good").contributions("metric")
    assert (metric.kind, metric.spec.name, metric.plugin) == ("metric", "brightness", "good")
    assert (metric.distribution, metric.distribution_version) == ("good-plugin", "1.0")
    assert (metric.full_name, metric.status) == ("good-plugin/brightness", "ok")


@pytest.mark.parametrize("name", ["brightness", "good-plugin/brightness", "Good_Plugin/brightness"])
def test_short_and_full_names_find_the_same(name: str, hosted: Hosted) -> None:
    """A short name works while it is unique; a distribution's name may be spelt in any of its ways."""
    host = hosted("good")
    assert host.find("metric", name) is host.contributions("metric")[0]


def test_one_short_name_of_two_distributions_is_an_error_only_when_asked_for(hosted: Hosted) -> None:
    """Both are listed; the short name is refused with both named; the full names work."""
    host = hosted("good", "same_short_name")
    assert host.failures == ()
    assert [c.full_name for c in host.contributions("metric")] == ["good-plugin/brightness", "rival-plugin/brightness"]
    with pytest.raises(PluginError) as caught:
        host.find("metric", "brightness")
    message = str(caught.value)
    for part in ("good-plugin 1.0", "rival-plugin 1.0", "good-plugin/brightness", "rival-plugin/brightness"):
        assert part in message
    assert host.find("metric", "rival-plugin/brightness").spec.version == "7"
    assert host.load(host.find("metric", "rival-plugin/brightness")).__qualname__ == "Rival.Metric"


def test_an_unknown_name_offers_close_ones_and_the_list(hosted: Hosted) -> None:
    """A typing error is answered with what was probably meant and what there is."""
    with pytest.raises(ConfigError) as caught:
        hosted("good", "same_short_name").find("metric", "brigthness")
    message = str(caught.value)
    assert "no metric is called 'brigthness'; did you mean 'brightness'" in message
    assert "there are: good-plugin/brightness, rival-plugin/brightness" in message


def test_a_name_of_another_kind_is_unknown(hosted: Hosted) -> None:
    """Each kind has its own names."""
    host = hosted("good")
    assert host.find("features", "mean").spec.name == "mean"
    with pytest.raises(ConfigError, match="no report format is called 'mean'; there are: none"):
        host.find("report_format", "mean")


def test_an_unknown_kind_is_a_programming_error(hosted: Hosted) -> None:
    """A kind that does not exist is not an empty answer."""
    host = hosted("good")
    for call in (lambda: host.contributions("metrics"), lambda: host.find("metrics", "x")):
        with pytest.raises(ValueError, match="no kind 'metrics'"):
            call()


def test_a_full_name_of_a_broken_distribution_says_why(hosted: Hosted) -> None:
    """Asking a broken plugin for something is a plugin error with its reason, not an unknown name."""
    host = hosted("import_error", "good")
    with pytest.raises(PluginError, match=r"broken-import 1\.0 failed at import: .*a_package_that_nobody_has"):
        host.find("metric", "broken-import/anything")


def test_an_unknown_short_name_mentions_plugins_that_may_have_had_it(hosted: Hosted) -> None:
    """With a broken plugin around, the error says that the name may be among what it lost."""
    host = hosted("raises_midway", "good")
    with pytest.raises(ConfigError, match=r"raises-midway 1\.0 may offer it, but is broken: medtrust_metrics: OSError"):
        host.find("metric", "after")


def test_a_refused_offer_says_why(hosted: Hosted) -> None:
    """A spec that was refused is found by name, as the error that refused it."""
    host = hosted("bad_return", "good")
    for name in ("texty", "bad-return/texty"):
        with pytest.raises(PluginError, match=r"bad-return 1\.0 failed at contract: .*texty: suffixes must be"):
            host.find("format", name)
    with pytest.raises(ConfigError):
        host.find("metric", "texty")


# --------------------------------------------------------------------------------------------- selection


def test_the_allow_list_works_before_import(install: Install) -> None:
    """A plugin that is not allowed is not imported; entry points and distributions may be named."""
    install("good", "same_short_name", "import_error", "interrupt")
    for allow in (["good"], ["good-plugin"], ["Good.Plugin"], "good"):
        host = build_host(allow=allow)
        assert [c.full_name for c in host.contributions("metric")] == ["good-plugin/brightness"]
        assert host.failures == ()
    assert "interrupt_plugin" not in sys.modules
    assert "rival_plugin" not in sys.modules


def test_an_empty_allow_list_allows_nothing(install: Install) -> None:
    """No plugin at all, and so no contribution and no failure, malformed distributions included."""
    install("good", "malformed_entry_points")
    host = build_host(allow=[])
    assert host.plugins() == []
    assert all(host.contributions(kind) == () for kind in KINDS)


def test_an_allowed_name_that_nothing_bears_is_a_failure(install: Install) -> None:
    """A misspelt allow-list is not an empty one."""
    install("good")
    host = build_host(allow=["good", "god-plugin"])
    (failure,) = host.failures
    assert failure.stage == "discover"
    assert "'god-plugin'; did you mean 'good-plugin'" in failure.error
    assert host.contributions("metric")
    with pytest.raises(PluginError, match="god-plugin"):
        build_host(allow=["god-plugin"], strict=True)


def test_an_error_names_what_the_allow_list_leaves_out(install: Install) -> None:
    """Whoever asks for a metric of a plugin that is not allowed learns why it is not there."""
    install("good", "same_short_name")
    with pytest.raises(ConfigError, match=r"MEDTRUST_PLUGINS leaves out .*good"):
        build_host(allow=["rival"]).find("metric", "good-plugin/brightness")


def test_the_first_of_two_copies_of_a_distribution_counts(
    install: Install, dists: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer copy in front of the path shadows the older one, as it does for import."""
    install("good")
    shutil.copytree(dists / "good", tmp_path / "newer")
    info = (tmp_path / "newer" / "good_plugin-1.0.dist-info").rename(tmp_path / "newer" / "good_plugin-2.0.dist-info")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: Good_Plugin\nVersion: 2.0\n")
    monkeypatch.syspath_prepend(str(tmp_path / "newer"))
    host = build_host(allow=["good-plugin"])
    assert host.failures == ()
    assert [row["version"] for row in host.plugins()] == ["2.0"]
    (info / "entry_points.txt").unlink()  # version 2 is no plugin any more, whatever an old copy says
    monkeypatch.syspath_prepend(str(tmp_path))
    assert build_host(allow=["good-plugin"]).contributions("metric") == ()


def test_entry_points_can_be_given(install: Install) -> None:
    """Instead of discovering, a caller can name the entry points."""
    install("good")
    host = build_host(entry_points=[EntryPoint("mine", "good_plugin.plugin", "medtrust")])
    assert [c.full_name for c in host.contributions("metric")] == ["local/brightness"]


def test_two_hosts_share_nothing(hosted: Hosted) -> None:
    """There is no global manager: what one host learns, another does not know."""
    one, other = hosted("good"), hosted("good")
    one.register(Extra("late"), "late")
    assert len(one.contributions("metric")) == 2
    assert len(other.contributions("metric")) == 1


# ---------------------------------------------------------------------------------------- environment


LIST = """
import json, sys
from medtrust.errors import MedtrustError
from medtrust.host import build_host
try:
    host = build_host()
    listed = host.plugins()
except MedtrustError as error:
    print(json.dumps({"error": str(error)}))
else:
    heavy = sorted({"torch", "numpy", "scipy", "PIL"} & set(sys.modules))
    print(json.dumps({"plugins": listed, "heavy": heavy, "failures": [f.distribution for f in host.failures]}))
"""


@pytest.fixture
def listing(python: Callable[..., subprocess.CompletedProcess[str]]) -> Listing:
    """List plugins in a process of its own; returns what it printed as JSON, and its standard error."""

    def run(*cases: str, **variables: str) -> tuple[dict, str]:
        done = python(LIST, *cases, **variables)
        return json.loads(done.stdout), done.stderr

    return run


def test_listing_imports_neither_torch_nor_numpy(listing: Listing) -> None:
    """Discovery, registration and description of every installed plugin stay light."""
    listed, _ = listing("good", "system_exit")
    assert listed["heavy"] == []
    plugins = {row["name"]: row for row in listed["plugins"]}
    assert plugins["good"]["status"] == "ok"
    assert plugins["leaves_early"]["status"] == "broken"
    assert any(row["distribution"] == "medtrust" for row in listed["plugins"])


def test_medtrust_plugins_is_an_allow_list(listing: Listing) -> None:
    """The variable selects plugins, and an empty one selects none."""
    listed, _ = listing("good", "system_exit", MEDTRUST_PLUGINS="good, ")
    assert [row["name"] for row in listed["plugins"]] == ["good"]
    listed, _ = listing("good", "system_exit", MEDTRUST_PLUGINS="")
    assert listed["plugins"] == []


def test_medtrust_strict_raises(listing: Listing) -> None:
    """MEDTRUST_STRICT=1 turns the failure into an error, 0 does not, and anything else is refused."""
    chosen = {"MEDTRUST_PLUGINS": "good,leaves-early"}
    assert "leaves-early 1.0" in listing("good", "system_exit", MEDTRUST_STRICT="1", **chosen)[0]["error"]
    assert listing("good", "system_exit", MEDTRUST_STRICT="0", **chosen)[0]["failures"] == ["leaves-early 1.0"]
    assert "MEDTRUST_STRICT is 'x'" in listing("good", MEDTRUST_STRICT="x", **chosen)[0]["error"]


def test_medtrust_trace_shows_each_call(listing: Listing) -> None:
    """One line per import and hook call, with plugin, distribution, milliseconds and outcome, on standard error."""
    _, shown = listing("good", "raises_midway", MEDTRUST_TRACE="1", MEDTRUST_PLUGINS="good,raises-midway")
    lines = [line.split(" ms  ")[1] for line in shown.splitlines() if " ms  " in line]
    assert "good (good-plugin 1.0)  good_plugin.plugin  ok" in lines
    assert "good (good-plugin 1.0)  medtrust_metrics  ok" in lines
    assert any("raises-midway 1.0)  medtrust_metrics  OSError: the table" in line for line in lines)


# ------------------------------------------------------------------------------------------------ extras


def test_a_missing_extra_is_a_status_with_the_pip_line(hosted: Hosted) -> None:
    """A contribution that lacks a package is listed, with the line that brings it, and nothing was imported."""
    host = hosted("missing_extra", "good")
    assert host.failures == ()
    status = {c.spec.name: c.status for c in host.contributions("metric")}
    assert status == {
        "brightness": "ok",
        "heavy": "missing extra: a_package_that_nobody_has not installed; pip install 'missing-extra[heavy]'",
        "bare": "missing extra: a_package_that_nobody_has.part not installed; "
        "pip install a_package_that_nobody_has.part",
        "satisfied": "ok",
    }
    assert "missing_extra.parent" not in sys.modules


def test_asking_for_a_missing_extra_is_a_plugin_error_with_the_pip_line(hosted: Hosted) -> None:
    """Loading says what to install, without trying the import."""
    host = hosted("missing_extra", "good")
    with pytest.raises(PluginError) as caught:
        host.load(host.find("metric", "heavy"))
    message = str(caught.value)
    assert "missing-extra 1.0" in message
    assert message.endswith("pip install 'missing-extra[heavy]'")
    assert host.load(host.find("metric", "satisfied")) is json.dumps


# ------------------------------------------------------------------------------------ events, late plugins


def test_configure_reaches_plugins_that_come_later() -> None:
    """The historic hook is told to whoever registers after it was fired, once each."""
    host = build_host(allow=[])
    early, late = Extra("a"), Extra("b")
    host.register(early, "early")
    host.fire("medtrust_configure", config="settings")
    host.register(late, "late")
    assert (early.told, late.told) == (["settings"], ["settings"])


@pytest.mark.parametrize(
    ("hook", "arguments"),
    [
        ("medtrust_metrics", {}),
        ("medtrust_nothing", {}),
        ("medtrust_before_metric", {"plan": 1}),
        ("medtrust_after_report", {"report": {}, "more": 1}),
    ],
)
def test_firing_wrongly_is_the_callers_error(hook: str, arguments: dict[str, object], hosted: Hosted) -> None:
    """A wrong hook or argument is not blamed on the plugins."""
    host = hosted("good")
    with pytest.raises(ValueError, match=r"event hook|takes"):
        host.fire(hook, **arguments)
    assert host.failures == ()


def test_a_late_plugin_that_is_broken_is_raised() -> None:
    """Registering by hand raises what is wrong, keeps what is sound, and refuses the same object twice."""
    host = build_host(allow=[])
    with pytest.raises(BrokenPluginError, match="all"):
        host.register(Extra("sound", "all"), "some")
    assert [c.full_name for c in host.contributions("metric")] == ["local/sound"]
    twin = Extra("other")
    host.register(twin, "one", distribution="a")
    with pytest.raises(BrokenPluginError, match="registered already, as a/one"):
        host.register(twin, "two", distribution="b")
    assert [c.full_name for c in host.contributions("metric")] == ["a/other", "local/sound"]


def test_a_module_can_be_registered() -> None:
    """A module made on the spot is a plugin like any other."""
    module = types.ModuleType("on_the_spot")

    @hookimpl
    def medtrust_metrics():
        yield MetricSpec(name="here", version="1", factory="json:dumps", pillar="privacy")

    module.medtrust_metrics = medtrust_metrics
    host = build_host(allow=[])
    host.register(module, "spot")
    assert host.load(host.find("metric", "here")) is json.dumps
