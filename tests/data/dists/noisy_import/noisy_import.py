from medtrust import MetricSpec, hookimpl

print("imported with a shout")


@hookimpl
def medtrust_metrics():
    print("called with a shout")
    return [MetricSpec(name="loudness", version="1", factory="noisy_import:Loudness", pillar="fidelity")]


class Loudness:
    pass
