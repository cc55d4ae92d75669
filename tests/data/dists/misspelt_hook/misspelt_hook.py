from medtrust import MetricSpec, hookimpl


@hookimpl
def medtrust_metrcs():
    return [MetricSpec(name="lost", version="1", factory="misspelt_hook:Lost", pillar="fidelity")]
