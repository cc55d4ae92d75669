from medtrust import MetricSpec, hookimpl


@hookimpl
def medtrust_metrics():
    return [MetricSpec(name="careful", version="1", factory="optional_hook:Careful", pillar="fidelity")]


@hookimpl(optionalhook=True)
def medtrust_holograms():
    return []
