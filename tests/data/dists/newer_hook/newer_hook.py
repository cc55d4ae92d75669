from medtrust import MetricSpec, hookimpl


@hookimpl
def medtrust_metrics():
    return [MetricSpec(name="futuristic", version="1", factory="newer_hook:Futuristic", pillar="fidelity")]


@hookimpl
def medtrust_holograms():
    return []
