from medtrust import MetricSpec, hookimpl


@hookimpl
def medtrust_metrics():
    yield MetricSpec(name="twice", version="1", factory="duplicate_name.second:Twice", pillar="fidelity")
    yield MetricSpec(name="only_second", version="1", factory="duplicate_name.second:Only", pillar="fidelity")
