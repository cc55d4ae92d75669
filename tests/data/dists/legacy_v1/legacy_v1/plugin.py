"""Every hook that version 1 had when it was frozen."""

from medtrust import ExplainerSpec, FeatureSpec, FormatSpec, GeneratorSpec, MetricSpec, ReportFormat, hookimpl

MEDTRUST_API = 1
heard = []


@hookimpl
def medtrust_metrics():
    yield MetricSpec(
        name="old_gap",
        version="1",
        factory="legacy_v1.parts:Gap",
        pillar="fidelity",
        needs=("train", "synthetic", "images", "features"),
        direction="lower",
        range=(0.0, None),
        summary="distance of the mean features",
    )


@hookimpl
def medtrust_features():
    return [FeatureSpec(name="old_mean", version="1", factory="legacy_v1.parts:Mean", summary="mean level")]


@hookimpl
def medtrust_generators():
    yield GeneratorSpec(name="old_noise", version="1", factory="legacy_v1.parts:Noise", summary="white noise")


@hookimpl
def medtrust_explainers():
    yield ExplainerSpec(name="old_gradient", version="1", factory="legacy_v1.parts:gradient")


@hookimpl
def medtrust_formats():
    yield FormatSpec(name="old_raw", version="1", factory="legacy_v1.parts:Raw", suffixes=(".oldraw",))


@hookimpl
def medtrust_report_formats():
    yield ReportFormat(name="old_ids", version="1", factory="legacy_v1.parts:render", filename="old-ids.txt")


@hookimpl
def medtrust_configure(config):
    heard.append(("configure", config.get("seed")))


@hookimpl
def medtrust_before_metric(plan, metric):
    heard.append(("before", metric.name))


@hookimpl
def medtrust_after_metric(plan, metric, result):
    heard.append(("after", result.id))


@hookimpl
def medtrust_on_metric_error(plan, metric, failure):
    heard.append(("error", failure.error))


@hookimpl
def medtrust_after_report(report):
    heard.append(("report", report["schema"]))
