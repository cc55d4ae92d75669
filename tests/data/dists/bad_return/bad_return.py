from medtrust import FeatureSpec, FormatSpec, GeneratorSpec, MetricSpec, hookimpl


@hookimpl
def medtrust_metrics():
    return MetricSpec(name="bare", version="1", factory="bad_return:Bare", pillar="fidelity")


@hookimpl
def medtrust_features():
    yield "radiomics"
    yield MetricSpec(name="stray", version="1", factory="bad_return:Stray", pillar="fidelity")
    yield FeatureSpec(name="sound", version="1", factory="bad_return:Sound")


@hookimpl
def medtrust_formats():
    yield FormatSpec(name="dotless", version="1", factory="bad_return.Dotless", suffixes=(".x",))
    yield FormatSpec(name="texty", version="1", factory="bad_return:Texty", suffixes=".x")
    yield FormatSpec(name="a/b", version="1", factory="bad_return:Slash", suffixes=(".x",))


@hookimpl
def medtrust_generators():
    GeneratorSpec(name="forgotten", version="1", factory="bad_return:Forgotten")
