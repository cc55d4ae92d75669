from medtrust import MetricSpec, hookimpl


@hookimpl
def medtrust_metrics():
    yield MetricSpec(name="twice", version="1", factory="duplicate_name.first:Twice", pillar="fidelity")
    yield MetricSpec(name="only_first", version="1", factory="duplicate_name.first:Only", pillar="fidelity")
