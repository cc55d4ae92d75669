from medtrust import MetricSpec, hookimpl

MEDTRUST_API = 99


@hookimpl
def medtrust_metrics():
    return [MetricSpec(name="futuristic", version="1", factory="newer_api:Futuristic", pillar="fidelity")]
