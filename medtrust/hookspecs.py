"""Every hook that a plugin can implement. Each docstring holds a whole working plugin.

A plugin is a module, or any object, named by an entry point in the group `medtrust`:

    [project.entry-points.medtrust]
    my_plugin = "my_package.plugin"

Registration hooks return data (specs); event hooks are told what happens. A hook implementation may take fewer
arguments than the specification names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

from medtrust.types import (
    ExplainerSpec,
    FeatureSpec,
    FormatSpec,
    GeneratorSpec,
    MetricSpec,
    PluginFailure,
    ReportFormat,
    Result,
    SuiteSpec,
)

if TYPE_CHECKING:
    from medtrust.config import Config

__all__ = ["API_VERSION", "GROUP", "EVENT_HOOKS", "REGISTRATION_HOOKS", "MedtrustSpecs", "hookimpl", "hookspec"]

GROUP = "medtrust"
API_VERSION = 1

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


class MedtrustSpecs:
    """The hooks, version 1. A plugin module may state `MEDTRUST_API = 1`; a newer number is refused with a sentence."""

    @hookspec
    def medtrust_formats(self) -> Iterable[FormatSpec]:  # type: ignore[empty-body]
        """Offer file formats.

        Example:
            from medtrust import FormatSpec, hookimpl

            @hookimpl
            def medtrust_formats():
                yield FormatSpec(name="raw", version="1", factory="my_package.raw:RawReader", suffixes=(".raw",))
        """

    @hookspec
    def medtrust_generators(self) -> Iterable[GeneratorSpec]:  # type: ignore[empty-body]
        """Offer generators.

        Example:
            from medtrust import GeneratorSpec, hookimpl

            @hookimpl
            def medtrust_generators():
                yield GeneratorSpec(name="noise", version="1", factory="my_package.noise:Noise", family="other")
        """

    @hookspec
    def medtrust_features(self) -> Iterable[FeatureSpec]:  # type: ignore[empty-body]
        """Offer feature spaces.

        Example:
            from medtrust import FeatureSpec, hookimpl

            @hookimpl
            def medtrust_features():
                yield FeatureSpec(name="mean", version="1", factory="my_package.mean:Mean")
        """

    @hookspec
    def medtrust_metrics(self) -> Iterable[MetricSpec]:  # type: ignore[empty-body]
        """Offer metrics.

        Example:
            from medtrust import Estimate, MetricSpec, Result, hookimpl

            class Brightness:
                def compute(self, data):
                    gap = data.synthetic.matrix.mean() - data.train.matrix.mean()
                    return Result(Estimate(float(gap)))

            @hookimpl
            def medtrust_metrics():
                yield MetricSpec(name="brightness", version="1", factory="my_plugin:Brightness", pillar="fidelity",
                                 needs=("train", "synthetic", "features"))
        """

    @hookspec
    def medtrust_explainers(self) -> Iterable[ExplainerSpec]:  # type: ignore[empty-body]
        """Offer explanation methods.

        Example:
            from medtrust import ExplainerSpec, hookimpl

            @hookimpl
            def medtrust_explainers():
                yield ExplainerSpec(name="occlusion", version="1", factory="my_package.occlusion:Occlusion")
        """

    @hookspec
    def medtrust_suites(self) -> Iterable[SuiteSpec]:  # type: ignore[empty-body]
        """Offer self-test suites for `medtrust selftest`.

        Example:
            from medtrust import hookimpl
            from medtrust.types import SuiteRow, SuiteSpec

            class Sharpness:
                def run(self, data):
                    yield SuiteRow("sharpness", "ok", f"{len(data.train)} images were looked at")

            @hookimpl
            def medtrust_suites():
                yield SuiteSpec(name="sharpness", version="1", factory="my_plugin:Sharpness")
        """

    @hookspec
    def medtrust_report_formats(self) -> Iterable[ReportFormat]:  # type: ignore[empty-body]
        """Offer renderings of the report.

        Example:
            from medtrust import ReportFormat, hookimpl

            @hookimpl
            def medtrust_report_formats():
                yield ReportFormat(name="csv", version="1", factory="my_package.csv:render", filename="report.csv")
        """

    @hookspec(historic=True)
    def medtrust_configure(self, config: Config) -> None:
        """Learn the configuration of the run, once it is known.

        Example:
            from medtrust import hookimpl

            @hookimpl
            def medtrust_configure(config):
                print("device", config.get("device"))
        """

    @hookspec
    def medtrust_before_metric(self, plan: Any, metric: MetricSpec) -> None:
        """Be told that a metric is about to run.

        Example:
            from medtrust import hookimpl

            @hookimpl
            def medtrust_before_metric(plan, metric):
                print("running", metric.name)
        """

    @hookspec
    def medtrust_after_metric(self, plan: Any, metric: MetricSpec, result: Result) -> None:
        """Be told a metric's result; called once per result.

        Example:
            from medtrust import hookimpl

            @hookimpl
            def medtrust_after_metric(plan, metric, result):
                print(result.id, result.estimate)
        """

    @hookspec
    def medtrust_on_metric_error(self, plan: Any, metric: MetricSpec, failure: PluginFailure) -> None:
        """Be told that a metric failed; the rest of the audit goes on.

        Example:
            from medtrust import hookimpl

            @hookimpl
            def medtrust_on_metric_error(plan, metric, failure):
                print(metric.name, failure.error)
        """

    @hookspec
    def medtrust_after_report(self, report: dict[str, Any]) -> None:
        """Be given the finished report as plain data.

        Example:
            from medtrust import hookimpl

            @hookimpl
            def medtrust_after_report(report):
                print(report["verdict"])
        """


REGISTRATION_HOOKS = (
    "medtrust_formats",
    "medtrust_generators",
    "medtrust_features",
    "medtrust_metrics",
    "medtrust_explainers",
    "medtrust_suites",
    "medtrust_report_formats",
)
EVENT_HOOKS = (
    "medtrust_configure",
    "medtrust_before_metric",
    "medtrust_after_metric",
    "medtrust_on_metric_error",
    "medtrust_after_report",
)
