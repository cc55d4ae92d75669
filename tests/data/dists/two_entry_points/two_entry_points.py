from medtrust import MetricSpec, hookimpl


@hookimpl
def medtrust_metrics():
    return [MetricSpec(name="shared", version="1", factory="two_entry_points:Shared", pillar="fidelity")]
