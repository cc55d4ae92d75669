"""Registration: imports medtrust and nothing else."""

from medtrust import FeatureSpec, MetricSpec, hookimpl

heard = []


@hookimpl
def medtrust_metrics():
    yield MetricSpec(
        name="brightness",
        version="1",
        factory="good_plugin.brightness:Brightness",
        pillar="fidelity",
        needs=("train", "synthetic", "features"),
        summary="difference of the mean feature",
    )


@hookimpl
def medtrust_features():
    return [FeatureSpec(name="mean", version="2", factory="good_plugin.brightness:Mean", summary="mean intensity")]


@hookimpl
def medtrust_configure(config):
    heard.append(("configure", config))


@hookimpl
def medtrust_before_metric(metric):
    print("heard of", metric)
    heard.append(("before", metric))
