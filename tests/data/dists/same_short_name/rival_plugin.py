from medtrust import MetricSpec, hookimpl


class Rival:
    """A plugin may be a class: it is instantiated."""

    @hookimpl
    def medtrust_metrics(self):
        return [MetricSpec(name="brightness", version="7", factory="rival_plugin:Rival.Metric", pillar="fidelity")]

    class Metric:
        pass
