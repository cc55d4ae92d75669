from medtrust import MetricSpec, hookimpl


@hookimpl
def medtrust_metrics():
    for name, factory in {
        "absent_module": "raises_in_factory.absent:Metric",
        "absent_attribute": "raises_in_factory.plugin:Absent",
        "raising_module": "raises_in_factory.raising:Metric",
        "exiting_module": "raises_in_factory.exiting:Metric",
    }.items():
        yield MetricSpec(name=name, version="1", factory=factory, pillar="fidelity")
