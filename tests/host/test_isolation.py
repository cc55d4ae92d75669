"""Broken distributions, found by real discovery: each costs its own contributions and nobody else's."""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Callable

import pytest

from medtrust.errors import PluginError
from medtrust.host import BrokenPluginError, Host
from medtrust.host.isolation import Isolation, Source, one_line
from medtrust.types import PluginFailure

Hosted = Callable[..., Host]


def names(host: Host, kind: str = "metric") -> list[str]:
    return [c.full_name for c in host.contributions(kind)]


def the_failure(host: Host) -> PluginFailure:
    (failure,) = host.failures
    return failure


# case, distribution, entry point, stage, what the error says
BROKEN = [
    (
        "import_error",
        "broken-import",
        "broken_import",
        "import",
        "No module named 'a_package_that_nobody_has' (plugin.py, line 1)",
    ),
    ("system_exit", "leaves-early", "leaves_early", "import", "SystemExit: 3 (leaves_early.py, line 2)"),
    ("absent_attribute", "absent-attribute", "absent_attribute", "import", "has no attribute 'nothing'"),
    (
        "misspelt_hook",
        "misspelt-hook",
        "misspelt",
        "register",
        "no hook medtrust_metrcs; did you mean medtrust_metrics?",
    ),
    (
        "undecorated_hook",
        "undecorated-hook",
        "undecorated",
        "register",
        "medtrust_metrics lacks the decorator @hookimpl",
    ),
    ("wrong_argument", "wrong-argument", "wrong_argument", "register", "planet"),
    ("wrapper", "hook-wrapper", "wrapper", "register", "medtrust_metrics is a hook wrapper"),
    ("empty", "empty-plugin", "empty", "register", "no function with the decorator @hookimpl"),
    ("newer_api", "newer-api", "newer_api", "register", "written for plugin API 99, this medtrust has 1"),
    ("newer_hook", "newer-hook", "newer_hook", "register", "no hook medtrust_holograms; a newer medtrust may have it"),
    ("malformed_entry_points", "malformed_entry_points", "(all)", "discover", "metadata: "),
    ("no_name", "no_name", "(all)", "discover", "METADATA has no Name"),
]


@pytest.mark.parametrize(("case", "distribution", "plugin", "stage", "error"), BROKEN, ids=[row[0] for row in BROKEN])
def test_a_broken_plugin_is_named_and_harms_nobody(
    case: str, distribution: str, plugin: str, stage: str, error: str, hosted: Hosted
) -> None:
    """The failure names distribution, version, stage, cause and remedy; the good plugin's contributions stay."""
    host = hosted(case, "good")
    failure = the_failure(host)
    assert failure.distribution == f"{distribution} 1.0"
    assert (failure.plugin, failure.stage) == (plugin, stage)
    assert error in failure.error
    assert failure.remedy
    assert "\n" not in failure.error
    assert names(host) == ["good-plugin/brightness"]
    assert names(host, "features") == ["good-plugin/mean"]
    assert host.load(host.find("metric", "brightness")).__name__ == "Brightness"


@pytest.mark.parametrize("row", BROKEN, ids=[row[0] for row in BROKEN])
def test_a_strict_host_raises_instead(row: tuple[str, ...], hosted: Hosted) -> None:
    """With strict=True the same failures stop the host, with the same facts in one line."""
    with pytest.raises(PluginError) as caught:
        hosted(row[0], "good", strict=True)
    assert f"{row[1]} 1.0" in str(caught.value)
    assert row[4] in str(caught.value)


@pytest.mark.parametrize("case", ["misspelt_hook", "newer_hook", "wrapper", "newer_api", "undecorated_hook", "empty"])
def test_a_refused_plugin_is_unregistered(case: str, hosted: Hosted) -> None:
    """None of a refused plugin's hooks is ever called, even those that were spelt right."""
    host = hosted(case)
    assert host._manager.get_plugins() == set()
    assert names(host) == []
    (row,) = host.plugins()
    assert (row["status"], row["contributions"]) == ("broken", [])


def test_an_interrupt_passes_through(hosted: Hosted) -> None:
    """Ctrl-C during a plugin's import stops the program, not the plugin."""
    with pytest.raises(KeyboardInterrupt):
        hosted("interrupt", "good")


def test_prints_go_to_standard_error(hosted: Hosted, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever plugins print at import, in hooks and in factories, standard output belongs to medtrust."""
    host = hosted("noisy_import", "system_exit", "raises_in_factory", "good")
    host.fire("medtrust_before_metric", plan=None, metric="m")
    with pytest.raises(BrokenPluginError):
        host.load(host.find("metric", "raising_module"))
    printed = capsys.readouterr()
    assert printed.out == ""
    for line in (
        "imported with a shout",
        "called with a shout",
        "belongs on standard error",
        "heard of m",
        "on the way",
    ):
        assert line in printed.err
    assert names(host)[:2] == ["good-plugin/brightness", "noisy-import/loudness"]


def test_an_optional_hook_may_be_unknown(hosted: Hosted) -> None:
    """A plugin that marks a newer hook as optional works with this medtrust."""
    host = hosted("optional_hook")
    assert host.failures == ()
    assert names(host) == ["optional-hook/careful"]


def test_a_generator_that_raises_midway_keeps_what_it_yielded(hosted: Hosted) -> None:
    """What came before the exception is offered, and the exception is recorded."""
    host = hosted("raises_midway", "good")
    failure = the_failure(host)
    assert (failure.distribution, failure.stage) == ("raises-midway 1.0", "hook")
    assert failure.error == "medtrust_metrics: OSError: the table of metrics ends here (raises_midway.py, line 8)"
    assert names(host) == ["good-plugin/brightness", "raises-midway/also_before", "raises-midway/before"]
    assert [row["status"] for row in host.plugins()] == ["ok", "partly broken"]


def test_one_raising_hook_leaves_the_plugins_other_hooks(hosted: Hosted) -> None:
    """Isolation is per call: a plugin whose metrics hook raises still offers its features."""
    host = hosted("raises_in_hook", "good")
    failure = the_failure(host)
    assert (failure.distribution, failure.stage) == ("raises-in-hook 1.0", "hook")
    assert "medtrust_metrics: RuntimeError: first line second line [31mred" in failure.error
    assert names(host, "features") == ["good-plugin/mean", "raises-in-hook/sound"]
    assert names(host) == ["good-plugin/brightness"]


def test_wrong_returns_are_told_apart(hosted: Hosted) -> None:
    """A bare spec, a stray type, a bad field and a forgotten return each get a sentence; sound specs are kept."""
    host = hosted("bad_return", "good")
    assert {f.distribution for f in host.failures} == {"bad-return 1.0"}
    assert {f.stage for f in host.failures} == {"contract"}
    assert sorted(f.error for f in host.failures) == [
        "medtrust_features: offered a MetricSpec where a FeatureSpec belongs",
        "medtrust_features: offered a str where a FeatureSpec belongs",
        "medtrust_formats: dotless: factory must read \"package.module:attribute\", it is 'bad_return.Dotless'",
        "medtrust_formats: texty: suffixes must be a tuple of texts such as ('a',), it is '.x'",
        "medtrust_formats: the name 'a/b' is reserved or not made of letters, digits, '.', '_' and '-'",
        "medtrust_generators returned NoneType, wanted an iterable of GeneratorSpec",
        "medtrust_metrics returned MetricSpec, wanted an iterable of MetricSpec",
    ]
    assert names(host, "features") == ["bad-return/sound", "good-plugin/mean"]
    assert names(host) == ["good-plugin/brightness"]


def test_a_distribution_that_offers_a_name_twice_keeps_the_first(hosted: Hosted) -> None:
    """The second offer of one name by one distribution fails; both plugins' other offers stay."""
    host = hosted("duplicate_name", "good")
    failure = the_failure(host)
    assert (failure.plugin, failure.distribution, failure.stage) == ("second", "duplicate-name 1.0", "contract")
    assert "metric twice is offered twice by this distribution; plugin first keeps it" in failure.error
    assert host.find("metric", "twice").plugin == "first"
    assert names(host) == [
        "duplicate-name/only_first",
        "duplicate-name/only_second",
        "duplicate-name/twice",
        "good-plugin/brightness",
    ]


def test_two_entry_points_for_one_module_keep_the_first(hosted: Hosted) -> None:
    """Refusing the second entry point must not take the first one's registration away."""
    host = hosted("two_entry_points", "good")
    failure = the_failure(host)
    assert (failure.plugin, failure.distribution) == ("right", "two-entry-points 1.0")
    assert "registered already, as two-entry-points/left" in failure.error
    assert names(host) == ["good-plugin/brightness", "two-entry-points/shared"]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("absent_module", "ModuleNotFoundError: No module named 'raises_in_factory.absent'"),
        ("absent_attribute", "has no attribute 'Absent'"),
        ("raising_module", "ZeroDivisionError: weights of size zero (raising.py, line 2)"),
        ("exiting_module", "SystemExit: goodbye (exiting.py, line 1)"),
    ],
)
def test_a_factory_that_cannot_be_loaded_is_a_plugin_error(name: str, error: str, hosted: Hosted) -> None:
    """Loading names distribution, version, stage and factory, and carries the failure for the report."""
    host = hosted("raises_in_factory", "good")
    with pytest.raises(PluginError) as caught:
        host.load(host.find("metric", name))
    message = str(caught.value)
    assert "plugin raises_in_factory of raises-in-factory 1.0 failed at import: raises_in_factory." in message
    assert error in message
    assert isinstance(caught.value, BrokenPluginError)
    assert caught.value.failure.stage == "import"
    assert host.failures == ()  # it was raised, so it is not also something that went unseen
    assert host.load(host.find("metric", "brightness")).__name__ == "Brightness"


def test_events_reach_everybody_in_the_order_of_names(hosted: Hosted) -> None:
    """A raising listener does not silence the next, and its failure is recorded once however often it recurs."""
    host = hosted("raises_in_hook", "good")
    known = len(host.failures)
    sys.modules["good_plugin.plugin"].heard.clear()  # type: ignore[attr-defined]
    for _ in range(3):
        (failure,) = host.fire("medtrust_before_metric", plan=None, metric="m")
        assert (failure.distribution, failure.stage) == ("raises-in-hook 1.0", "hook")
        assert "medtrust_before_metric: KeyError: 'm'" in failure.error
    assert host.fire("medtrust_after_report", report={})[0].error.startswith("medtrust_after_report: SystemExit: 1")
    assert len(host.failures) == known + 2
    assert sys.modules["good_plugin.plugin"].heard == [("before", "m")] * 3  # type: ignore[attr-defined]


def test_a_strict_host_raises_from_an_event(hosted: Hosted) -> None:
    """Strictness covers events as well."""
    host = hosted("good", strict=True)

    class Loud:
        from medtrust import hookimpl

        @hookimpl
        def medtrust_after_report(self, report: object) -> None:
            raise RuntimeError("no")

    host.register(Loud(), "loud")
    with pytest.raises(PluginError, match="local 0 failed at hook: medtrust_after_report: RuntimeError: no"):
        host.fire("medtrust_after_report", report={})


def test_the_failure_survives_pickling() -> None:
    """A failure raised in a worker process reaches the parent as itself."""
    error = BrokenPluginError(PluginFailure("p", "d 1.0", "run", "it broke", "mend it"))
    again = pickle.loads(pickle.dumps(error))
    assert (again.failure, str(again)) == (error.failure, str(error))


def test_one_line_is_one_printable_short_line() -> None:
    """Whatever an exception says reaches a terminal as one line without control characters."""

    class Unprintable(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert one_line(ValueError("a\nb\x1b[2J\x00c\u202e")) == "ValueError: a b [2J c"
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line(ValueError("x" * 100_000))) < 500
    assert one_line(Unprintable()) == "Unprintable: its message cannot be printed (ValueError)"


def test_overlapping_calls_give_standard_output_back() -> None:
    """Two threads inside plugins at once, leaving in the order they came, leave standard output as it was."""
    isolation, source = Isolation(trace=False), Source("p", "d", "1")
    before, entered, leave = sys.stdout, threading.Event(), threading.Event()

    def first() -> None:
        with isolation.call(source, "run", "first"):
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait(10)
    with isolation.call(source, "run", "second"):
        leave.set()
        thread.join()
        assert sys.stdout is sys.stderr
    assert sys.stdout is before
