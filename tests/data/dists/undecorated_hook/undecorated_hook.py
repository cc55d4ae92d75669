from medtrust import MetricSpec


def medtrust_metrics():
    return [MetricSpec(name="lost", version="1", factory="undecorated_hook:Lost", pillar="fidelity")]
