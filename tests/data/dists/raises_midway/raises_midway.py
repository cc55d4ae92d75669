from medtrust import MetricSpec, hookimpl


@hookimpl
def medtrust_metrics():
    yield MetricSpec(name="before", version="1", factory="raises_midway:Before", pillar="fidelity")
    yield MetricSpec(name="also_before", version="1", factory="raises_midway:AlsoBefore", pillar="fidelity")
    raise OSError("the table of metrics ends here")
    yield MetricSpec(name="after", version="1", factory="raises_midway:After", pillar="fidelity")
