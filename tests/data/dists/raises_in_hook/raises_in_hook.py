from medtrust import FeatureSpec, hookimpl


@hookimpl
def medtrust_metrics():
    raise RuntimeError("first line\nsecond line \x1b[31mred")


@hookimpl
def medtrust_features():
    return [FeatureSpec(name="sound", version="1", factory="raises_in_hook:Sound")]


@hookimpl
def medtrust_before_metric(plan, metric):
    raise KeyError(metric)


@hookimpl
def medtrust_after_report(report):
    raise SystemExit(1)
